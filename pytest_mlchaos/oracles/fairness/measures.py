"""Measure a quantity in each group, with confidence bounds: shares, means, and harms."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import TYPE_CHECKING, Any, TypeAlias

from ..intervals import Interval, clopper_pearson, mean_interval

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["Harms", "Means", "Measure", "Shares"]

FEWEST_NUMBERS = 10
"""A mean of fewer numbers has no bounds, because nothing is known about their tails."""


class Measure(abc.ABC):
    """One quantity of each group.

    Attributes:
        name: Its name in messages, for example "selection rate".
        sizes: The number of samples in each group that it is computed from.
        unit: A word for these samples.
    """

    name: str
    sizes: Array
    unit: str = "samples"

    @abc.abstractmethod
    def bounds(self, tail: float) -> Interval:
        """Return the estimate of each group, and its bounds.

        Each bound fails with a probability of at most ``tail``.
        """

    @abc.abstractmethod
    def grown(self, size: float) -> Measure:
        """Return the measure of groups with at least this number of samples and equal estimates."""


@dataclasses.dataclass(frozen=True)
class Shares(Measure):
    """A share of each group, such as the true positive rate."""

    name: str
    events: Array
    sizes: Array
    unit: str = "samples"

    def bounds(self, tail: float) -> Interval:
        """Return the exact bounds of Clopper and Pearson. A group without samples has 0 and 1."""
        import numpy as np

        known = self.sizes > 0
        sizes = np.where(known, self.sizes, 1)
        events = np.where(known, self.events, 0)
        found = clopper_pearson(events, sizes, 1 - 2 * tail)
        return Interval(
            np.where(known, found.estimate, math.nan),
            np.where(known, found.low, 0.0),
            np.where(known, found.high, 1.0),
        )

    def grown(self, size: float) -> Shares:
        """Return larger groups with the same shares."""
        import numpy as np

        usual = self.events.sum() / max(self.sizes.sum(), 1)
        shares = np.where(self.sizes > 0, self.events / np.maximum(self.sizes, 1), usual)
        sizes = np.maximum(self.sizes, size)
        return dataclasses.replace(self, events=shares * sizes, sizes=sizes)


@dataclasses.dataclass(frozen=True)
class Harms(Measure):
    """The share of each group that a fault makes wrong, less the share that it makes right.

    The two shares exclude each other, so their correlation is known.
    """

    name: str
    worse: Array
    better: Array
    sizes: Array
    unit: str = "samples"

    def bounds(self, tail: float) -> Interval:
        """Return Newcombe's bounds of a paired difference, from exact ones of the two shares."""
        import numpy as np

        up = Shares("", self.worse, self.sizes).bounds(tail)
        down = Shares("", self.better, self.sizes).bounds(tail)
        p, q = np.nan_to_num(up.estimate), np.nan_to_num(down.estimate)
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = -np.sqrt(np.nan_to_num(p * q / ((1 - p) * (1 - q)), posinf=1.0))
        correlation = np.maximum(correlation, -1)

        def half(one: Array, other: Array) -> Any:
            return np.sqrt(one**2 + other**2 - 2 * correlation * one * other)

        known = self.sizes > 0
        low = p - q - half(p - up.low, down.high - q)
        high = p - q + half(up.high - p, q - down.low)
        return Interval(
            np.where(known, p - q, math.nan),
            np.where(known, np.maximum(low, -1.0), -1.0),
            np.where(known, np.minimum(high, 1.0), 1.0),
        )

    def grown(self, size: float) -> Harms:
        """Return larger groups with the same shares."""
        worse, better = (
            Shares("", one, self.sizes).grown(size) for one in (self.worse, self.better)
        )
        return dataclasses.replace(
            self, worse=worse.events, better=better.events, sizes=worse.sizes
        )


@dataclasses.dataclass(frozen=True)
class Means(Measure):
    """The mean of a number in each group, such as the absolute error."""

    name: str
    values: list[Array]
    sizes: Array
    unit: str = "samples"
    factor: Any = 1.0
    """The factor by which larger groups make the bounds narrower."""
    known: dict[Any, Any] = dataclasses.field(default_factory=dict, compare=False)
    """Bounds before that factor, by their tails, because a bootstrap is slow. Copies share them."""

    def bounds(self, tail: float) -> Interval:
        """Return bounds that allow for skewness. They are infinite for few numbers."""
        import numpy as np

        if tail not in self.known:
            self.known[tail] = [
                mean_interval(values, 1 - 2 * tail)
                if len(values) >= FEWEST_NUMBERS
                else Interval(values.mean() if len(values) else math.nan, -math.inf, math.inf)
                for values in self.values
            ]
        estimate, low, high = np.array(self.known[tail], dtype=float).T
        # A mean without an estimate has infinite bounds, and no distance from them.
        middle = np.nan_to_num(estimate)
        return Interval(
            estimate, middle - (middle - low) * self.factor, middle + (high - middle) * self.factor
        )

    def grown(self, size: float) -> Means:
        """Return larger groups, whose bounds are narrower by the root of their number."""
        import numpy as np

        sizes = np.maximum(self.sizes, size)
        few = self.sizes < FEWEST_NUMBERS
        if few.all() or size < FEWEST_NUMBERS:
            return dataclasses.replace(self, sizes=sizes)
        values = [
            np.resize(np.concatenate(self.values), FEWEST_NUMBERS * 4) if small else own
            for small, own in zip(few, self.values, strict=True)
        ]
        present = np.array([len(one) for one in values])
        factor = np.sqrt(present / np.maximum(sizes, present))
        known = self.known.setdefault("grown", {}) if few.any() else self.known
        return dataclasses.replace(self, values=values, sizes=sizes, factor=factor, known=known)
