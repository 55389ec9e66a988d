"""Processes that the tool starts: the warm process that they are forked from, what they start with, and how nobody is left behind."""
