"""Judge whether data still have the distribution of a reference."""

from __future__ import annotations

from .assertion import assert_no_drift
from .options import DriftOptions

__all__ = ["DriftOptions", "assert_no_drift"]
