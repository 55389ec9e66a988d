"""Supervised runs, ``mlchaos.run``: restart a subject when a fault ends it, and compare it with
its golden run."""
