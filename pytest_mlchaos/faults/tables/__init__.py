"""Define faults of tables, with one module for each library of tables."""

from . import arrow, numpy, pandas, polars

__all__ = ["arrow", "numpy", "pandas", "polars"]  # each registers its tables
