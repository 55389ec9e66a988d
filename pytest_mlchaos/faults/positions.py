"""List sites at which an event from outside may find the process, the most likely first."""

from __future__ import annotations

__all__ = ["MOMENTS", "SIGNAL_SITES"]

SIGNAL_SITES = (
    "train.step",
    "train.step.end",
    "model.forward",
    "storage.write",
    "data.batch",
    "train.backward",
    "storage.rename",
    "storage.open",
)
MOMENTS = {"site": {"train.step": ("train.step", "train.step.end")}}
"""An event at a step may come just before it or just after it."""
