"""Judge a share of requests against a bound, with a stated confidence.

A percentile is a share as well: at most 1 % of all requests may exceed a p99. The bounds of Clopper
and Pearson (1934) are exact, and for a percentile they are those of order statistics. The tests
compare them with SciPy.
"""

from __future__ import annotations

import math
from typing import Literal

from .confidence import size_that_decides

__all__ = ["judge_share", "requests_to_decide", "share_of_at_most"]

MOST_REQUESTS = 10**9
"""More requests than this are not suggested."""
_STEPS = 300
_TINY = 1e-300
_PRECISION = 1e-15


def judge_share(
    count: int, total: int, bound: float, confidence: float
) -> Literal["within", "over", "undecided"]:
    """Decide if the share behind ``count`` of ``total`` is at most ``bound``.

    It is ``"within"`` if the upper confidence bound of the share is at most ``bound``. It is
    ``"over"`` if the lower one is above it.
    """
    doubt = 1 - confidence
    if bound >= 1:
        return "within"
    if share_of_at_most(count, total, bound) <= doubt:
        return "within"
    if count and 1 - share_of_at_most(count - 1, total, bound) < doubt:
        return "over"
    return "undecided"


def requests_to_decide(count: int, total: int, bound: float, confidence: float) -> int | None:
    """Return about how many requests decide, if ``count`` of ``total`` is the true share.

    Return None if no reasonable number does, because the share is at the bound.
    """
    share = count / total

    def decides(number: int) -> bool:
        return judge_share(round(share * number), number, bound, confidence) != "undecided"

    return size_that_decides(decides, total, MOST_REQUESTS, parts=1000)


def share_of_at_most(count: int, total: int, p: float) -> float:
    """Return the probability of at most ``count`` events among ``total``, each with probability
    ``p``.
    """
    if count >= total:
        return 1.0
    if count < 0:
        return 0.0
    return 1.0 if p <= 0 else 0.0 if p >= 1 else _incomplete_beta(total - count, count + 1, 1 - p)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function by Lentz's continued fraction.

    Source: DLMF 8.17.22, and Press et al., *Numerical Recipes*, 6.4.
    """
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _fraction(a, b, x) / a
    return 1 - math.exp(log_front) * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    # It converges in O(sqrt(max(a, b))) steps.
    for m in range(1, _STEPS + int(math.sqrt(max(a, b)) * 5)):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _away_from_zero(1 + even * d)
        c = _away_from_zero(1 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _away_from_zero(1 + odd * d)
        c = _away_from_zero(1 + odd / c)
        value *= d * c
        if abs(d * c - 1) < _PRECISION:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
