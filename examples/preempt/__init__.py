"""A job on a machine that may be taken away: it gets SIGTERM, and 30 seconds."""
