"""A job that keeps its checkpoint in two regions."""
