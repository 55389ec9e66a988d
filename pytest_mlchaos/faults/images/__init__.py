"""Define faults of images."""
