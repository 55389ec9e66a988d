"""Supervised runs, ``mlchaos.run``: restarts, and a comparison with the golden run."""
