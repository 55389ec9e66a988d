"""A training loop with a guard that skips batches whose loss is out of bounds."""
