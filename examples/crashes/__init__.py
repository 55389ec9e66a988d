"""Training jobs that are killed at any moment, also during a write: every crash state, from one
run.
"""
