"""Judge whether a loss is finite, and low enough in time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..core.privacy import shows_values
from ..core.recording import oracle
from ..core.validation import (
    COUNT,
    ITERABLE,
    NUMBER,
    WHOLE,
    check_arguments,
    format_number,
    format_value,
    index,
    optional,
)
from ..errors import BadArgument, NotConverged

__all__ = ["assert_converged"]
_DISTANCES = (
    (1.01, "up to 1 % above the bound"),
    (1.1, "up to 10 % above the bound"),
    (2.0, "up to twice the bound"),
    (10.0, "up to ten times the bound"),
)


@oracle
@check_arguments(
    "assert_converged", losses=ITERABLE, below=NUMBER, window=COUNT, by=optional(WHOLE)
)
def assert_converged(
    losses: Iterable[Any], *, below: float, by: int | None = None, window: int = 1
) -> None:
    """Raise ``NotConverged`` unless training converged.

    All losses must be finite. Their mean over ``window`` steps must be below ``below`` at step
    ``by`` at the latest, and still at the end.

    Args:
        losses: One number for each step (floats, 0-d tensors or arrays), from step 0.
        below: The bound, in the unit of the loss.
        by: The step by which the bound must be reached. Without it, the end.
        window: The number of steps whose mean is taken.

    Raises:
        NotConverged: The loss is not finite, or not low enough in time.
        BadArgument: The losses are empty, or fewer than ``window``.

    Fidelity: one run says little about a stochastic loss. Use ``assert_not_worse`` to compare
    several seeds.
    """
    values = [_number(loss, step) for step, loss in enumerate(losses)]
    if not values:
        raise BadArgument(
            "assert_converged: losses must not be empty. Return or record one loss per step"
        )
    if not index(window) or window > len(values):
        raise BadArgument(
            f"assert_converged: window must be from 1 to {len(values)}, the number of losses, got "
            f"{format_value(window)}"
        )
    if by is not None and (index(by) is None or by < window - 1 or by >= len(values)):
        raise BadArgument(
            f"assert_converged: by must be a step from {window - 1} to {len(values) - 1}, got "
            f"{format_value(by)}"
        )
    broken = next((step for step, value in enumerate(values) if not math.isfinite(value)), None)
    if broken is not None:
        count = sum(not math.isfinite(value) for value in values)
        raise NotConverged(
            f"the loss is {values[broken]} at step {broken}, and not finite at {count} of "
            f"{len(values)} steps"
        )
    means = [sum(values[end - window : end]) / window for end in range(window, len(values) + 1)]
    what = "the loss" if window == 1 else f"the mean loss over {window} steps"
    if by is not None and min(means[: by - window + 2]) >= below:
        raise NotConverged(
            f"{what} did not fall below {below:g} by step {by}: "
            f"{_lowest(means[: by - window + 2], below, window)}"
        )
    if means[-1] >= below:
        lowest = min(means)
        reached = (
            ""
            if lowest >= below
            else f", though it had been {_format_loss(lowest, below)} at step {means.index(lowest) + window - 1}"
        )
        how = _distance(means[-1], below)
        raise NotConverged(
            f"{what} is {how} at the last step ({len(values) - 1}), expected below "
            f"{below:g}{reached}"
        )


def _lowest(means: list[float], below: float, window: int) -> str:
    return f"the lowest, at step {means.index(min(means)) + window - 1}, was {_distance(min(means), below)}"


def _format_loss(value: float, below: float) -> str:
    return format_number(value, below) if shows_values() else "below it"


def _distance(value: float, below: float) -> str:
    """Return a loss, or how far it is above its bound if values must not be shown."""
    if shows_values():
        return format_number(value, below)
    if below <= 0:
        return "above the bound"
    return next(
        (text for ratio, text in _DISTANCES if value <= ratio * below),
        "more than ten times the bound",
    )


def _number(value: Any, step: int) -> float:
    try:
        return float("-" if isinstance(value, (bool, str, bytes)) else value)
    except (TypeError, ValueError, OverflowError):
        raise BadArgument(
            f"assert_converged: the loss of step {step} must be a number, got "
            f"{type(value).__name__}"
        ) from None
