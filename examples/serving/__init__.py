"""A scorer of irises behind HTTP, which asks a feature store."""
