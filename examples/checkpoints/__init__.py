"""A training loop that writes checkpoints and resumes from them."""
