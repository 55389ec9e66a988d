"""Find out how the collective that is being launched combines contributions."""

from __future__ import annotations

import sys
from types import FrameType

__all__ = ["SUM", "reduction"]

SUM = "sum"
_MAX_FRAMES = 40
"""torch's own functions are at most this many frames above a fault."""


def reduction() -> str:
    """Return ``"sum"``, ``"avg"``, ``"max"``, ``"min"``, ``"product"`` or another name in torch.

    The operator of the dispatcher gets an object that Python cannot read. So this looks for the
    options in the frames of the functions of ``torch.distributed`` that are being called. C++ code
    (DDP's reducer) has no frames, and sums.
    """
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_MAX_FRAMES):
        if frame is None:
            break
        if str(frame.f_globals.get("__name__", "")).startswith("torch.distributed."):
            for value in frame.f_locals.values():
                if type(value).__name__.endswith("Options") and hasattr(value, "reduceOp"):
                    return _name(value.reduceOp)
            name = frame.f_locals.get("reduceOp")
            if isinstance(name, str):
                return name.lower()
        frame = frame.f_back
    return SUM


def _name(operation: object) -> str:
    """Return the name of a ``ReduceOp``, or of its type."""
    kind = getattr(operation, "op", operation)
    return str(getattr(kind, "name", kind)).rpartition(".")[2].lower()
