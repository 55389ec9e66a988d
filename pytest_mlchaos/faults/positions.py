"""Sites at which an event that has nothing to do with the code can find the process, the likeliest first."""

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
"""An event at a step may come before it or right behind it."""
