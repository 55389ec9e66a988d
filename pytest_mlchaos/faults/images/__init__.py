"""Faults of images."""
