"""Define faults of batches: values, labels, order, and the workers that load them."""
