"""Define faults of the ranks of a world, one file for each family."""
