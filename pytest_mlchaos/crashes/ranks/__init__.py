"""Explore the crash states of a world of ranks, which share a directory."""
