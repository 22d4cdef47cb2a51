"""Tools: what the tasks of a plan call."""
