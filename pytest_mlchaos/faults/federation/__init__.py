"""Define faults of federations: of clients, of their updates, and of the server."""
