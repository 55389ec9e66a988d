"""Define the result of a comparison over seeds, and its assertions."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.results import Result
from ..core.validation import FLAG, check_arguments
from ..errors import BadArgument, Inconclusive, Worse
from ..oracles.comparison import assert_not_worse
from ..oracles.quality.metric import assert_metric
from ..oracles.quality.sequential import fewest_pairs
from .pairs import SeedPair

__all__ = ["Comparison"]


class Comparison(Result):
    """The metrics of a subject under faults and without them, by seed.

    Seeds run when they are needed: the first at once, the others when an assertion or an attribute
    asks for them.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        run_pair: Callable[[int], SeedPair],
        running: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        *,
        start_ahead: Callable[[Sequence[int]], object] = lambda seeds: None,
        end_ahead: Callable[[], object] = lambda: None,
    ) -> None:
        self._seeds = list(seeds)
        self._run_pair = run_pair
        self._running = running
        self._start_ahead = start_ahead
        self._end_ahead = end_ahead
        self._pairs: list[SeedPair] = []

    def _first(self) -> None:
        """Run the first seed, inside the call of ``mlchaos.compare``."""
        try:
            self._start_ahead(self._seeds[:1])
            self._pairs.append(self._run_pair(self._seeds[0]))
        finally:
            self._end_ahead()

    def _about(self) -> str:
        return f"<Comparison of {len(self._pairs)} of {len(self._seeds)} seeds>"

    @property
    def pairs(self) -> tuple[SeedPair, ...]:
        """Return the pairs of metrics of all seeds."""
        self._run(len(self._seeds))
        return tuple(self._pairs)

    @property
    def golden(self) -> Mapping[int, float]:
        """Return the metric without faults, by seed."""
        return {pair.seed: pair.golden for pair in self.pairs}

    @property
    def faulted(self) -> Mapping[int, float]:
        """Return the metric under faults, by seed. Seeds in which a fault did not strike are out."""
        return {pair.seed: pair.faulted for pair in self.pairs if not pair.missed}

    @check_arguments("assert_not_worse", higher_is_better=FLAG, sequential=FLAG)
    def assert_not_worse(
        self,
        *,
        margin: float,
        alpha: float = 0.05,
        higher_is_better: bool = True,
        sequential: bool = True,
    ) -> None:
        """Pass only if the metric is shown to be worse by at most ``margin``.

        Seeds run until the result is clear, so a clear result needs five of them. See
        ``assert_not_worse`` for the test.

        Args:
            margin: The loss that would not matter, in the unit of the metric.
            alpha: The probability that a metric that is worse by more than the margin passes, and
                that one that is not is called worse, for all looks together.
            higher_is_better: False for losses and errors.
            sequential: If false, all seeds run and are judged once. This needs fewer seeds if the
                result is not clear.

        Raises:
            Worse: The metric is shown to be worse by more than the margin, or not finite.
            Inconclusive: All seeds have run, and show neither. The message says how many more
                would probably do.
        """
        self._compare_under_faults("assert_not_worse")
        size = fewest_pairs(alpha) if sequential and _is_level(alpha) else len(self._seeds)
        while True:
            self._run(size)
            chaos, golden = self._evidence()
            try:
                assert_not_worse(
                    chaos,
                    golden,
                    margin=margin,
                    alpha=alpha,
                    higher_is_better=higher_is_better,
                    sequential=sequential,
                )
            except Inconclusive as error:
                if len(self._pairs) < len(self._seeds):
                    size = len(self._pairs) + 1
                    continue
                raise Inconclusive(
                    f"{error}. mlchaos.compare has run all {len(self._seeds)} seeds: give more with "
                    f"seeds={self._left_out()}"
                ) from None
            return

    def assert_metric(
        self,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        confidence: float = 0.95,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        """Pass only if the mean of the metric over seeds is shown to keep its bound under faults.

        All seeds run. See ``assert_metric`` for the test.

        Args:
            at_least: The smallest value that the mean may have.
            at_most: The largest value that it may have.
            confidence: 1 minus the probability that a mean beyond a bound passes.
            bounds: The smallest and the largest possible metric.
        """
        self._compare_under_faults("assert_metric")
        self._run(len(self._seeds))
        chaos, _ = self._evidence()
        if not chaos:
            raise Inconclusive(f"no fault struck in any seed{self._left_out()}")
        assert_metric(
            chaos, at_least=at_least, at_most=at_most, confidence=confidence, bounds=bounds
        )

    def _evidence(self) -> tuple[list[float], list[float]]:
        """Return the metrics under faults, and the golden ones, of the seeds that count."""
        pairs = [pair for pair in self._pairs if not pair.missed]
        for pair in pairs:
            if not math.isfinite(pair.faulted):
                raise Worse(f"under faults the metric of seed {pair.seed} is {pair.faulted}")
        return [pair.faulted for pair in pairs], [pair.golden for pair in pairs]

    def _left_out(self) -> str:
        missed = [pair for pair in self._pairs if pair.missed]
        if not missed:
            return ""
        return (
            f" ({len(missed)} of {len(self._pairs)} seeds do not count, because "
            f"{missed[0].missed[0]} did not strike in them)"
        )

    def _run(self, size: int) -> None:
        """Run seeds until there are that many pairs, or no seed is left."""
        try:
            while len(self._pairs) < min(size, len(self._seeds)):
                if self._broken:
                    raise BadArgument(
                        "mlchaos.compare: an earlier seed failed, so there is nothing to judge"
                    )
                self._broken = True
                with self._running():
                    place = len(self._pairs)
                    self._start_ahead(self._seeds[place : max(size, place + 1)])
                    self._pairs.append(self._run_pair(self._seeds[place]))
                self._broken = False
        finally:
            self._end_ahead()

    _broken = False


def _is_level(alpha: object) -> bool:
    return isinstance(alpha, (int, float)) and 0 < alpha < 0.5
