"""A training loop that halves its batch when the device runs out of memory."""
