"""Define faults of text."""
