"""A script under torchrun that loses one of its two nodes."""
