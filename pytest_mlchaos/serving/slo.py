"""Check latencies and errors against the bounds of a service level objective (SLO)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..core.recording import oracle
from ..core.validation import ITERABLE, check_arguments, count_text, format_value, index
from ..errors import BadArgument, Inconclusive, SloMissed
from .bounds import Bounds, Findings, Measured

__all__ = ["assert_slo", "raise_missed"]


@oracle
@check_arguments("assert_slo", latencies=ITERABLE)
def assert_slo(
    latencies: Iterable[Any], *, errors: int = 0, confidence: float | None = None, **bounds: Any
) -> None:
    """Raise ``SloMissed`` unless latencies and errors keep within ``bounds``.

    Percentiles are nearest-rank: the smallest latency that is exceeded by at most the rest of the
    requests, so always one that was measured.

    Args:
        latencies: Seconds, one for each request, including failed ones.
        errors: The number of requests that failed.
        confidence: Judge what these requests show about all requests, for example with the
            confidence 0.95 for each bound. A bound that too few requests decide raises
            ``Inconclusive``, with the number that it takes. Without it, these requests alone are
            judged. So are ``max`` and a share of 0, which no number of requests can show.
        **bounds: At least one of these, which may just be reached: ``p50``, ``p95``, ``p99``,
            ``p999`` (the 99.9th percentile) or any other, and ``max``, in seconds or as
            ``"150ms"``. ``error_rate``, the largest share of failed requests. ``availability``, the
            smallest share of those that did not fail.

    Raises:
        SloMissed: A bound is exceeded.
        Inconclusive: There are too few requests for the confidence.
        BadArgument: The latencies are empty, or one is negative or not a number.

    Source: Clopper and Pearson (1934). For a percentile, these are bounds by order statistics.
    """
    values = [_latency(value, place) for place, value in enumerate(latencies)]
    failed = index(errors)
    if failed is None or failed > len(values):
        raise BadArgument(
            f"assert_slo: errors must be a number of failed requests, at most {len(values)}, got "
            f"{format_value(errors)}"
        )
    slo = Bounds(bounds, confidence)
    if slo.needs_load:
        raise BadArgument(
            f"assert_slo: {slo.needs_load} needs more than latencies. Call assert_slo of the load "
            f"that drive() returned"
        )
    measured = [Measured(value, ok=place >= failed) for place, value in enumerate(values)]
    raise_missed(slo.judge(measured), len(values))


def raise_missed(findings: Findings, count: int, more: Iterable[str] = ()) -> None:
    """Raise ``SloMissed`` or ``Inconclusive`` if one is due. ``more`` are lines for the first."""
    if findings.missed:
        head = f"the SLO is missed over {count_text(count, 'request')}:"
        raise SloMissed("\n  ".join([head, *findings.missed, *more]))
    if findings.undecided:
        head = f"{count_text(count, 'request')} do not decide the SLO with this confidence:"
        raise Inconclusive("\n  ".join([head, *findings.undecided]))


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
