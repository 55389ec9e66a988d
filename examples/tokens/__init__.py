"""A server that streams the tokens of a tiny language model."""
