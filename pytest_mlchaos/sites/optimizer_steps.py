"""Tell the steps of the user's optimizers from those that an optimizer makes inside its own.

An optimizer may hold a second one, as ZeroRedundancyOptimizer does, and a subclass may call the
``step`` of its parent. torch calls its hooks for each of them, but the user takes one step.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch

__all__ = ["outermost_steps"]

Hook: TypeAlias = Callable[[Any, Any, Any], None]


def outermost_steps(
    before: Callable[[torch.optim.Optimizer, Any, Any, FrameType], object],
    after: Callable[[torch.optim.Optimizer, Any, Any], object] = lambda *_: None,
) -> tuple[Hook, Hook]:
    """Return hooks to register before and after steps. Register both.

    Args:
        before: A function that is called with the optimizer, the arguments of its step, and the
            frame that is taking the step.
        after: A function that is called with the optimizer and the arguments, if the step has not
            raised.
    """
    running = threading.local()

    def before_step(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        frame, outer = sys._getframe(1), getattr(running, "frame", None)
        # If the step before has raised, its frame is still noted here
        if outer is None or not _is_called_by(frame, outer):
            running.frame = frame
            before(optimizer, args, kwargs, frame)

    def after_step(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        if getattr(running, "frame", None) is sys._getframe(1):
            running.frame = None
            after(optimizer, args, kwargs)

    return before_step, after_step


def _is_called_by(frame: FrameType, outer: FrameType) -> bool:
    caller = frame.f_back
    while caller is not None and caller is not outer:
        caller = caller.f_back
    return caller is not None
