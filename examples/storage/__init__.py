"""A training job whose checkpoints are in an object store."""
