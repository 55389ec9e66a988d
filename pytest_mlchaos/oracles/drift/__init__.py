"""Judge whether data still have the distribution of a reference."""

from __future__ import annotations

from .assertion import assert_no_drift
from .monitor import DriftMonitor
from .options import DriftOptions
from .texts import TextDriftOptions, assert_no_text_drift

__all__ = [
    "DriftMonitor",
    "DriftOptions",
    "TextDriftOptions",
    "assert_no_drift",
    "assert_no_text_drift",
]
