"""The classical room: score matching of unnormalised models without networks (Hyvarinen 2005)."""
