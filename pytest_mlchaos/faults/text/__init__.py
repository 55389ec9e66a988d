"""Faults of text."""
