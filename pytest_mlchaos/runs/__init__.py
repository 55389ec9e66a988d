"""Supervised runs, ``mlchaos.run``: a subject is started again when a fault ends it, and judged by its golden run."""
