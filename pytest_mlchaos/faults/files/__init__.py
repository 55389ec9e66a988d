"""Faults of files at rest: damaged, late, missing."""
