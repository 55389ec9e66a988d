"""Training jobs that are killed at any moment, in the middle of a write too: every crash state, from one run."""
