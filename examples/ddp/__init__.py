"""A DDP training loop that loses one of its ranks."""
