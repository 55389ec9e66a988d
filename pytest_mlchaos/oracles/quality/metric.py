"""Judge a metric of a model, or a rate, against a bound."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from ...core.privacy import shows_values
from ...core.recording import oracle
from ...core.validation import (
    CALLABLE,
    check_arguments,
    format_number,
    format_value,
    is_real,
    optional,
    parse_bounds,
)
from ...errors import BadArgument, Inconclusive, MetricMissed
from ..confidence import check_confidence
from ..intervals import Interval, bca_interval, clopper_pearson, mean_interval
from .bounded_mean import betting_interval
from .samples import (
    called,
    check_bounds,
    flags_of,
    is_binary,
    numbers_of,
    raw_array,
    whole_number,
)

if TYPE_CHECKING:
    from .samples import Array

__all__ = ["assert_abstention", "assert_metric", "judge_interval"]

FEWEST_MEAN = 3
"""The fewest values from which a mean and its noise can be estimated."""
FEWEST_STATISTIC = 20
"""The fewest rows for which a bootstrap interval of a statistic is used."""
MOST_SAMPLES = 10**8
"""The largest number of samples that a message advises."""
Bound = Callable[[float, str], Interval]


@oracle
@check_arguments("assert_metric", statistic=optional(CALLABLE))
def assert_metric(
    scores: Any,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    confidence: float = 0.95,
    total: int | None = None,
    bounds: tuple[float, float] | None = None,
    statistic: Callable[[Any], float] | None = None,
) -> None:
    """Pass only if a metric is shown to keep its bound.

    A measured accuracy of 0.91 from 100 samples does not show that the accuracy is at least 0.9.
    The interval of the metric decides:

    - Scores of 0 and 1 (right or wrong), and counts: the exact interval of Clopper and Pearson.
    - Scores with ``bounds``: the interval of Waudby-Smith and Ramdas, which is valid for each
      number of samples and each distribution within the bounds.
    - Other scores (losses, metrics of seeds): the wider of Student's interval and the one
      corrected for skewness, see ``mean_interval``.
    - A ``statistic`` of rows: the BCa bootstrap.

    Args:
        scores: A score for each sample or seed, a function that returns them, or, with ``total``,
            the number of samples that count.
        at_least: The smallest value that the metric may have.
        at_most: The largest value that it may have.
        confidence: 1 minus the probability that a metric beyond a bound passes, and that a metric
            within it is called missed.
        total: The number of samples, if ``scores`` is a count.
        bounds: The smallest and the largest possible score.
        statistic: A function of an array of rows that returns the metric, for example an AUC. Its
            ``scores`` are the rows: ``numpy.column_stack([y_true, y_score])``.

    Raises:
        MetricMissed: The metric is shown to be beyond a bound.
        Inconclusive: The samples show neither. The message says how many would probably do.
        BadArgument: A score is NaN, because only you know what it means. Or a bound is missing.

    Fidelity: samples must be independent. Rows of one user, or frames of one video, are not.
    Without ``bounds``, the rate of errors holds for scores that are as skewed as lognormal ones. A
    bad score that is so rare that no sample shows it is not seen.

    Example:
        >>> assert_metric([1] * 97 + [0] * 3, at_least=0.9)
        >>> assert_metric(97, total=100, at_least=0.9)

    Source: Clopper and Pearson (1934), Biometrika 26. Waudby-Smith and Ramdas (2023), "Estimating
    means of bounded random variables by betting", J. R. Statist. Soc. B 86.
    """
    owner = "assert_metric"
    check_bounds(owner, at_least, at_most)
    confidence = check_confidence(owner, confidence)
    scores = called(scores, owner)
    if total is not None:
        hits = whole_number(owner, "scores", scores)
        of = whole_number(owner, "total", total, 1)
        if hits > of:
            raise BadArgument(f"{owner}: scores must be at most total, got {hits} of {of}")
        measure, size, counts = _of_share(hits, of), of, True
    elif statistic is not None:
        rows = raw_array(scores, f"{owner}: scores")
        size, counts = len(rows), False
        measure = _of_statistic(rows, statistic)
    else:
        values = numbers_of(scores, f"{owner}: scores")
        size, counts = len(values), is_binary(values)
        what = "assert_metric: bounds must be the lowest and the highest possible score"
        measure = _of_scores(values, parse_bounds(bounds, what))
    judge_interval("the metric", measure, size, at_least, at_most, confidence, counts=counts)


@oracle
def assert_abstention(
    abstained: Any,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    confidence: float = 0.95,
    abstains: Callable[[Any], object] | None = None,
) -> None:
    """Pass only if the rate of abstentions (or of fallbacks) is shown to keep its bound.

    Under a fault, a model that can abstain should do so more often (``at_least``), and without one
    it must not abstain on everything (``at_most``). The interval is that of Clopper and Pearson.

    Args:
        abstained: True or False for each sample, or the predictions if ``abstains`` is given.
        at_least: The smallest rate, from 0 to 1.
        at_most: The largest rate.
        confidence: 1 minus the probability that a rate beyond a bound passes.
        abstains: A function of one prediction that returns true for an abstention or a fallback.

    Raises:
        MetricMissed: The rate is shown to be beyond a bound.
        Inconclusive: The samples show neither. The message says how many would probably do.
        BadArgument: The flags are neither true nor false, or a bound is missing.

    Fidelity: samples must be independent.

    Example:
        >>> assert_abstention(["cat", None, None, None, "dog", None] * 10,
        ...                   abstains=lambda label: label is None, at_least=0.5)
    """
    owner = "assert_abstention"
    check_bounds(owner, at_least, at_most)
    confidence = check_confidence(owner, confidence)
    abstained = called(abstained, owner)
    if abstains is not None:
        if not callable(abstains):
            raise BadArgument(
                f"{owner}: abstains must be a function of one prediction, got "
                f"{format_value(abstains)}"
            )
        abstained = [bool(abstains(one)) for one in abstained]
    flags = flags_of(abstained, f"{owner}: abstained")
    if not len(flags):
        raise BadArgument(f"{owner}: abstained must not be empty")
    judge_interval(
        "the abstention rate",
        _of_share(int(flags.sum()), len(flags)),
        len(flags),
        at_least,
        at_most,
        confidence,
        counts=True,
    )


def judge_interval(
    what: str,
    measure: Bound,
    size: int,
    at_least: float | None,
    at_most: float | None,
    confidence: float,
    *,
    counts: bool = False,
) -> None:
    """Raise a verdict unless one-sided intervals show that the bounds hold.

    Args:
        what: The name of the quantity, for the message.
        measure: A function of the confidence and the side that returns an interval.
        size: The number of samples.
        at_least: The lower bound to show, or None.
        at_most: The upper bound to show, or None.
        confidence: The confidence of each claim.
        counts: True for a share, which a message may show.
    """
    limits = [
        (words, limit, side, other, sign)
        for words, limit, side, other, sign in (
            ("at least", at_least, "lower", "upper", 1),
            ("at most", at_most, "upper", "lower", -1),
        )
        if limit is not None
    ]
    doubt = (1 - confidence) / len(limits)  # a false alarm by either bound is one
    undecided = ""
    for words, limit, side, other, sign in limits:
        shown, wrong = measure(confidence, side), measure(1 - doubt, other)
        bound, opposite = (shown.low, wrong.high) if sign > 0 else (shown.high, wrong.low)
        found = f"{what} is {_distance(shown.estimate, bound, limit, confidence, counts)}"
        if sign * (opposite - limit) < 0:
            raise MetricMissed(
                f"{found} over {size:,} samples, expected {words} {limit:g}. With a confidence of "
                f"{100 * (1 - doubt):g} % it is {'below' if sign > 0 else 'above'} that bound"
            )
        if not sign * (bound - limit) >= 0 and not undecided:
            undecided = (
                f"{found} over {size:,} samples. With a confidence of {100 * confidence:g} %, this "
                f"shows neither that it is {words} {limit:g}, nor that it is not. "
                f"{_advice(shown.estimate, bound, limit, size)}"
            )
    if undecided:
        raise Inconclusive(undecided)


def _advice(estimate: float, bound: float, limit: float, size: int) -> str:
    """Estimate the samples that decide with a probability of 80 %, if the estimate is right."""
    gap = abs(estimate - limit)
    spread = abs(estimate - bound)
    if not math.isfinite(spread) or not math.isfinite(gap):
        return "Give more samples"
    power = 1 + NormalDist().inv_cdf(0.8) / NormalDist().inv_cdf(0.95)
    needed = math.inf if gap == 0 else size * (power * spread / gap) ** 2
    if needed > MOST_SAMPLES:
        return "The estimate is so close to the bound that no reasonable number of samples decides"
    return f"About {max(size + 1, math.ceil(needed)):,} samples would probably be enough"


def _distance(estimate: float, bound: float, limit: float, confidence: float, counts: bool) -> str:
    """Return an estimate. If it may not be shown, return its distance from the limit."""
    if counts or shows_values():
        return format_number(estimate, limit)
    if estimate == limit:
        return "at the bound"
    way = "above" if estimate > limit else "below"
    error = abs(estimate - bound) / NormalDist().inv_cdf(confidence)
    if not error or not math.isfinite(error):
        return f"{way} the bound"
    return f"{abs(estimate - limit) / error:.2g} standard errors {way} the bound"


# -- the interval of each kind of data -------------------------------------------------------------


def _of_share(hits: int, total: int) -> Bound:
    return lambda confidence, side: clopper_pearson(hits, total, confidence, side)  # type: ignore[arg-type]


def _of_scores(values: Array, limits: tuple[float, float] | None) -> Bound:
    owner = "assert_metric"
    if not len(values):
        raise BadArgument(f"{owner}: scores must not be empty")
    if limits is not None:
        low, high = limits
        if values.min() < low or values.max() > high:
            raise BadArgument(
                f"{owner}: scores must be within bounds={low:g}, {high:g}, and one is not"
            )
        return functools.partial(betting_interval, values, low, high)
    if is_binary(values):
        return _of_share(int(values.sum()), len(values))
    if len(values) < FEWEST_MEAN:
        raise Inconclusive(
            f"the metric has {len(values)} value(s), and its noise cannot be estimated. Give at "
            f"least {FEWEST_MEAN}, or bounds=(lowest, highest)"
        )
    if values.min() == values.max():
        raise Inconclusive(
            f"all {len(values)} scores are equal, so their noise cannot be estimated. If they are "
            f"metrics of seeds, does the subject use its seed? Give bounds=(lowest, highest) if "
            f"equal scores are right"
        )
    return functools.partial(mean_interval, values)


def _of_statistic(rows: Array, statistic: Callable[[Any], float]) -> Bound:
    if len(rows) < FEWEST_STATISTIC:
        raise Inconclusive(
            f"the statistic has {len(rows)} rows, and its bootstrap interval needs "
            f"{FEWEST_STATISTIC} or more"
        )

    def checked(sample: Any) -> float:
        value = statistic(sample)
        if not is_real(value):
            raise BadArgument(
                f"assert_metric: statistic must return a finite number for each bootstrap sample, "
                f"got {format_value(value)}. A sample may have one class only: handle that in the "
                f"statistic, or give more rows"
            )
        return float(value)

    @functools.lru_cache
    def both(level: float) -> Interval:
        return bca_interval(rows, checked, level, "both")

    # The bounds of a two-sided interval are two one-sided ones, from the same resamples.
    return lambda level, side: both(2 * level - 1)
