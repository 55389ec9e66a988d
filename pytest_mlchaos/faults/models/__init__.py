"""Faults of models: their weights, gradients and layers."""
