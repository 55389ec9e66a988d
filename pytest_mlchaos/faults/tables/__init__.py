"""Define faults of tables, with one module for each library of tables."""
