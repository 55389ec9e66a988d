"""Storage operations; one module for each way to reach a file."""
