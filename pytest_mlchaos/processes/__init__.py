"""Processes that the tool starts: the warm process that others are forked from, and how none is left behind."""
