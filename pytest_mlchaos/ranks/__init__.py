"""Worlds of ranks, ``mlchaos.world``: each rank is a process of its own."""
