"""A DDP training loop in which one rank sends wrong gradients."""
