"""A balancer over two zones, whose predictions are billed."""
