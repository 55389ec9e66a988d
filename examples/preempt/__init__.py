"""A job on a machine that may be reclaimed: it gets SIGTERM, and 30 seconds."""
