"""A nightly job that computes only what is new, and caches the rest."""
