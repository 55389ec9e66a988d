"""Bound the largest gap between groups, and decide if it is small enough."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..confidence import size_that_decides
from ..intervals import Interval
from .measures import Measure

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["Gap", "Shown", "largest_difference", "samples_to_decide", "smallest_ratio"]

MOST_SAMPLES = 10**8
"""More samples than this are not suggested."""
BISECTIONS = 20


@dataclasses.dataclass(frozen=True)
class Shown:
    """The group with the more extreme value, and the one that it is compared with."""

    measure: Measure
    high: int
    low: int


@dataclasses.dataclass(frozen=True)
class Gap:
    """The largest gap between two groups.

    Attributes:
        estimate: Its estimate.
        low: Its lower bound. It allows for the number of pairs that are compared.
        high: Its upper bound.
        shown: The groups of the largest gap.
    """

    estimate: float
    low: float
    high: float
    shown: Shown

    def verdict(self, limit: float, *, ratio: bool) -> Literal["fair", "unfair", "undecided"]:
        """Compare the gap with its limit."""
        if ratio:
            if self.high < limit:
                return "unfair"
            return "fair" if self.low >= limit else "undecided"
        if self.low > limit:
            return "unfair"
        return "fair" if self.high <= limit else "undecided"


def _distances(bounds: Interval) -> tuple[Array, Array, Array, Array]:
    import numpy as np

    known = ~np.isnan(bounds.estimate)
    middle = np.where(known, bounds.estimate, 0.0)
    return middle, middle - bounds.low, bounds.high - middle, known


def _bonferroni(measures: Sequence[Measure], doubt: float) -> float:
    pairs = sum(len(one.sizes) * (len(one.sizes) - 1) for one in measures)
    return doubt / pairs


def largest_difference(measures: Sequence[Measure], confidence: float) -> Gap:
    """Return the largest difference between two groups, over all measures.

    The bounds of a difference come from those of the two groups by the method of variance
    estimates recovery. The lower bound is corrected for all ordered pairs. The upper one needs no
    correction: if the largest gap is above it, the pair with that gap is, too.

    Source: Zou and Donner (2008), "Construction of confidence limits about effect measures",
    Statistics in Medicine 27. Berger (1982) for the intersection-union test.
    """
    import numpy as np

    doubt = 1 - confidence
    strict = _bonferroni(measures, doubt)
    best: Gap | None = None
    for measure in measures:
        middle, below, above, known = _distances(measure.bounds(strict))
        difference = middle[:, None] - middle[None, :]
        low = difference - np.hypot(below[:, None], above[None, :])
        _, below, above, _ = _distances(measure.bounds(doubt))
        high = difference + np.hypot(above[:, None], below[None, :])
        both = known[:, None] & known[None, :]
        shown = np.where(both, difference, -math.inf)
        np.fill_diagonal(low, -math.inf)
        np.fill_diagonal(high, -math.inf)
        np.fill_diagonal(shown, -math.inf)
        i, j = np.unravel_index(int(shown.argmax()), shown.shape)
        found = Gap(
            float(shown[i, j]),
            max(float(low.max()), 0.0),
            float(high.max()),
            Shown(measure, int(i), int(j)),
        )
        if best is None:
            best = found
        else:
            wider = found if found.estimate > best.estimate else best
            best = Gap(
                wider.estimate, max(best.low, found.low), max(best.high, found.high), wider.shown
            )
    assert best is not None
    return best


def smallest_ratio(measures: Sequence[Measure], confidence: float) -> Gap:
    """Return the smallest ratio between the shares of two groups, over all measures.

    A ratio is below a number if the first share less that number of times the second one is below
    0. The bounds of this difference come from those of the two groups, as by
    ``largest_difference``. The upper bound is the corrected one here.
    """
    import numpy as np

    doubt = 1 - confidence
    strict = _bonferroni(measures, doubt)
    best: Gap | None = None
    for measure in measures:
        middle, below, above, known = _distances(measure.bounds(doubt))

        def surely_above(
            ratio: Array, middle: Any = middle, below: Any = below, above: Any = above
        ) -> Any:
            contrast = middle[:, None] - ratio * middle[None, :]
            return contrast - np.hypot(below[:, None], ratio * above[None, :]) >= 0

        low = _largest_true(surely_above, len(middle))
        middle, below, above, _ = _distances(measure.bounds(strict))

        def maybe_above(
            ratio: Array, middle: Any = middle, below: Any = below, above: Any = above
        ) -> Any:
            contrast = middle[:, None] - ratio * middle[None, :]
            return contrast + np.hypot(above[:, None], ratio * below[None, :]) >= 0

        high = _largest_true(maybe_above, len(middle))
        with np.errstate(divide="ignore", invalid="ignore"):
            shown = middle[:, None] / middle[None, :]
        both = known[:, None] & known[None, :] & ~np.isnan(shown)
        shown = np.where(both, shown, math.inf)
        for matrix in (low, high, shown):
            np.fill_diagonal(matrix, math.inf)
        i, j = np.unravel_index(int(shown.argmin()), shown.shape)
        found = Gap(
            min(float(shown[i, j]), 1.0),
            min(float(low.min()), 1.0),
            min(float(high.min()), 1.0),
            Shown(measure, int(j), int(i)),
        )
        if best is None:
            best = found
        else:
            narrower = found if found.estimate < best.estimate else best
            best = Gap(
                narrower.estimate,
                min(best.low, found.low),
                min(best.high, found.high),
                narrower.shown,
            )
    assert best is not None
    return best


def _largest_true(holds: Callable[[Array], Array], groups: int) -> Array:
    """Return the largest ratio up to 1 for which a statement holds, for each pair.

    It holds below that ratio and not above it.
    """
    import numpy as np

    low, high = np.zeros((groups, groups)), np.ones((groups, groups))
    low = np.where(holds(high), high, low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        true = holds(middle)
        low, high = np.where(true, middle, low), np.where(true, high, middle)
    return low


def samples_to_decide(
    measures: Sequence[Measure], decides: Callable[[Sequence[Measure]], bool]
) -> int | None:
    """Return the number of samples per group that would decide, if the estimates are the truth.

    Groups that have more keep them. Return None if no reasonable number does.
    """

    def enough(size: int) -> bool:
        return decides([one.grown(size) for one in measures])

    smallest = max(2, int(min(one.sizes.min() for one in measures)))
    return size_that_decides(enough, smallest, MOST_SAMPLES, parts=20)
