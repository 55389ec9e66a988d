"""Define the bounds of a service level objective (SLO), and find those that a load misses."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.validation import did_you_mean, format_value, is_real, parse_duration
from ..errors import BadArgument
from ..oracles.binomial import judge_share, requests_to_decide

__all__ = ["Bounds", "Findings", "Measured", "quantile", "seconds"]

KNOWN = (
    *("p50", "p90", "p95", "p99", "p999", "max", "ttft_p99", "itl_p99"),
    *("goodput", "error_rate", "availability"),
)
NAMES = {
    "": ("", "took longer"),
    "ttft_": ("time to first token", "waited longer"),
    "itl_": ("time between tokens", "were longer"),
}
"""By the prefix of a bound: what it limits, and the words for what exceeds it."""
_PERCENTILE = re.compile(r"p([1-9]\d|[1-9])((?:(?<=99)\d+)?)")
_BOUND = re.compile(r"(ttft_|itl_|)(.*)")
_A_SECOND = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*s\s*")


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """Hold what was measured of one request. A request without tokens has no ``ttft``."""

    latency: float
    ok: bool = True
    ttft: float | None = None
    itl: Sequence[float] = ()

    def of(self, kind: str) -> Sequence[float]:
        """Return the times of one kind, by the prefix of its bounds."""
        if kind == "itl_":
            return self.itl
        value = self.ttft if kind == "ttft_" else self.latency
        return () if value is None else (value,)


@dataclasses.dataclass(slots=True)
class Findings:
    """The bounds that are missed, and those that too few requests cannot decide, in words."""

    missed: list[str] = dataclasses.field(default_factory=list)
    undecided: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class _Time:
    """An upper bound of a percentile."""

    name: str
    kind: str
    level: float
    bound: float


class Bounds:
    """The bounds of an SLO, from keywords. An unknown one is refused with the likely spelling."""

    def __init__(self, bounds: Mapping[str, Any], confidence: float | None = None) -> None:
        if not bounds:
            raise BadArgument(
                f"assert_slo needs one bound or more, such as p99='150ms' or error_rate=0.01. The "
                f"bounds are {', '.join(KNOWN)}"
            )
        if confidence is not None and not (is_real(confidence) and 0 < confidence < 1):
            raise BadArgument(
                f"assert_slo: confidence must be a share between 0 and 1 such as 0.95, got "
                f"{format_value(confidence)}"
            )
        self._confidence = confidence
        self._shares = {
            name: _share(name, bounds[name])
            for name in ("error_rate", "availability")
            if name in bounds
        }
        self._goodput = _Goodput(bounds["goodput"]) if "goodput" in bounds else None
        self._times = [
            _time(name, value)
            for name, value in bounds.items()
            if name not in (*self._shares, "goodput")
        ]
        if self._goodput is not None and not self._times:
            raise BadArgument(
                "assert_slo: goodput= counts the requests that meet all bounds on times. Give one "
                "too, such as p99='150ms' or ttft_p99='200ms'"
            )

    @property
    def needs_load(self) -> str:
        """Return the name of a bound that latencies alone do not decide, or ""."""
        named = [time.name for time in self._times if time.kind]
        return next(iter([*named, *(["goodput"] if self._goodput else [])]), "")

    def judge(self, measured: Sequence[Measured], duration: float = 0.0) -> Findings:
        """Return which bounds are missed, or undecided with the confidence.

        Args:
            measured: The requests.
            duration: The seconds from the first arrival to the last reply.
        """
        if not measured:
            raise BadArgument("assert_slo: latencies must not be empty")
        findings = Findings()
        for time in self._times:
            self._judge_time(time, measured, findings)
        if self._goodput is not None:
            self._judge_goodput(self._goodput, measured, duration, findings)
        self._judge_errors(sum(not one.ok for one in measured), len(measured), findings)
        return findings

    def _judge_time(self, time: _Time, measured: Sequence[Measured], findings: Findings) -> None:
        values = [value for one in measured for value in one.of(time.kind)]
        if not values:
            raise BadArgument(
                f"assert_slo: {time.name} limits the {NAMES[time.kind][0]}, but none of these "
                f"{len(measured)} replies has {'a second token' if time.kind == 'itl_' else 'a body'}"
            )
        found = quantile(values, time.level)
        slower = sum(value > time.bound for value in values)
        counted = f"{slower} of {len(values)} {NAMES[time.kind][1]}"
        self._decide(
            is_missed=found > time.bound,
            missed=f"{time.name} is {seconds(found)}, expected at most {seconds(time.bound)} "
            f"({counted})",
            undecided=f"{time.name} of at most {seconds(time.bound)}: {counted}",
            share=(slower, len(values), 1 - time.level),
            findings=findings,
        )

    def _judge_goodput(
        self,
        goodput: _Goodput,
        measured: Sequence[Measured],
        duration: float,
        findings: Findings,
    ) -> None:
        good, count = sum(map(self._is_good, measured)), len(measured)
        share = goodput.share(count, duration)
        self._decide(
            is_missed=good / count < share,
            missed=f"the goodput is {goodput.found(good, count, duration)} ({good} of {count} "
            f"succeeded within all bounds on times)",
            undecided=f"a goodput of at least {goodput.text}: {good} of {count} succeeded within "
            f"all bounds on times",
            share=(count - good, count, max(0.0, 1 - share)),
            findings=findings,
        )

    def _is_good(self, one: Measured) -> bool:
        """Return True if a request succeeded within the bounds of the highest percentiles."""
        last = {time.kind: time for time in sorted(self._times, key=lambda time: time.level)}
        return one.ok and all(
            quantile(one.of(kind), time.level) <= time.bound
            for kind, time in last.items()
            if one.of(kind)
        )

    def _judge_errors(self, errors: int, count: int, findings: Findings) -> None:
        rate = errors / count
        most, least = self._shares.get("error_rate"), self._shares.get("availability")
        if most is not None:
            self._decide(
                is_missed=rate > most,
                missed=f"the error rate is {rate:.4g}, expected at most {most:.4g} ({errors} of "
                f"{count} failed)",
                undecided=f"an error rate of at most {most:.4g}: {errors} of {count} failed",
                share=(errors, count, most),
                findings=findings,
            )
        if least is not None:
            self._decide(
                is_missed=1 - rate < least,
                missed=f"the availability is {1 - rate:.4g}, expected at least {least:.4g} "
                f"({errors} of {count} failed)",
                undecided=f"an availability of at least {least:.4g}: {errors} of {count} failed",
                share=(errors, count, 1 - least),
                findings=findings,
            )

    def _decide(
        self,
        *,
        is_missed: bool,
        missed: str,
        undecided: str,
        share: tuple[int, int, float],
        findings: Findings,
    ) -> None:
        """Add a finding. ``share`` is a number of bad ones, of how many, and its bound.

        No number of requests shows that a share is 0, so such a bound is judged as measured.
        """
        count, total, bound = share
        bound = round(bound, 12)  # 1 - 0.99 is not 0.01
        if self._confidence is None or bound <= 0:
            findings.missed += [missed] if is_missed else []
            return
        verdict = judge_share(count, total, bound, self._confidence)
        if verdict == "over":
            findings.missed.append(f"{missed}, with {self._confidence:.4g} confidence")
        elif verdict == "undecided":
            needed = requests_to_decide(count, total, bound, self._confidence)
            takes = (
                f"about {needed} would decide at this share"
                if needed is not None
                else "this is the bound itself, which no number decides"
            )
            findings.undecided.append(f"{undecided}. {takes[0].upper()}{takes[1:]}")


class _Goodput:
    """The least goodput: a share, or a number of good requests a second."""

    def __init__(self, value: object) -> None:
        rate = _A_SECOND.fullmatch(value) if isinstance(value, str) else None
        number = float(rate[1]) if rate is not None else value
        if isinstance(number, bool) or not is_real(number) or number < 0:  # type: ignore[operator]
            raise BadArgument(
                "assert_slo: goodput must be a share up to 1, or requests a second: a number "
                f"above 1 or a text such as '0.5/s', got {format_value(value)}"
            )
        self._value = float(number)  # type: ignore[arg-type]
        self._is_rate = rate is not None or self._value > 1
        self.text = f"{self._value:.4g} a second" if self._is_rate else f"{self._value:.4g}"

    def share(self, count: int, duration: float) -> float:
        """Return the share of ``count`` requests that must be good."""
        return self._value * duration / count if self._is_rate else self._value

    def found(self, good: int, count: int, duration: float) -> str:
        """Describe the goodput that was measured."""
        if not self._is_rate:
            return f"{good / count:.4g}, expected at least {self.text}"
        return f"{good / duration if duration else 0:.4g}, expected at least {self.text}"


def quantile(latencies: Sequence[float], q: float) -> float:
    """Return the nearest-rank quantile: the smallest value that a share ``q`` of the values
    reaches.
    """
    ordered = sorted(latencies)
    return ordered[max(0, math.ceil(round(q * len(ordered), 9)) - 1)]


def _time(name: str, value: object) -> _Time:
    """Read a bound on a percentile: ``("ttft_p999", "1s")``."""
    found = _BOUND.fullmatch(name)
    kind, percentile = (found[1], found[2]) if found is not None else ("", name)
    match = _PERCENTILE.fullmatch(percentile)
    level = float(f"{match[1]}.{match[2] or 0}") / 100 if match else 0.0
    if percentile == "max":
        level = 1.0
    elif match is None or not level or percentile.startswith("p100"):
        raise BadArgument(
            f"assert_slo: unknown bound {name!r}{did_you_mean(name, KNOWN)}. The bounds are "
            f"{', '.join(KNOWN)}, and any percentile"
        )
    return _Time(name, kind, level, parse_duration(value, name))


def _share(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise BadArgument(
            f"assert_slo: {name} must be a share from 0 to 1, got {format_value(value)}"
        )
    return float(value)


def seconds(value: float) -> str:
    """Format a duration: ``150 ms`` or ``2.01 s``."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"
