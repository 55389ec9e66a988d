"""A training that skips batches with missing values."""
