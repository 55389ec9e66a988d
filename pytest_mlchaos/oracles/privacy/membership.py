"""Attack the membership of records in the training data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ...core.recording import oracle
from ...core.validation import CALLABLE, check_arguments, optional
from ...errors import BadArgument, Inconclusive, Leaks
from ..confidence import check_confidence
from ..intervals import Interval, clopper_pearson
from ..libraries import scipy_module
from .inputs import ask, check_share_limit, scores_of

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["advantage_of", "assert_no_membership_leak", "tpr_of"]

OWNER = "assert_no_membership_leak"
FEWEST_RECORDS = 10
MOST_RECORDS = 50_000
"""More records of each kind than about this are not suggested."""
FITTED_PART = 3
"""The reciprocal of the share of the records that chooses the threshold."""
PLANTED_SHARE = 0.5
"""The share of the records that a planted leak reveals."""


class _Limits(NamedTuple):
    advantage: float | None
    tpr: float | None
    fpr: float
    confidence: float


@oracle
@check_arguments(OWNER, score=optional(CALLABLE))
def assert_no_membership_leak(
    members: Any,
    non_members: Any,
    *,
    score: Callable[[Any], Any] | None = None,
    at_most: float | None = 0.1,
    tpr_at_most: float | None = 0.05,
    fpr: float = 0.01,
    confidence: float = 0.95,
) -> None:
    """Pass only if a score is shown not to tell which records were in the training data.

    The attack compares the score with a threshold, in both directions: a loss is lower for members,
    and a confidence is higher. The advantage is the share of members that it recognises less the
    share of other records that it takes for members. The threshold is chosen on a third of the
    records and measured on the others.

    As a control, a leak is planted into the scores: half of the members get the most extreme score.
    If the attack does not find it, nothing is said about the model.

    Args:
        members: Scores of records that were in the training data, one for each. With ``score``, the
            records themselves.
        non_members: The same for records that were not, of the same distribution.
        score: A function of records that returns one number for each, such as the loss of a model.
        at_most: The largest advantage that would not matter. None to leave it out.
        tpr_at_most: The largest share of members that may be recognised at a false positive rate
            of ``fpr``. None to leave it out. An average hides a leak of few records, and this does
            not.
        fpr: The false positive rate.
        confidence: The probability that a leak above a limit does not pass, and that a score
            without one is not called a leak. Above 0.5 and below 1.

    Raises:
        Leaks: The advantage or the true positive rate is above its limit.
        Inconclusive: The records show neither, or the control was not found. With 95 % confidence,
            a false positive rate of 1 % needs about 500 records of each kind.
        BadArgument: Scores are missing or not finite, or there are fewer than 10.

    Fidelity: an attack by one score. An attacker with shadow models (LiRA) knows more, so give the
    score of such an attack if you have one. The bounds of the true positive rate are exact: those
    of order statistics for the threshold, and of Clopper and Pearson for the share.

    Source: Yeom et al. (2018) for the advantage, Carlini et al. (2022), "Membership inference
    attacks from first principles", for the true positive rate at a low false positive rate.
    """
    limits = _checked(at_most, tpr_at_most, fpr, confidence)
    if score is not None:
        members, non_members = (
            ask(OWNER, "score", score, records) for records in (members, non_members)
        )
    inside = scores_of(members, OWNER, "members")
    outside = scores_of(non_members, OWNER, "non_members")
    for name, values in (("members", inside), ("non_members", outside)):
        if len(values) < FEWEST_RECORDS:
            raise BadArgument(
                f"{OWNER}: {name} must have at least {FEWEST_RECORDS} records, got {len(values)}"
            )
    leaks, doubts = _judge(inside, outside, limits)
    if leaks:
        raise Leaks(f"the score tells members of the training data from others: {'; '.join(leaks)}")
    if doubts:
        needed = _records_needed(inside, outside, limits)
        advice = (
            f"About {needed:,} records of each kind would probably do"
            if needed
            else "The value is so close to its limit that no reasonable number of records would do"
        )
        raise Inconclusive(
            f"{'; '.join(doubts)}, with {len(inside):,} members and {len(outside):,} others. This "
            f"shows neither a leak nor that there is none. {advice}"
        )
    if not _judge(_planted(outside, len(inside)), outside, limits)[0]:
        raise Inconclusive(
            f"the attack does not find a leak that was planted into half of the {len(inside):,} "
            f"members, so that it finds none says nothing. Give more records"
        )


def _checked(at_most: Any, tpr_at_most: Any, fpr: Any, confidence: Any) -> _Limits:
    if at_most is None and tpr_at_most is None:
        raise BadArgument(f"{OWNER}: give at_most=, tpr_at_most= or both")
    for name, value in (("at_most", at_most), ("tpr_at_most", tpr_at_most), ("fpr", fpr)):
        if value is not None:
            check_share_limit(OWNER, name, value)
    if not fpr:
        raise BadArgument(f"{OWNER}: fpr must be above 0")
    if tpr_at_most is not None and tpr_at_most < fpr:
        raise BadArgument(
            f"{OWNER}: tpr_at_most must be at least fpr={fpr:g}, because a guess reaches that, got "
            f"{tpr_at_most:g}"
        )
    check_confidence(OWNER, confidence)
    return _Limits(at_most, tpr_at_most, float(fpr), float(confidence))


def _judge(inside: Array, outside: Array, limits: _Limits) -> tuple[list[str], list[str]]:
    """Return the leaks that are shown, and what is shown to be neither above nor within."""
    parts = (limits.advantage is not None) + (limits.tpr is not None)
    # "Leaks" needs one of two statements, so each may fail half as often. To pass, both must hold.
    strict = 1 - (1 - limits.confidence) / parts
    leaks, doubts = [], []
    for limit, name, measure in (
        (limits.advantage, "the advantage", advantage_of),
        (
            limits.tpr,
            f"the true positive rate at a false positive rate of {limits.fpr:g}",
            lambda one, other, sure: tpr_of(one, other, limits.fpr, sure),
        ),
    ):
        if limit is None:
            continue
        surely = measure(inside, outside, strict)
        wide = measure(inside, outside, limits.confidence)
        text = (
            f"{name} is {surely.estimate:.3g} (bounds at {100 * limits.confidence:g} %: "
            f"{surely.low:.3g} to {wide.high:.3g}, limit {limit:g})"
        )
        if surely.low > limit:
            leaks.append(text)
        elif wide.high > limit:
            doubts.append(text)
    return leaks, doubts


def advantage_of(inside: Array, outside: Array, confidence: float) -> Interval:
    """Return the advantage of the best threshold, with one-sided bounds.

    The threshold and its direction are chosen on a third of the records, and measured on the rest.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    fitted, measured = [], []
    for values in (inside, outside):
        mixed = values[rng.permutation(len(values))]
        count = len(values) // FITTED_PART
        fitted.append(mixed[:count])
        measured.append(mixed[count:])
    # Not the reverse as well: both results would depend on each other, and bounds be too narrow.
    threshold, sign = _best_threshold(*fitted)
    hits, alarms = (int((sign * values > threshold).sum()) for values in measured)
    both = 2 * confidence - 1
    tpr = clopper_pearson(hits, len(measured[0]), both)
    fpr = clopper_pearson(alarms, len(measured[1]), both)
    estimate = tpr.estimate - fpr.estimate
    return Interval(
        estimate,
        estimate - math.hypot(tpr.estimate - tpr.low, fpr.high - fpr.estimate),
        estimate + math.hypot(tpr.high - tpr.estimate, fpr.estimate - fpr.low),
    )


