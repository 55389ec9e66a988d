"""Worlds of ranks: the warm process, the agent of each world, its ranks, and the wire between them and the runner."""
