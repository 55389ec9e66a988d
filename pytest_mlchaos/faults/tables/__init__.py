"""Define faults of tables, with one module for each library of tables."""

from . import arrow, numpy, pandas, polars, records

__all__ = ["arrow", "numpy", "pandas", "polars", "records"]  # each registers its tables
