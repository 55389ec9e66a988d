"""A DDP training loop in which a rank has fewer batches than the others."""
