"""Name the phases of work on a device, and the sites where they begin."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["SITES_OF_PHASES", "Phase"]

Phase: TypeAlias = Literal["forward", "backward", "optimizer", "call"]
"""``"forward"`` is a call of the model in training. ``"call"`` is any call, also in evaluation and
serving.
"""
SITES_OF_PHASES = {
    "forward": "train.forward",
    "backward": "train.backward",
    "optimizer": "train.step",
    "call": "model.forward",
}
