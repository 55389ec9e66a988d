"""Make visits of the network: connections of proxies, and requests of client libraries."""
