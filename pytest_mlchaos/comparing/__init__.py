"""Compare a metric under faults with its golden values, over several seeds."""
