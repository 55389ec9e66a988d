"""Define ``BreakingPoint``: how much of a fault a subject survives, and its judgements."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ..core.entries import BreakingPointEntry
from ..core.results import Result
from ..core.validation import NUMBER, check_arguments
from ..errors import Inconclusive, Regressed, Worse
from .baselines import Baselines, Interval, compare, rounded

__all__ = ["BreakingPoint", "CurvePoint"]

BAR_WIDTH = 20


@dataclasses.dataclass(frozen=True, slots=True)
class CurvePoint:
    """The trials at one level.

    Attributes:
        level: The value of the parameter.
        survived: The number of trials that the subject survived.
        trials: The number of trials.
    """

    level: float
    survived: int
    trials: int


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """Hold what a search has found.

    Attributes:
        name: The name of the subject, or as the test gave it.
        fault: The fault with its range, as text.
        parameter: The parameter.
        values: All levels, the weakest first.
        lowest: The smallest number of survived levels that is not ruled out.
        highest: The largest number of survived levels that is not ruled out.
        estimate: The likeliest number of survived levels.
        confidence: The confidence of the interval. 1 if one trial decides a level.
        curve: The trials, by level.
        note: Why the search ended early. Empty if it did not.
        why: Why the subject did not survive the weakest level that broke it.
    """

    name: str
    fault: str
    parameter: str
    values: Sequence[float]
    lowest: int
    highest: int
    estimate: int
    confidence: float
    curve: Sequence[CurvePoint]
    note: str = ""
    why: str = ""


class BreakingPoint(Result):
    """How much of a fault a subject survives.

    The subject survives the weaker levels in more than half of the trials, and the stronger ones in
    less. With the given confidence, the breaking point is in the interval.
    """

    def __init__(self, found: Found, baselines: Baselines) -> None:
        self._found = found
        self._baselines = baselines
        self._change = self._base = ""

    def _about(self) -> str:
        return f"<BreakingPoint of {self._found.name}: {self._interval}>"

    @property
    def _interval(self) -> Interval:
        values, low, high = self._found.values, self._found.lowest, self._found.highest
        return Interval(
            values[low - 1] if low else None, values[high] if high < len(values) else None
        )

    @property
    def low(self) -> float | None:
        """Return the strongest level that is survived. None if not even the weakest is."""
        return self._interval.low

    @property
    def high(self) -> float | None:
        """Return the weakest level that breaks the subject. None if not even the strongest does."""
        return self._interval.high

    @property
    def estimate(self) -> float | None:
        """Return the likeliest breaking point: the strongest level that is survived, or None."""
        number = self._found.estimate
        return self._found.values[number - 1] if number else None

    @property
    def curve(self) -> Sequence[CurvePoint]:
        """Return the levels that were tried, with the number of trials and of survived ones."""
        return self._found.curve

    @property
    def trials(self) -> int:
        """Return the number of trials."""
        return sum(point.trials for point in self._found.curve)

    @property
    def confidence(self) -> float:
        """Return the confidence of the interval. It is 1 if one trial decides a level."""
        return self._found.confidence

    @check_arguments("assert_survives", level=NUMBER)
    def assert_survives(self, level: float) -> None:
        """Raise ``Worse`` if the subject breaks at a level, or at a weaker one.

        Args:
            level: A value of the parameter.

        Raises:
            Worse: The breaking point is not above that level, with the confidence.
            Inconclusive: The level is inside the interval. More trials may decide it.
        """
        interval, sign = self._interval, -1.0 if self._is_falling else 1.0
        if interval.low is not None and sign * (interval.low - level) >= 0:
            return
        if interval.high is not None and sign * (level - interval.high) >= 0:
            raise Worse(
                f"{self._describe()}, and it must survive {self._found.parameter}={level:g}"
                f"{self._table()}"
            )
        raise Inconclusive(
            f"{self._describe()}, so it is not known if it survives "
            f"{self._found.parameter}={level:g}. {self._cure()}{self._table()}"
        )

    def assert_no_regression(self) -> None:
        """Raise ``Regressed`` if the subject breaks under less than its baseline says.

        The baselines are in a file of your repository (``.mlchaos/baselines.json``).
        ``pytest --mlchaos-update-baselines`` writes it. A breaking point that is better passes, and
        the terminal says so.

        Raises:
            Regressed: The interval is below that of the baseline. The message has both.
            Inconclusive: A baseline is missing.
            BadArgument: The file is damaged, or its baseline is that of a different fault.
        """
        found, baselines = self._found, self._baselines
        if baselines.update:
            baselines.write(
                found.name,
                {
                    "fault": found.fault,
                    "low": rounded(self._interval.low),
                    "high": rounded(self._interval.high),
                    "confidence": found.confidence,
                    "trials": self.trials,
                },
            )
            self._change = "new"
            return
        base = baselines.read(found.name, found.fault)
        if base is None:
            raise Inconclusive(
                f"{self._describe()}, and its baseline is missing in {baselines.path.name}. Run "
                f"pytest with --mlchaos-update-baselines, and commit the file"
            )
        new = Interval(rounded(self._interval.low), rounded(self._interval.high))
        self._base, self._change = str(base), compare(new, base, falling=self._is_falling)
        if self._change == "worse":
            raise Regressed(f"{self._describe()}. In the baseline, it breaks {base}{self._table()}")

    @property
    def _is_falling(self) -> bool:
        return self._found.values[-1] < self._found.values[0]

    def _describe(self) -> str:
        found = self._found
        sure = "" if found.confidence == 1 else f", with a confidence of {found.confidence:g}"
        why = f" ({found.why})" if found.why else ""
        return f"{found.name} breaks {self._interval} of {found.fault}{sure}{why}"

    def _cure(self) -> str:
        note = f"{self._found.note}. " if self._found.note else ""
        return f"{note}Give a larger max_trials="

    def _table(self) -> str:
        """Return the curve as lines of text."""
        lines = [f"  {self._found.parameter:>10}  survived"]
        for point in self._found.curve:
            bar = "#" * round(BAR_WIDTH * point.survived / point.trials)
            lines.append(
                f"  {point.level:>10.4g}  {point.survived} of {point.trials}  {bar}".rstrip()
            )
        return "\n" + "\n".join(lines)

    def _late_entries(self, number: int, is_virtual: bool) -> Iterator[BreakingPointEntry]:
        """Yield the entry about this result, at the end of the trial."""
        found, interval = self._found, self._interval
        yield BreakingPointEntry(
            result=number,
            name=found.name,
            fault=found.fault,
            parameter=found.parameter,
            low=rounded(interval.low),
            high=rounded(interval.high),
            confidence=found.confidence,
            curve=tuple(
                (rounded(point.level) or 0.0, point.survived, point.trials) for point in found.curve
            ),
            baseline=self._base,
            change=self._change,
        )
