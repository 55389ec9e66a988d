"""A job that downloads the weights of its model."""
