"""Judge the run of a world, a file for each topic."""
