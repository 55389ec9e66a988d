"""Read curves of losses: their trend, and the step at which one is back among the golden ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .samples import Array

__all__ = ["band_of", "settled_by", "steps_of_attempts", "steps_to_recover", "trend_text"]

BAND_WIDTH = 5.0
"""The width of the golden band, in standard deviations of the golden run's own noise. Medians
of five losses differ by 0.8 of them, so a curve without a fault hardly ever leaves the band."""
NOISE_STEPS = 25
"""The steps on each side from which the noise of a step is estimated."""
LEAST_WIDTH = 0.01
"""The least width of the band, as a share of the loss. A curve without noise has a band, too."""
FEWEST_FOR_TREND = 16


def steps_to_recover(
    losses: Sequence[float], golden: Sequence[float], *, window: int = 5
) -> int | None:
    """Return the number of steps from where a curve leaves the golden band until it is back.

    Return 0 if it never leaves it, and None if it is outside at the end, or back for less than
    ``window`` steps. A loss below the band is not outside. Medians over ``window`` steps are
    compared, so single spikes do not count. Steps beyond the end of the golden run are compared
    with its end.

    Args:
        losses: The losses to judge, in the order of the steps.
        golden: The losses of the golden run.
        window: The number of steps over which medians are taken.
    """
    import numpy as np

    values = np.nan_to_num(np.asarray(losses, float), nan=np.inf, posinf=np.inf, neginf=np.inf)
    top = band_of(golden, window=window)
    if len(top) < len(values):
        top = np.concatenate([top, np.full(len(values) - len(top), top[-1])])
    outside = np.flatnonzero(_medians(values, window) > top[: len(values)])
    if not len(outside):
        return 0
    first, last = int(outside[0]), int(outside[-1])
    return last + 1 - first if last + window < len(values) else None


def steps_of_attempts(
    attempts: Sequence[Sequence[float]], golden: Sequence[float], *, window: int = 5
) -> int | None:
    """Return the steps until the last attempt is back in the golden band.

    If there were restarts, the last attempt is compared with the end of the golden run, and the
    steps that were taken again count, too. See ``steps_to_recover``.
    """
    last, restarted = attempts[-1], len(attempts) > 1
    start = max(0, len(golden) - len(last)) if restarted else 0
    steps = steps_to_recover(last, golden[start:], window=window)
    again = max(0, sum(map(len, attempts[:-1])) - start)
    return None if steps is None else steps + again


def band_of(golden: Sequence[float], *, window: int = 5) -> Array:
    """Return the upper end of the golden band at each step.

    It is the running median plus five standard deviations of the run's own noise, or plus 1 %
    if that is more. The noise of a step comes from the differences of neighbouring losses up to 25
    steps around it: 1.4826 times their median size, divided by the square root of 2.
    """
    import numpy as np

    values = np.asarray(golden, float)
    level = _medians(values, window)
    if len(values) < 2:
        return np.asarray(level + LEAST_WIDTH * np.abs(level))
    # Differences of neighbours have no trend, but twice the variance.
    gaps = np.abs(np.diff(values, append=values[-2]))
    noise = 1.4826 / np.sqrt(2) * _medians(gaps, 2 * NOISE_STEPS + 1)
    return np.asarray(level + np.maximum(BAND_WIDTH * noise, LEAST_WIDTH * np.abs(level)))


def settled_by(losses: Sequence[float], over: int) -> float:
    """Return how far the mean loss moved between the last ``over`` steps and those before them.

    It is a share of the larger of both means.
    """
    import numpy as np

    values = np.asarray(losses, float)
    last, before = float(values[-over:].mean()), float(values[-2 * over : -over].mean())
    scale = max(abs(last), abs(before))
    return abs(last - before) / scale if scale else 0.0


def trend_text(losses: Sequence[float]) -> str:
    """Describe the end of a curve that is not low enough: a plateau, a rise, or a fall.

    Return an empty text for fewer than 16 losses.
    """
    import numpy as np

    values = np.asarray(losses, float)
    if len(values) < FEWEST_FOR_TREND:
        return ""
    blocks = np.array_split(values, 8)
    starts = np.concatenate([[0], np.cumsum([len(one) for one in blocks])[:-1]])
    levels = np.array([np.median(one) for one in blocks])
    gaps = np.abs(np.diff(values))
    # Differences of neighbours have no trend, but twice the variance.
    noise = 1.4826 * float(np.median(gaps)) / np.sqrt(2) * 1.2533 / np.sqrt(len(blocks[0]))
    slack = max(3 * noise * np.sqrt(2), 0.01 * abs(float(levels[-1])))
    lowest = int(levels.argmin())
    if levels[-1] > levels[lowest] + slack:
        return f". It diverges: its lowest level was about step {int(starts[lowest])}"
    flat = len(levels) - 1
    while flat and abs(levels[flat - 1] - levels[-1]) <= slack:
        flat -= 1
    if flat < len(levels) - 1:
        return f". It is on a plateau since about step {int(starts[flat])}"
    return ". It is still falling, so it may need more steps"


def _medians(values: Any, window: int) -> Array:
    """Return the running median. At the ends, fewer values are taken."""
    import numpy as np

    half = window // 2
    padded = np.concatenate(
        [np.full(half, np.nan), np.asarray(values, float), np.full(half, np.nan)]
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.asarray(np.nanmedian(windows, axis=1))
