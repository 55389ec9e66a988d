"""Judge if probabilities are as high as their predictions are right."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

from ...core.recording import oracle
from ...core.validation import format_value, is_real
from ...errors import BadArgument, Inconclusive, MetricMissed
from ..confidence import check_confidence
from ..intervals import mean_interval
from .metric import judge_interval
from .samples import flags_of, numbers_of, raw_array, same_length, whole_number

if TYPE_CHECKING:
    from .samples import Array

__all__ = ["CalibrationError", "assert_calibrated", "assert_not_overconfident", "calibration_error"]

FEWEST = 50
"""The fewest samples for which bins of probabilities say anything."""
FEWEST_IN_BIN = 25
MOST_BINS = 15
"""The number of bins in the literature since Guo et al. (2017)."""
SLACK = 1e-6
"""By how much the probabilities of one sample may miss a sum of 1 (and 1,000 times that for float16)."""


class CalibrationError(NamedTuple):
    """An expected calibration error (ECE), without the bias of small bins, and its bounds.

    ``low`` and ``high`` are one-sided bounds of the stated confidence.
    """

    estimate: float
    low: float
    high: float
    bins: int


@oracle
def assert_calibrated(
    y_true: Any,
    probabilities: Any,
    *,
    at_most: float = 0.05,
    confidence: float = 0.95,
    bins: int | None = None,
) -> None:
    """Pass only if the expected calibration error (ECE) is shown to be at most ``at_most``.

    The ECE is the mean distance between probability and frequency over bins with equally many
    samples. The usual estimate is too high in small samples, because noise has no sign here: a
    perfect model with 500 samples in 15 bins shows about 0.07. So the bias is removed, and one-sided
    bounds decide.

    Args:
        y_true: The true class of each sample: 0 or 1 (or booleans), or the column of
            ``probabilities``.
        probabilities: The probability of class 1 for each sample, or of each class (two
            dimensions). With several classes, the highest probability is judged, and how often its
            class is right.
        at_most: The largest error that is acceptable.
        confidence: 1 minus the probability that a larger error passes, and that a smaller one is
            called missed.
        bins: The number of bins. Without it, up to 15, each with 25 samples or more.

    Raises:
        MetricMissed: The error is shown to be larger.
        Inconclusive: The samples show neither, or there are too few, or all have one class.
        BadArgument: A probability is NaN or not from 0 to 1, or a class has no column.

    Fidelity: samples must be independent. Inside a bin, errors of opposite signs cancel. The upper
    bound is that of the root mean square error of the bins, which is the larger one.

    Example:
        >>> rng = numpy.random.default_rng(0)
        >>> p = rng.random(5_000)
        >>> assert_calibrated(rng.random(5_000) < p, p)

    Source: Guo et al. (2017), "On calibration of modern neural networks", ICML. Kumar, Liang and Ma
    (2019), "Verified uncertainty calibration", NeurIPS, for the estimate without bias.
    """
    owner = "assert_calibrated"
    confidence = check_confidence(owner, confidence)
    if not is_real(at_most) or not 0 < at_most < 1:
        raise BadArgument(
            f"{owner}: at_most must be above 0 and below 1, got {format_value(at_most)}"
        )
    if bins is not None:
        whole_number(owner, "bins", bins, 1)
    stated, right = _stated_and_right(owner, y_true, probabilities)
    if len(stated) < FEWEST:
        raise Inconclusive(
            f"{len(stated)} samples are too few to judge calibration. Give at least {FEWEST}"
        )
    if right.min() == right.max():
        raise Inconclusive(
            f"all {len(right)} samples are of one kind ({'1 or right' if right[0] else '0 or wrong'}"
            f"), so the other kind's probabilities cannot be judged. Give samples of both"
        )
    error = calibration_error(stated, right, confidence, bins)
    found = f"the expected calibration error is {error.estimate:.3g} over {len(stated):,} samples"
    if error.low > at_most:
        raise MetricMissed(
            f"{found} in {error.bins} bins, expected at most {at_most:g}. With a confidence of "
            f"{100 * confidence:g} % it is above {error.low:.3g}{_way(stated, right)}"
        )
    if error.high > at_most:
        raise Inconclusive(
            f"{found} in {error.bins} bins. Its {100 * confidence:g} % bounds are {error.low:.3g} and "
            f"{error.high:.3g}, so this shows neither that it is at most {at_most:g}, nor that it "
            f"is not. {_advice(error, at_most, len(stated))}"
        )


@oracle
def assert_not_overconfident(
    y_true: Any,
    probabilities: Any,
    *,
    at_most: float = 0.05,
    confidence: float = 0.95,
) -> None:
    """Pass only if the model is shown to be about as right as it is confident.

    Overconfidence is the mean confidence minus the accuracy. Under a fault (noise, missing features)
    accuracy falls, and a good model loses confidence as well: give the labels and probabilities of
    the run under faults.

    Args:
        y_true: See ``assert_calibrated``.
        probabilities: See ``assert_calibrated``. For one probability per sample, the confidence is
            that of the more likely class.
        at_most: The largest overconfidence that is acceptable.
        confidence: 1 minus the probability that a larger one passes, and that a smaller one is
            called missed.

    Raises:
        MetricMissed: The model is shown to be more overconfident.
        Inconclusive: The samples show neither. The message says how many would probably do.
        BadArgument: A probability is NaN or not from 0 to 1.

    Fidelity: samples must be independent. Overconfidence in one region and underconfidence in a
    different one cancel. ``assert_calibrated`` sees both.

    Example:
        >>> assert_not_overconfident([1, 0, 1, 1] * 50, [0.9, 0.2, 0.8, 0.4] * 50)
    """
    owner = "assert_not_overconfident"
    confidence = check_confidence(owner, confidence)
    if not is_real(at_most) or not 0 <= at_most < 1:
        raise BadArgument(
            f"{owner}: at_most must be 0 or more and below 1, got {format_value(at_most)}"
        )
    stated, right = _stated_and_right(owner, y_true, probabilities, of_class=True)
    if len(stated) < FEWEST:
        raise Inconclusive(
            f"{len(stated)} samples are too few to judge confidence. Give at least {FEWEST}"
        )
    gaps = stated - right
    judge_interval(
        "the mean confidence minus the accuracy",
        functools.partial(mean_interval, gaps),
        len(gaps),
        None,
        at_most,
        confidence,
        counts=True,
    )


def calibration_error(
    stated: Array, right: Array, confidence: float = 0.95, bins: int | None = None
) -> CalibrationError:
    """Return the expected calibration error of probabilities and outcomes, with its bounds.

    The estimate is that of the first norm, corrected for its bias. The upper bound is one of the
    second norm, by inverting a test on its unbiased estimate. The lower bound comes from half of
    the samples, with the signs of the errors taken from the other half.
    """
    import numpy as np

    n = len(stated)
    count = min(bins or MOST_BINS, max(1, n // FEWEST_IN_BIN))
    order = np.argsort(stated, kind="stable")
    stated, right = stated[order], right[order]
    whole = _binned(stated, right, count)
    z = NormalDist().inv_cdf(confidence)
    # E|d| of a normal d with this mean and variance, minus |mean|, is the bias of a bin.
    bias = sum(
        weight * max(0.0, _folded(abs(gap), variance) - abs(gap))
        for weight, gap, variance in zip(whole.weights, whole.gaps, whole.variances, strict=True)
    )
    plain = float(whole.weights @ abs(whole.gaps))
    estimate = max(0.0, plain - bias)
    return CalibrationError(
        estimate, _lower(stated, right, count, z), _upper(whole, z), len(whole.weights)
    )


class _Bins(NamedTuple):
    weights: Array
    gaps: Array
    unbiased: Array
    variances: Array


def _binned(stated: Array, right: Array, count: int) -> _Bins:
    """Return the mean error of each bin with equally many sorted samples, and its variance.

    Equal probabilities share a bin. ``unbiased`` is the unbiased variance. ``variances`` is never
    below what the probabilities themselves imply, because a bin without a surprise has none.
    """
    import numpy as np

    ranked = stated
    ends = [len(ranked) * k // count for k in range(1, count)]
    starts = np.unique(np.concatenate([[0], np.searchsorted(ranked, ranked[ends], "left")]))
    starts = starts.astype(np.intp)
    errors = ranked - right
    sizes = np.diff(np.append(starts, len(ranked)))
    gaps = np.add.reduceat(errors, starts) / sizes
    squares = np.add.reduceat((errors - np.repeat(gaps, sizes)) ** 2, starts)
    unbiased = squares / np.maximum(sizes - 1, 1) / sizes
    implied = np.add.reduceat(ranked * (1 - ranked), starts) / sizes**2
    # One more right and one more wrong, as in Agresti and Coull: never exactly 0.
    floor = 0.25 / (sizes + 2) / sizes
    return _Bins(
        sizes / len(ranked), gaps, unbiased, np.maximum(np.maximum(unbiased, implied), floor / 4)
    )


def _upper(bins: _Bins, z: float) -> float:
    """Return the largest root mean square error that the bins do not reject."""
    squared = float(bins.weights @ (bins.gaps**2 - bins.unbiased))
    noise = 2 * float((bins.weights**2) @ (bins.variances**2))
    slope = 4 * float((bins.weights * bins.variances).max())

    def fits(error: float) -> bool:
        return squared >= error**2 - z * math.sqrt(noise + slope * error**2)

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return high


def _lower(stated: Array, right: Array, count: int, z: float) -> float:
    """Return a bound that the error of the first norm exceeds.

    With fixed signs, the signed sum of errors is at most the sum of their sizes.
    """
    import numpy as np

    first = _binned(stated[::2], right[::2], count)
    edges, other = stated[::2], stated[1::2]
    starts = np.concatenate([[0], np.cumsum(np.round(first.weights * len(edges)).astype(int))[:-1]])
    place = np.clip(np.searchsorted(edges[starts], other, "right") - 1, 0, None)
    signs = np.sign(first.gaps)[place]
    errors = signs * (other - right[1::2])
    spread = errors.std(ddof=1) / math.sqrt(len(errors))
    return float(max(0.0, errors.mean() - z * spread))


def _folded(mean: float, variance: float) -> float:
    """Return the mean of ``|x|`` for a normal ``x``."""
    if not variance:
        return mean
    spread = math.sqrt(variance)
    ratio = mean / spread
    return spread * math.sqrt(2 / math.pi) * math.exp(-(ratio**2) / 2) + mean * math.erf(
        ratio / math.sqrt(2)
    )


def _way(stated: Array, right: Array) -> str:
    gap = float((stated - right).mean())
    if abs(gap) < 0.01:
        return ""
    return f". The probabilities are too {'high' if gap > 0 else 'low'} on average"


def _advice(error: CalibrationError, at_most: float, size: int) -> str:
    gap, spread = abs(error.estimate - at_most), max(error.high - error.estimate, 1e-9)
    if gap < 0.02 * at_most:
        return "The error is so close to the bound that no reasonable number of samples decides"
    needed = math.ceil(size * (1.5 * spread / gap) ** 2)
    return f"About {max(size + 1, needed):,} samples would probably be enough"


def _stated_and_right(
    owner: str, y_true: Any, probabilities: Any, *, of_class: bool = False
) -> tuple[Array, Array]:
    """Return the probability that is judged for each sample, and 1 if its event took place."""
    import numpy as np

    given = numbers_of(probabilities, f"{owner}: probabilities", dimensions=(1, 2))
    labels = raw_array(y_true, f"{owner}: y_true")
    if labels.dtype.kind not in "biuf":
        raise BadArgument(
            f"{owner}: y_true must be classes as whole numbers from 0, got values of dtype "
            f"{labels.dtype}"
        )
    if ((given < 0) | (given > 1)).any():
        raise BadArgument(
            f"{owner}: probabilities must be from 0 to 1, and one is not. Are these logits?"
        )
    if given.ndim == 1:
        right = flags_of(y_true, f"{owner}: y_true")
        same_length(owner, y_true=right, probabilities=given)
        if of_class:
            return np.maximum(given, 1 - given), ((given >= 0.5) == right).astype(float)
        return given, right
    classes = numbers_of(y_true, f"{owner}: y_true")
    same_length(owner, y_true=classes, probabilities=given)
    if given.shape[1] < 2:
        raise BadArgument(f"{owner}: probabilities must have a column for each class, got 1 column")
    if (classes != np.floor(classes)).any() or classes.min() < 0 or classes.max() >= given.shape[1]:
        raise BadArgument(
            f"{owner}: y_true must be whole numbers from 0 to {given.shape[1] - 1}, the columns of "
            f"probabilities"
        )
    if (np.abs(given.sum(1) - 1) > 1e3 * SLACK + SLACK).any():
        raise BadArgument(
            f"{owner}: the probabilities of each sample must sum to 1, and those of one do not"
        )
    if len(np.unique(classes)) == 1:
        raise Inconclusive(
            "all samples have one class, so nothing is known about the others. Give samples of "
            "several classes"
        )
    chosen = given.argmax(1)
    return given.max(1), (chosen == classes).astype(float)
