"""Recognize tables without importing their libraries."""

from __future__ import annotations

import sys

__all__ = ["has_fields", "is_frame", "is_table"]

_FRAMES = {
    "pandas": ("DataFrame", "Series"),
    "pyarrow": ("Table", "RecordBatch"),
    "polars": ("DataFrame",),
}


def is_frame(value: object) -> bool:
    """Return True for a DataFrame or Series of pandas, or a table of pyarrow or polars."""
    for library, names in _FRAMES.items():
        module = sys.modules.get(library)
        if module is not None and any(
            isinstance(value, getattr(module, name, ())) for name in names
        ):
            return True
    return False


def has_fields(value: object) -> bool:
    """Return True for a NumPy array with fields."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.names is not None


def is_table(value: object) -> bool:
    """Return True for a frame, or for a NumPy array with fields or with two axes."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return has_fields(value) or value.ndim == 2
    return is_frame(value)
