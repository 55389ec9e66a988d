"""A DDP training loop in which a rank dies in the middle of a checkpoint."""
