"""Compare a metric under faults with its golden values, over several seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from statistics import NormalDist, fmean, variance
from typing import Any

from ..core.privacy import shows_values
from ..core.recording import oracle
from ..core.validation import FLAG, ITERABLE, check_arguments, format_number, format_value
from ..errors import BadArgument, Inconclusive, Worse
from .quality.sequential import capital, fewest_pairs, pairs_to_decide

__all__ = ["assert_not_worse"]

MAX_EXACT_WAYS = 200_000
"""The number of sign flips, or of splits of seeds into two groups, that are all tried (0.1 s)."""
DRAWN_WAYS = 100_000
"""The number of random ways that are tried if there are more. They are the same in each run."""
POWER = 0.8
"""The probability that the advised number of seeds gives a result, by convention."""
MOST_SEEDS = 1_000
"""The largest number of seeds that a message advises."""


@oracle
@check_arguments(
    "assert_not_worse",
    chaos=ITERABLE,
    golden=ITERABLE,
    higher_is_better=FLAG,
    paired=FLAG,
    sequential=FLAG,
)
def assert_not_worse(
    chaos: Iterable[Any],
    golden: Iterable[Any],
    *,
    margin: float,
    alpha: float = 0.05,
    higher_is_better: bool = True,
    paired: bool = True,
    sequential: bool = False,
) -> None:
    """Pass only if a metric under faults is shown to be worse by at most ``margin``.

    It returns if a one-sided test rejects "worse by more than the margin". A difference that is
    *not significant* never makes it pass. The tests are permutation tests: of the signs of the
    paired differences, or of the assignment to the two groups (by Welch's t). They are exact for up
    to 200,000 permutations, and use 100,000 fixed random ones beyond.

    Args:
        chaos: The metric under faults: one number for each seed (an accuracy, a final loss).
            ``alpha`` decides how many are needed: 5 pairs for 0.05.
        golden: The metric without faults.
        margin: The loss that would not matter, in the unit of the metric: 0 or more.
        alpha: The probability that a metric that is worse by more than the margin passes, and that
            one that is not is called worse. Below 0.5.
        higher_is_better: False for losses and errors.
        paired: If true, numbers at the same position share their seed, and their differences are
            tested. If false, the lengths may differ, and the means of two independent groups are
            compared.
        sequential: If true, you may look after each seed, and add seeds until the result is clear:
            ``alpha`` holds for all looks together. Without it, ``alpha`` holds for a number of
            seeds that you chose before. The test is one by betting on the paired differences in
            their order. For one look it needs up to twice as many seeds.

    Raises:
        Worse: A test rejects "worse by at most the margin", or the metric is NaN or infinite.
        Inconclusive: Neither is rejected. The message says how many seeds would probably do.
        BadArgument: There are too few seeds, or a golden metric is not finite. With
            ``sequential``, too few seeds are inconclusive.

    Fidelity: paired differences are assumed to be symmetric about their mean (unpaired groups: to
    differ by a shift). A collapse so rare that no seed shows it is not seen. Sorted lists are not
    paired by seed any more.

    Source: Blackwelder (1982), "Proving the null hypothesis in clinical trials", Controlled
    Clinical Trials 3. Janssen (1997) for the studentised permutation test. Ramdas et al. (2023),
    "Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38.
    """
    _check(margin, alpha)
    test = _Test(
        _metrics(chaos, "chaos"),
        _metrics(golden, "golden"),
        float(margin),
        alpha,
        paired,
        1 if higher_is_better else -1,
        sequential,
    )
    test.check()
    not_worse, worse = test.p_values()
    if not_worse <= alpha:
        return
    if worse <= alpha:
        raise Worse(f"{test.summary()}: it is worse by more than the margin (p = {worse:.2g})")
    raise Inconclusive(
        f"{test.summary()}. This shows neither that it is worse by more than the margin (p = "
        f"{worse:.2g}) nor that it is not "
        f"(p = {not_worse:.2g}). {test.advice()}"
    )


@dataclasses.dataclass(frozen=True)
class _Test:
    chaos: list[float]
    golden: list[float]
    margin: float
    alpha: float
    paired: bool
    sign: int
    sequential: bool = False

    def check(self) -> None:
        """Raise an error for metrics that no test can judge."""
        n, m = len(self.chaos), len(self.golden)
        if self.sequential and not self.paired:
            raise BadArgument(
                "assert_not_worse: sequential=True needs pairs of one seed, got paired=False"
            )
        if self.paired and n != m:
            raise BadArgument(
                f"assert_not_worse: {n} chaos metrics and {m} golden metrics cannot be paired by "
                "seed. For independent groups, give paired=False"
            )
        if place := _not_finite(self.golden):
            raise BadArgument(f"assert_not_worse: the golden metrics must be finite, got {place}")
        if place := _not_finite(self.chaos):
            raise Worse(f"under faults the metric is {place}")
        if not self.sequential and self._ways(n, m) * self.alpha < 1:
            fewest = next(
                size for size in range(2, MOST_SEEDS) if self._ways(size, size) * self.alpha >= 1
            )
            each = "" if self.paired else " each"
            raise BadArgument(
                f"assert_not_worse: {self._seeds()} can never reach alpha={self.alpha:g}. Run "
                f"{fewest} seeds{each}"
            )

    def _ways(self, n: int, m: int) -> float:
        return (
            math.ldexp(1.0, min(n, 1000))
            if self.paired
            else float(min(math.comb(n + m, n), 10**300))
        )

    def _seeds(self) -> str:
        return (
            f"{len(self.chaos)} pairs"
            if self.paired
            else f"{len(self.chaos)} chaos and {len(self.golden)} golden seeds"
        )

    def losses(self) -> list[float]:
        """Return how much worse each pair is. Positive is worse."""
        return [
            self.sign * (before - after)
            for after, before in zip(self.chaos, self.golden, strict=True)
        ]

    def p_values(self) -> tuple[float, float]:
        """Return the p-values of "worse by more than the margin" and of "worse by no more than it"."""
        if self.paired:
            excess = [loss - self.margin for loss in self.losses()]
            if self.sequential:
                room = [-value for value in excess]
                return (
                    min(1.0, 1 / capital(room, strict=True)),
                    min(1.0, 1 / capital(excess, strict=False)),
                )
            return _sign_flips(excess, strict=True), _sign_flips(
                [-value for value in excess], strict=False
            )
        after, before = (
            [self.sign * value for value in values] for values in (self.chaos, self.golden)
        )
        reached = [value + self.margin for value in after]
        return _shuffles(before, reached, strict=True), _shuffles(reached, before, strict=False)

    def effect(self) -> tuple[float, float]:
        """Return the mean loss, and its variance for one seed (a pair, or one of each group)."""
        if self.paired:
            losses = self.losses()
            return fmean(losses or [0.0]), variance(losses) if len(losses) > 1 else 0.0
        loss = self.sign * (fmean(self.golden) - fmean(self.chaos))
        return loss, sum(
            variance(values) if len(values) > 1 else 0.0 for values in (self.chaos, self.golden)
        )

    def summary(self) -> str:
        """Describe the measurement."""
        loss, spread = self.effect()
        way = "worse" if loss >= 0 else "better"
        size, deviation = format_number(abs(loss), self.margin), f"{math.sqrt(spread):.3g}"
        # Show a percentage of the larger metric. Relative to a metric of 0, the difference would be
        # the other metric.
        if not shows_values():
            scale = max(map(abs, (*self.chaos, *self.golden)), default=0.0) or 1.0
            size, deviation = (
                f"{100 * abs(loss) / scale:.3g} %",
                f"{100 * math.sqrt(spread) / scale:.3g} %",
            )
        return f"over {self._seeds()} the metric is {size} {way} on average (margin {self.margin:g}, standard deviation {deviation})"

    def advice(self) -> str:
        """Estimate how many seeds are needed, if effect and spread are as measured.

        The estimate uses the normal approximation. That of a sequential test simulates.
        """
        if self.sequential:
            return self._more_pairs()
        loss, spread = self.effect()
        quantile = NormalDist().inv_cdf
        z = quantile(1 - self.alpha) + quantile(POWER)
        gap = abs(loss - self.margin)
        needed = math.inf if gap == 0 else spread * (z / gap) ** 2
        seeds = "pairs" if self.paired else "seeds each"
        if needed > MOST_SEEDS:
            return (
                f"The difference is so close to the margin that {MOST_SEEDS:,} {seeds} would not "
                f"be "
                "enough. Give a larger margin, or reduce the noise"
            )
        # 2 more, because the spread is an estimate too
        total = max(math.ceil(needed) + 2, max(len(self.chaos), len(self.golden)) + 1)
        return f"About {total} {seeds} would probably be enough"

    def _more_pairs(self) -> str:
        done, fewest = len(self.chaos), fewest_pairs(self.alpha)
        if done < fewest:
            return f"At least {fewest - done} more pairs are needed"
        room = [self.margin - loss for loss in self.losses()]
        way = room if fmean(room) >= 0 else [-value for value in room]
        total = pairs_to_decide(way, self.alpha)
        if total is None:
            return (
                f"The difference is so close to the margin that {MOST_SEEDS:,} pairs would not be "
                "enough. Give a larger margin, or reduce the noise"
            )
        return f"About {max(1, total - done)} more pairs would probably be enough"


def _check(margin: object, alpha: object) -> None:
    for name, value, high in (("margin", margin, math.inf), ("alpha", alpha, 0.5)):
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not 0 <= value < high
            or (name == "alpha" and not value)
        ):
            wanted = (
                "0 or more, in the metric's unit" if name == "margin" else "above 0 and below 0.5"
            )
            raise BadArgument(
                f"assert_not_worse: {name} must be {wanted}, got {format_value(value)}"
            )


def _metrics(values: Any, name: str) -> list[float]:
    found = []
    for place, value in enumerate(values):
        try:
            found.append(float("-" if isinstance(value, (bool, str, bytes)) else value))
        except (TypeError, ValueError, OverflowError):
            raise BadArgument(
                f"assert_not_worse: {name}[{place}] must be a number, got {type(value).__name__}"
            ) from None
    return found


def _not_finite(values: list[float]) -> str | None:
    places = [place for place, value in enumerate(values) if not math.isfinite(value)]
    return (
        f"{values[places[0]]} for seed {places[0]} (not finite for {len(places)} of {len(values)})"
        if places
        else None
    )


# -- permutation tests: both ask whether the observed statistic is unusually low
# -------------------------------------------


def _sign_flips(values: list[float], *, strict: bool) -> float:
    """Return the share of sign flips that make a sum as low as the observed one.

    ``strict`` tests "the mean is above 0" instead of "0 or more". It lowers all values by a tiny
    amount, so a flip that does not change the sum makes it higher. Values that are all equal, and
    as wanted, then count as evidence.
    """
    import numpy as np

    data = np.array(values)
    if 2 ** len(data) <= MAX_EXACT_WAYS:
        sums = np.zeros(1)
        for value in data:
            sums = np.concatenate([sums + value, sums - value])
        return _tail(sums, float(data.sum()), float(np.abs(data).sum()), strict, drawn=False)
    signs = np.random.default_rng(0).integers(0, 2, (DRAWN_WAYS, len(data)), dtype=np.int8) * 2 - 1
    return _tail(signs @ data, float(data.sum()), float(np.abs(data).sum()), strict, drawn=True)


def _shuffles(low: list[float], high: list[float], *, strict: bool) -> float:
    """Return the share of splits into two groups whose Welch's t is as low as the observed one."""
    import itertools

    import numpy as np

    data = np.array(low + high) - fmean(low + high)
    n, total = len(low), len(low) + len(high)
    exact = math.comb(total, n) <= MAX_EXACT_WAYS
    if exact:
        ways = np.fromiter(
            itertools.chain.from_iterable(itertools.combinations(range(total), n)), dtype=np.intp
        ).reshape(-1, n)
    else:
        ways = (
            np.random.default_rng(0).random((DRAWN_WAYS, total)).argpartition(n - 1, axis=1)[:, :n]
        )
    observed = _welch(data, np.arange(n)[None, :])
    return _tail(
        _welch(data, ways),
        float(observed[0]),
        10 * abs(float(observed[0])),
        strict,
        drawn=not exact,
    )


def _welch(data: Any, ways: Any) -> Any:
    import numpy as np

    chosen, n, m = data[ways], ways.shape[1], len(data) - ways.shape[1]
    sums, squares = chosen.sum(1), (chosen**2).sum(1)
    means = sums / n, (data.sum() - sums) / m
    spread = sum(
        np.clip(square - size * mean**2, 0, None) / max(size - 1, 1) / size
        for square, size, mean in ((squares, n, means[0]), ((data**2).sum() - squares, m, means[1]))
    )
    gap = means[0] - means[1]
    scale = float(np.abs(data).max())
    gap = np.where(np.abs(gap) <= 1e-12 * scale, 0.0, gap)
    return gap / np.sqrt(np.maximum(spread, (1e-9 * scale) ** 2 or 1.0))


def _tail(statistics: Any, observed: float, scale: float, strict: bool, *, drawn: bool) -> float:
    """Return the p-value: the share of statistics that are as low as the observed one, itself
    included.
    """
    import numpy as np

    slack = 1e-9 * scale  # sums of the same numbers in a different order differ by rounding
    if strict:
        as_low = 1 + int(np.count_nonzero(statistics < observed - slack))
    else:
        as_low = int(np.count_nonzero(statistics <= observed + slack)) + drawn
    return as_low / (len(statistics) + drawn)
