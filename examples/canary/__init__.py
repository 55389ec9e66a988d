"""A controller that rolls out a new version of a scorer step by step."""
