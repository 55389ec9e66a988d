"""Compare two versions while they are running: a sequential test with stated error rates.

Each version's failures are a Bernoulli process. For a supposed rate p, the likelihood of the
observations under a mixture of all rates (a Beta prior), divided by that under p, is a martingale
that starts at 1. It exceeds 1/a with probability a at most (Ville's inequality), however often it is
looked at and whenever one stops. The product for two versions is a martingale for a pair of rates.
A hypothesis is rejected once each of its pairs is: then the smallest product exceeds 1/a.

Observations between 0 and 1, for example scores, make it a supermartingale, so the rates hold too.

Source: Robbins, Statistical Methods Related to the Law of the Iterated Logarithm (1970). Howard et
al., Time-uniform, Nonparametric, Nonasymptotic Confidence Sequences (2021).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, TypeAlias

__all__ = ["Sample", "Verdict", "compare", "log_evidence"]

Verdict: TypeAlias = Literal["pass", "fail", "inconclusive"]
PRIOR = (0.5, 0.5)
"""The mixture over all rates (Jeffreys' prior)."""
SEARCH_STEPS = 60
SMALLEST_RATE = 1e-12


@dataclasses.dataclass(slots=True)
class Sample:
    """The observations of one version.

    Attributes:
        number: The number of observations.
        failed: How many of them failed. Partial failures count in part.
    """

    number: int = 0
    failed: float = 0.0

    def add(self, failed: float) -> None:
        """Add one observation: 0 for a success, 1 for a failure."""
        self.number += 1
        self.failed += failed

    @property
    def rate(self) -> float:
        """Return the share of failures. NaN without observations."""
        return self.failed / self.number if self.number else math.nan


def compare(
    old: Sample,
    new: Sample,
    *,
    margin: float,
    false_rollbacks: float,
    false_promotions: float,
) -> Verdict:
    """Return ``"fail"``, ``"pass"`` or ``"inconclusive"`` for a new version.

    A new version that fails no more often than the old one gets ``"fail"`` with a probability of at
    most ``false_rollbacks``, and one that fails by ``margin`` or more above it gets ``"pass"`` with
    at most ``false_promotions``. This holds however often the versions are compared.

    Args:
        old: The observations of the old version.
        new: Those of the new one, in the same time.
        margin: The difference of the shares of failures that must be found.
        false_rollbacks: The largest probability to reject a version that is not worse.
        false_promotions: The largest probability to accept a version that is worse.
    """
    if not new.number:
        return "inconclusive"
    if log_evidence(old, new, -math.inf, 0.0) > -math.log(false_rollbacks):
        return "fail"
    if log_evidence(old, new, margin, math.inf) > -math.log(false_promotions):
        return "pass"
    return "inconclusive"


def log_evidence(old: Sample, new: Sample, lowest: float, highest: float) -> float:
    """Return the logarithm of the evidence against a range of differences ``new - old``.

    It is the smallest over all pairs of rates in that range.
    """
    difference = new.rate - old.rate if old.number and new.number else math.nan
    mixture = _log_mixture(old) + _log_mixture(new)
    if math.isnan(difference):  # any pair is possible for the version without observations
        free = new.rate if new.number else old.rate
        known = new if new.number else old
        if known is new and lowest > 0 and free < lowest:
            return mixture - _log_likelihood(new, lowest)
        return 0.0
    if lowest <= difference <= highest:
        return mixture - _log_likelihood(old, old.rate) - _log_likelihood(new, new.rate)
    return mixture - _best_at(old, new, lowest if difference < lowest else highest)


def _log_mixture(sample: Sample) -> float:
    first, second = PRIOR
    return _log_beta(sample.failed + first, sample.number - sample.failed + second) - _log_beta(
        first, second
    )


def _log_beta(first: float, second: float) -> float:
    return math.lgamma(first) + math.lgamma(second) - math.lgamma(first + second)


def _log_likelihood(sample: Sample, rate: float) -> float:
    rate = min(max(rate, SMALLEST_RATE), 1 - SMALLEST_RATE)
    return sample.failed * math.log(rate) + (sample.number - sample.failed) * math.log1p(-rate)


def _best_at(old: Sample, new: Sample, difference: float) -> float:
    """Return the largest likelihood of two rates with this difference. It is concave in them."""

    def value(rate: float) -> float:
        return _log_likelihood(old, rate) + _log_likelihood(new, rate + difference)

    low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(SEARCH_STEPS):
        if at_left < at_right:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = value(right)
        else:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = value(left)
    return max(at_left, at_right, value(low), value(high))
