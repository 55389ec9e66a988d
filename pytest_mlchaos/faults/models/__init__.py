"""Define faults of models: their weights, gradients and layers."""
