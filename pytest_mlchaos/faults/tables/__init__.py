"""Faults of tables; one module for each library that holds them."""
