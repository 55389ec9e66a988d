"""Run a federation of clients and a server in process, and judge its global model."""