def _best_threshold(inside: Array, outside: Array) -> tuple[float, int]:
    """Return the threshold with the largest advantage, and the direction of members."""
    import numpy as np

    values = np.unique(np.concatenate([inside, outside]))
    above = [
        1 - np.searchsorted(np.sort(one), values, side="right") / len(one)
        for one in (inside, outside)
    ]
    up = above[0] - above[1]
    # "Below" excludes the value itself, so that it is the mirror image of "above".
    below = [
        np.searchsorted(np.sort(one), values, side="left") / len(one) for one in (inside, outside)
    ]
    down = below[0] - below[1]
    if up.max() >= down.max():
        return float(values[int(up.argmax())]), 1
    return -float(values[int(down.argmax())]), -1


def tpr_of(inside: Array, outside: Array, fpr: float, confidence: float) -> Interval:
    """Return the true positive rate at a false positive rate, with one-sided exact bounds.

    It is the larger one of both directions, so each of them may fail half as often.
    """
    found = [
        _tpr_upwards(sign * inside, sign * outside, fpr, (1 - confidence) / 2) for sign in (1, -1)
    ]
    return Interval(*(max(values) for values in zip(*found, strict=True)))


def _tpr_upwards(inside: Array, outside: Array, fpr: float, doubt: float) -> Interval:
    """Return the rate if members have high scores.

    Half of the doubt is for the threshold, and half for the share of members above it.
    """
    import numpy as np

    special = scipy_module("special", OWNER)
    n = len(outside)
    falling = -np.sort(-outside)
    # The false positive rate above the r-th largest of n scores has a beta distribution.
    ranks = np.arange(n)
    surely_below = special.betaincc(ranks + 1, n - ranks, fpr) <= doubt / 2
    surely_above = special.betainc(ranks + 1, n - ranks, fpr) <= doubt / 2
    strict = float(falling[surely_below.nonzero()[0][-1]]) if surely_below.any() else math.inf
    loose = float(falling[surely_above.nonzero()[0][0]]) if surely_above.any() else -math.inf
    middle = float(falling[min(int(fpr * n), n - 1)])
    both = 1 - doubt
    above = int((inside > strict).sum())
    # A threshold at or below ``loose`` has a rate above ``fpr``. Ties at it do not count, either.
    reached = int((inside > loose).sum())
    return Interval(
        float((inside > middle).mean()),
        clopper_pearson(above, len(inside), both).low,
        clopper_pearson(reached, len(inside), both).high,
    )


def _planted(outside: Array, size: int) -> Array:
    """Return scores of members without a leak, half of which become the most extreme ones."""
    import numpy as np

    drawn = np.random.default_rng(1).choice(outside, size)
    top = float(outside.max())
    drawn[: max(1, round(PLANTED_SHARE * size))] = top + max(1.0, abs(top))
    return drawn


def _records_needed(inside: Array, outside: Array, limits: _Limits) -> int | None:
    """Return how many records of each kind decide, if the scores repeat themselves."""
    import numpy as np

    size = max(len(inside), len(outside))
    rng = np.random.default_rng(2)
    while size <= MOST_RECORDS:
        size *= 2
        more = [np.sort(rng.choice(values, size)) for values in (inside, outside)]
        if not _judge(more[0], more[1], limits)[1]:
            return size
    return None
