"""A DDP training loop whose ranks draw noise of their own, and are restarted."""
