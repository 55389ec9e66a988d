"""Define the storage sites, in one module for each way to reach a file."""
