"""Check latencies and errors against the bounds of a service level objective (SLO)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.recording import oracle
from ..core.validation import (
    ITERABLE,
    check_arguments,
    did_you_mean,
    format_value,
    index,
    parse_duration,
)
from ..errors import BadArgument, SloMissed

__all__ = ["Bounds", "assert_slo", "quantile", "seconds"]

KNOWN = ("p50", "p90", "p95", "p99", "p999", "max", "error_rate", "availability")
_PERCENTILE = re.compile(r"p([1-9]\d|[1-9])((?:(?<=99)\d+)?)")


@oracle
@check_arguments("assert_slo", latencies=ITERABLE)
def assert_slo(latencies: Iterable[Any], *, errors: int = 0, **bounds: Any) -> None:
    """Raise ``SloMissed`` unless latencies and errors keep within ``bounds``.

    Percentiles are nearest-rank: the smallest latency that is exceeded by at most the rest of the
    requests, so always one that was measured.

    Args:
        latencies: Seconds, one for each request, including failed ones.
        errors: The number of requests that failed.
        **bounds: At least one of these, which may just be reached: ``p50``, ``p95``, ``p99``,
            ``p999`` (the 99.9th percentile) or any other, and ``max``, in seconds or as
            ``"150ms"``. ``error_rate``, the largest share of failed requests. ``availability``, the
            smallest share of those that did not fail.

    Raises:
        SloMissed: A bound is exceeded.
        BadArgument: The latencies are empty, or one is negative or not a number.
    """
    values = [_latency(value, place) for place, value in enumerate(latencies)]
    if index(errors) is None or errors > len(values):
        raise BadArgument(
            f"assert_slo: errors must be a number of failed requests, at most {len(values)}, got "
            f"{format_value(errors)}"
        )
    missed = Bounds(bounds).missed(values, errors)
    if missed:
        raise SloMissed(
            "\n  ".join([f"the SLO is missed over {_count_text(len(values), 'request')}:", *missed])
        )


def quantile(latencies: Sequence[float], q: float) -> float:
    """Return the nearest-rank quantile: the smallest value that a share ``q`` of the values
    reaches.
    """
    ordered = sorted(latencies)
    return ordered[max(0, math.ceil(round(q * len(ordered), 9)) - 1)]


class Bounds:
    """The bounds of an SLO, from keywords. An unknown one is refused with the likely spelling."""

    def __init__(self, bounds: Mapping[str, Any]) -> None:
        if not bounds:
            raise BadArgument(
                f"assert_slo needs one bound or more, such as p99='150ms' or error_rate=0.01. The "
                f"bounds are {', '.join(KNOWN)}"
            )
        self._shares = {
            name: _share(name, bounds[name])
            for name in ("error_rate", "availability")
            if name in bounds
        }
        self._times = {
            name: (_level(name), parse_duration(value, name))
            for name, value in bounds.items()
            if name not in self._shares
        }

    def missed(self, latencies: Sequence[float], errors: int) -> list[str]:
        """Describe each bound that was missed."""
        if not latencies:
            raise BadArgument("assert_slo: latencies must not be empty")
        return [*self._slow(latencies), *self._failed(errors, len(latencies))]

    def _slow(self, latencies: Sequence[float]) -> list[str]:
        missed = []
        for name, (level, bound) in self._times.items():
            found = quantile(latencies, level)
            if found > bound:
                slower = sum(latency > bound for latency in latencies)
                missed.append(
                    f"{name} is {seconds(found)}, expected at most {seconds(bound)} ({slower} of "
                    f"{len(latencies)} took longer)"
                )
        return missed

    def _failed(self, errors: int, count: int) -> list[str]:
        missed, rate = [], errors / count
        most, least = self._shares.get("error_rate", 1.0), self._shares.get("availability", 0.0)
        if rate > most:
            missed.append(
                f"the error rate is {rate:.4g}, expected at most {most:.4g} ({errors} of {count} "
                f"failed)"
            )
        if 1 - rate < least:
            missed.append(
                f"the availability is {1 - rate:.4g}, expected at least {least:.4g} ({errors} of "
                f"{count} failed)"
            )
        return missed


def _level(name: str) -> float:
    """Return 0.999 for ``"p999"``."""
    if name == "max":
        return 1.0
    match = _PERCENTILE.fullmatch(name)
    level = float(f"{match[1]}.{match[2] or 0}") / 100 if match else 0
    if match is None or not level or name.startswith("p100"):
        raise BadArgument(
            f"assert_slo: unknown bound {name!r}{did_you_mean(name, KNOWN)}. The bounds are "
            f"{', '.join(KNOWN)}, and any percentile"
        )
    return level


def _share(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise BadArgument(
            f"assert_slo: {name} must be a share from 0 to 1, got {format_value(value)}"
        )
    return float(value)


def _latency(value: Any, place: int) -> float:
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not number >= 0:
        raise BadArgument(
            f"assert_slo: latencies[{place}] must be a number of seconds, 0 or more, got "
            f"{format_value(value)}"
        )
    return number


def seconds(value: float) -> str:
    """Format a duration: ``150 ms`` or ``2.01 s``."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _count_text(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
