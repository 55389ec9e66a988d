"""A classifier of irises behind HTTP, which puts requests together into batches."""
