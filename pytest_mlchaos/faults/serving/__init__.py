"""Define faults of served apps: their clients, requests, models, dependencies, and caches."""
