"""Judge whether a loss is finite, low enough in time, and settled."""

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
    TOLERANCE,
    WHOLE,
    check_arguments,
    format_number,
    format_value,
    index,
    optional,
)
from ..errors import BadArgument, NotConverged
from .quality.finite_values import first_not_finite
from .quality.loss_curves import settled_by, trend_text

__all__ = ["assert_converged"]

FEWEST_SETTLED = 3
"""The fewest steps of each tenth whose means are compared."""
_DISTANCES = (
    (1.01, "up to 1 % above the bound"),
    (1.1, "up to 10 % above the bound"),
    (2.0, "up to twice the bound"),
    (10.0, "up to ten times the bound"),
)


@oracle
@check_arguments(
    "assert_converged",
    losses=ITERABLE,
    below=optional(NUMBER),
    window=COUNT,
    by=optional(WHOLE),
    settled=optional(TOLERANCE),
    max_rise=optional(TOLERANCE),
)
def assert_converged(
    losses: Iterable[Any],
    *,
    below: float | None = None,
    by: int | None = None,
    window: int = 1,
    settled: float | None = None,
    max_rise: float | None = None,
    state: object = None,
) -> None:
    """Raise ``NotConverged`` unless training converged.

    All losses must be finite. Their mean over ``window`` steps must be below ``below`` at step
    ``by`` at the latest, and still at the end. The message says if the loss is on a plateau,
    diverges, or is still falling.

    Args:
        losses: One number for each step (floats, 0-d tensors or arrays), from step 0.
        below: The bound, in the unit of the loss.
        by: The step by which the bound must be reached. Without it, the end.
        window: The number of steps whose mean is taken.
        settled: The largest change of the mean loss between the last tenth of the steps and the
            tenth before it, as a share: 0.02 for 2 %. A loss that still falls has not converged,
            and one that rises diverges.
        max_rise: The most by which a mean loss may ever be above the lowest one before, in the unit
            of the loss. A loss that jumps and comes back has diverged for a while.
        state: A model, or a state dict, or a list of these. Its parameters and buffers must be
            finite, too. In buffers and state dicts, ``-inf`` is allowed, because it may be a mask.

    Raises:
        NotConverged: The loss or the state is not finite, or the loss is not low enough in time.
        BadArgument: The losses are empty, or fewer than ``window``, or there is nothing to check:
            give ``below``, ``settled`` or ``max_rise``.

    Fidelity: one run says little about a stochastic loss. Use ``mlchaos.compare`` to compare
    several seeds.

    Example:
        >>> assert_converged([1.0, 0.5, 0.2, 0.1], below=0.2, max_rise=0.05)
    """
    if below is None and settled is None and max_rise is None:
        raise BadArgument(
            "assert_converged: below, settled or max_rise must be given, because it cannot fail "
            "without them, but got none of them"
        )
    if by is not None and below is None:
        raise BadArgument("assert_converged: by= needs below=, the bound to reach by that step")
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
    if (unfit := first_not_finite(state)) is not None:
        raise NotConverged(f"the loss is finite, but the state is not: {unfit}")
    means = [sum(values[end - window : end]) / window for end in range(window, len(values) + 1)]
    what = "the loss" if window == 1 else f"the mean loss over {window} steps"
    if below is not None:
        _check_bound(values, means, what, below, by, window)
    if max_rise is not None:
        _check_rise(means, what, max_rise, window)
    if settled is not None:
        _check_settled(values, settled)


def _check_bound(
    values: list[float],
    means: list[float],
    what: str,
    below: float,
    by: int | None,
    window: int,
) -> None:
    """Raise ``NotConverged`` unless the means are below the bound in time, and at the end."""
    if by is not None and min(means[: by - window + 2]) >= below:
        raise NotConverged(
            f"{what} did not fall below {below:g} by step {by}: "
            f"{_lowest(means[: by - window + 2], below, window)}"
        )
    if means[-1] < below:
        return
    lowest = min(means)
    reached = (
        ""
        if lowest >= below
        else f", though it had been {_format_loss(lowest, below)} at step {means.index(lowest) + window - 1}"
    )
    raise NotConverged(
        f"{what} is {_distance(means[-1], below)} at the last step ({len(values) - 1}), expected "
        f"below {below:g}{reached}{trend_text(values)}"
    )


def _check_rise(means: list[float], what: str, max_rise: float, window: int) -> None:
    """Raise ``NotConverged`` if a mean is too far above the lowest one before."""
    lowest = means[0]
    for place, mean in enumerate(means):
        if mean - lowest > max_rise:
            rise = f"by {mean - lowest:.3g}, " if shows_values() else ""
            raise NotConverged(
                f"{what} diverged: at step {place + window - 1} it was above its lowest value before "
                f"({rise}at most {max_rise:g} is expected)"
            )
        lowest = min(lowest, mean)


def _check_settled(values: list[float], settled: float) -> None:
    """Raise ``NotConverged`` unless the last tenth of the losses is like the tenth before."""
    over = len(values) // 10
    if over < FEWEST_SETTLED:
        raise BadArgument(
            f"assert_converged: settled needs at least {10 * FEWEST_SETTLED} losses, got "
            f"{len(values)}"
        )
    change = settled_by(values, over)
    if change > settled:
        raise NotConverged(
            f"the mean loss of the last {over} steps differs by {100 * change:.3g} % from that of the "
            f"{over} steps before, expected at most {100 * settled:g} %{trend_text(values)}"
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
