"""Functions that define the flags that several verbs share, and the frame in which a verb runs."""
