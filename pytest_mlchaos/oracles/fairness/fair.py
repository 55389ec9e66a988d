"""Judge the fairness of predictions between groups."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.privacy import error_text, shows_values
from ...core.recording import oracle
from ...core.validation import COUNT as A_COUNT
from ...core.validation import check_arguments, did_you_mean, format_number, format_value, is_real
from ...errors import BadArgument, Inconclusive, Unfair
from ..confidence import check_confidence
from .calibration import Cells, cells_of, largest_miscalibration
from .columns import Groups, column_of, is_positive, numbers_of, read_groups
from .gaps import Gap, largest_difference, samples_to_decide, smallest_ratio
from .measures import Means, Measure, Shares

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["METRICS", "assert_fair", "judge_gap"]

OWNER = "assert_fair"
METRICS = {
    "demographic_parity": ("selection rate",),
    "equal_opportunity": ("true positive rate",),
    "equalized_odds": ("true positive rate", "false positive rate"),
    "predictive_equality": ("false positive rate",),
    "predictive_parity": ("precision",),
    "accuracy": ("accuracy",),
    "calibration": ("share of positives",),
    "absolute_error": ("mean absolute error",),
}
"""The metrics, and the quantities of each group that they compare."""
SHOWN_GROUPS = 5


@oracle
@check_arguments(OWNER, bins=A_COUNT)
def assert_fair(
    y_true: Any,
    y_pred: Any,
    groups: Any,
    *,
    metric: str | Callable[[Any, Any], Any] = "demographic_parity",
    at_most: float | None = None,
    at_least: float | None = None,
    confidence: float = 0.95,
    positive: Any = None,
    bins: int = 5,
) -> None:
    """Pass only if the largest gap between groups is shown to be within its limit.

    Args:
        y_true: The true labels, one for each sample (for ``"absolute_error"``, numbers). None for
            ``"demographic_parity"``, which does not use them.
        y_pred: The predicted labels. For ``"calibration"``, probabilities of the positive class.
            For ``"absolute_error"``, numbers.
        groups: The group of each sample. A table, a dict of columns or a 2-D array gives the
            intersections of its columns.
        metric: What must be alike. ``"demographic_parity"``: the share of positive predictions.
            ``"equal_opportunity"``: the true positive rate. ``"equalized_odds"``: that and the
            false positive rate, whichever differs more. ``"predictive_equality"``: the false
            positive rate. ``"predictive_parity"``: the precision. ``"accuracy"``: the share of
            right predictions, with any number of classes. ``"calibration"``: in each group, the
            scores and the shares of positives. ``"absolute_error"``: the mean absolute error of a
            regression. A function of ``y_true`` and ``y_pred`` that returns one number for each
            sample: the mean of these numbers.
        at_most: The largest difference between two groups that is fair. For ``"calibration"``, the
            largest distance between the mean score and the share of positives.
        at_least: Instead of ``at_most``, the smallest ratio between two groups that is fair: 0.8
            for the four-fifths rule. It needs a metric of shares.
        confidence: The probability that an unfair model does not pass, and that a fair one is not
            called unfair. Above 0.5 and below 1.
        positive: The positive class, unless labels are 0 and 1. With more than two classes, all
            others count as negative.
        bins: For ``"calibration"``, the number of bins of about equal size in each group.

    Raises:
        Unfair: The gap is above the limit with the given confidence.
        Inconclusive: The samples show neither. The message names the groups that are too small, and
            says how many samples would probably do.
        BadArgument: Values are missing, of different lengths or not labels, or there is one group.

    Fidelity: samples are assumed to be independent. Bounds of shares come from the exact ones of
    Clopper and Pearson, those of means from ``mean_interval``, which allows for skewness. An error
    rate of 5 % holds for the whole set of groups, however many there are. With many groups,
    "unfair" needs more evidence.

    Source: the definitions of fairlearn (Bird et al., 2020), Hardt et al. (2016), and Kleinberg et
    al. (2017) for calibration.
    """
    _check(metric, at_most, at_least, confidence)
    limit, ratio = (at_most, False) if at_most is not None else (at_least, True)
    assert limit is not None  # _check has refused this
    measures, found_groups = _measures(y_true, y_pred, groups, metric, positive, bins)
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "the metric")
    bound: Callable[..., Gap] = smallest_ratio if ratio else largest_difference
    if isinstance(measures[0], Cells):
        bound = _miscalibration
    judge_gap(
        f"{name} between {len(found_groups)} groups",
        measures,
        found_groups.names,
        functools.partial(bound, confidence=confidence),
        limit,
        ratio=ratio,
        confidence=confidence,
    )


def _miscalibration(measures: Sequence[Any], confidence: float) -> Gap:
    return largest_miscalibration(measures[0], confidence)


def _check(metric: Any, at_most: Any, at_least: Any, confidence: Any) -> None:
    if isinstance(metric, str):
        if metric not in METRICS:
            raise BadArgument(
                f"{OWNER}: metric must be one of {', '.join(METRICS)} or a function, got "
                f"{format_value(metric)}{did_you_mean(metric, METRICS)}"
            )
    elif not callable(metric):
        raise BadArgument(
            f"{OWNER}: metric must be a name or a function, got {format_value(metric)}"
        )
    if (at_most is None) == (at_least is None):
        raise BadArgument(
            f"{OWNER}: give at_most= (a difference) or at_least= (a ratio), and one of the two"
        )
    means = not isinstance(metric, str) or metric == "absolute_error"
    if at_least is not None:
        if means or metric == "calibration":
            raise BadArgument(f"{OWNER}: at_least= needs a metric of shares. Give at_most=")
        if not is_real(at_least) or not 0 < at_least <= 1:
            raise BadArgument(
                f"{OWNER}: at_least must be above 0 and at most 1, got {format_value(at_least)}"
            )
    elif not is_real(at_most) or at_most < 0 or (at_most >= 1 and not means):
        wanted = "0 or more" if means else "a share from 0 to below 1"
        raise BadArgument(f"{OWNER}: at_most must be {wanted}, got {format_value(at_most)}")
    check_confidence(OWNER, confidence)


def _measures(
    y_true: Any, y_pred: Any, groups: Any, metric: Any, positive: Any, bins: int
) -> tuple[list[Measure], Groups]:
    """Return what is compared, for each group."""
    if metric == "demographic_parity":
        predicted = column_of(y_pred, OWNER, "y_pred")
        if y_true is not None:
            column_of(y_true, OWNER, "y_true", len(predicted))
        found = read_groups(groups, OWNER, len(predicted))
        chosen = is_positive({"y_pred": predicted}, positive, OWNER)["y_pred"]
        return [Shares("selection rate", found.counts(chosen), found.counts(), "samples")], found
    if not isinstance(metric, str):
        return _own_metric(metric, y_true, y_pred, groups)
    if metric == "absolute_error":
        true = numbers_of(y_true, OWNER, "y_true")
        predicted = numbers_of(y_pred, OWNER, "y_pred", len(true))
        found = read_groups(groups, OWNER, len(true))
        return [_means("mean absolute error", abs(true - predicted), found)], found
    true = column_of(y_true, OWNER, "y_true")
    found = read_groups(groups, OWNER, len(true))
    if metric == "calibration":
        scores = numbers_of(y_pred, OWNER, "y_pred", len(true))
        if scores.min() < 0 or scores.max() > 1:
            raise BadArgument(
                f"{OWNER}: y_pred must be probabilities from 0 to 1 for metric='calibration'"
            )
        right = is_positive({"y_true": true}, positive, OWNER)["y_true"]
        return [cells_of(right, scores, found, bins)], found
    predicted = column_of(y_pred, OWNER, "y_pred", len(true))
    if metric == "accuracy":
        if (true.dtype.kind in "USO") != (predicted.dtype.kind in "USO"):
            raise BadArgument(f"{OWNER}: y_true and y_pred must have labels of one type")
        right = true == predicted
        return [Shares("accuracy", found.counts(right), found.counts(), "samples")], found
    labels = is_positive({"y_true": true, "y_pred": predicted}, positive, OWNER)
    return _rates(METRICS[metric], labels["y_true"], labels["y_pred"], found), found


def _rates(names: Sequence[str], true: Array, predicted: Array, groups: Groups) -> list[Measure]:
    """Return rates of the confusion matrix of each group, from a single count."""
    import numpy as np

    cells = np.bincount(groups.codes * 4 + true * 2 + predicted, minlength=4 * len(groups)).astype(
        float
    )
    tn, fp, fn, tp = cells.reshape(-1, 4).T
    known: dict[str, Measure] = {
        "true positive rate": Shares(
            "true positive rate", tp, tp + fn, "samples with a positive label"
        ),
        "false positive rate": Shares(
            "false positive rate", fp, fp + tn, "samples with a negative label"
        ),
        "precision": Shares("precision", tp, tp + fp, "samples with a positive prediction"),
    }
    return [known[name] for name in names]


def _means(name: str, numbers: Array, groups: Groups) -> Means:
    values = [numbers[members] for members in groups.members()]
    return Means(name, values, groups.counts(), "samples")


def _own_metric(
    metric: Callable[[Any, Any], Any], y_true: Any, y_pred: Any, groups: Any
) -> tuple[list[Measure], Groups]:
    try:
        values = metric(y_true, y_pred)
    except Exception as error:
        raise BadArgument(f"{OWNER}: metric= raised {error_text(error)}") from error
    numbers = numbers_of(values, OWNER, "the result of metric=")
    found = read_groups(groups, OWNER, len(numbers))
    name = getattr(metric, "__name__", "metric")
    return [_means(f"mean of {name}" if name.isidentifier() else "mean", numbers, found)], found


def judge_gap(
    what: str,
    measures: Sequence[Measure],
    names: Sequence[str],
    bound: Callable[[Sequence[Any]], Gap],
    limit: float,
    *,
    ratio: bool,
    confidence: float,
) -> None:
    """Raise ``Unfair`` or ``Inconclusive`` unless the gap is shown to be within its limit.

    Args:
        what: What is judged, for the message.
        measures: The quantities of each group.
        names: The names of the groups.
        bound: A function that bounds the largest gap.
        limit: The limit of the gap.
        ratio: True if the gap is a ratio, which must be large.
        confidence: The confidence, for the message.
    """
    gap = bound(measures)
    verdict = gap.verdict(limit, ratio=ratio)
    if verdict == "fair":
        return
    told = _tell(what, gap, names, limit, ratio=ratio, confidence=confidence)
    if verdict == "unfair":
        raise Unfair(told)
    size = samples_to_decide(
        measures, lambda grown: bound(grown).verdict(limit, ratio=ratio) != "undecided"
    )
    raise Inconclusive(
        f"{told}. This shows neither that it is fair nor that it is not. {_advice(measures, names, size)}"
    )


def _tell(
    what: str, gap: Gap, names: Sequence[str], limit: float, *, ratio: bool, confidence: float
) -> str:
    """Describe the gap, its bounds, and the two groups."""
    measure, high, low = gap.shown.measure, gap.shown.high, gap.shown.low
    shares = not isinstance(measure, Means)
    shown = shares or shows_values()
    kind, bound = ("smallest ratio", "at_least") if ratio else ("largest gap", "at_most")
    percent = f"{100 * confidence:g} %"
    if shown:
        bounds = f"{_number(gap.low)} to {_number(gap.high)}"
        numbers = f"{_number(gap.estimate)} (bounds at {percent}: {bounds}, {bound}={limit:g})"
    else:
        bounds = f"{_relative(gap.low, limit)} to {_relative(gap.high, limit)}"
        numbers = f"{bounds} times {bound}={limit:g} (bounds at {percent})"
    values = measure.bounds(0.25).estimate
    sizes = measure.sizes
    if isinstance(measure, Cells):
        group = names[int(measure.groups[high])]
        return (
            f"{what}: the {kind} is {numbers}, in the group {group}: the mean score is "
            f"{_number(float(measure.scores[high]))} where the share of positives is "
            f"{_number(float(values[high]))} ({_count(sizes[high])})"
        )
    one, other = (f"{names[place]} ({_count(sizes[place])})" for place in (high, low))
    if not shown:
        return f"{what}: the {kind} is {numbers}. The {measure.name} is larger for {one} than for {other}"
    return (
        f"{what}: the {kind} is {numbers}. The {measure.name} is {_number(float(values[high]))} "
        f"for {one} and {_number(float(values[low]))} for {other}"
    )


def _count(size: float) -> str:
    return f"n = {int(size):,}"


def _number(value: float) -> str:
    return format_number(round(value, 4))


def _relative(value: float, limit: float) -> str:
    return f"{value / limit:.3g}" if limit else ("0" if value <= 0 else "inf")


def _advice(measures: Sequence[Measure], names: Sequence[str], size: int | None) -> str:
    """Return which groups need how many samples."""
    if size is None:
        return (
            "The gap is so close to its limit that no reasonable number of samples would decide. "
            "Give a different limit"
        )
    parts = []
    for measure in measures:
        few = [place for place in range(len(measure.sizes)) if measure.sizes[place] < size]
        if not few:
            continue
        few.sort(key=lambda place: measure.sizes[place])
        owners = measure.groups if isinstance(measure, Cells) else range(len(names))
        fewest = {int(owners[place]): int(measure.sizes[place]) for place in reversed(few)}
        few = sorted(fewest, key=lambda group: (fewest[group], group))
        shown = ", ".join(f"{names[group]} has {fewest[group]:,}" for group in few[:SHOWN_GROUPS])
        more = (
            f" and {len(few) - SHOWN_GROUPS} more have too few" if len(few) > SHOWN_GROUPS else ""
        )
        each = " in each bin" if isinstance(measure, Cells) else ""
        parts.append(f"{shown}{more} ({measure.unit}{each})")
    return f"About {size:,} in each group would probably do: {' and '.join(parts)}"
