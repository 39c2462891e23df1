"""Classical score matching: unnormalised models without networks (Hyvarinen 2005)."""
