"""Worlds of ranks: the agent of each world, its ranks, and what the runner knows of them."""
