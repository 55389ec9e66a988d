"""Judge if a fault harms one group more than the others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.privacy import error_text
from ...core.recording import oracle
from ...core.validation import (
    CALLABLE,
    TOLERANCE,
    check_arguments,
    optional,
)
from ...errors import BadArgument
from ..confidence import check_confidence
from .columns import Groups, column_of, numbers_of, read_groups
from .fair import judge_gap
from .gaps import largest_difference
from .measures import Harms, Means, Measure

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["assert_no_bias_amplification"]

OWNER = "assert_no_bias_amplification"


@oracle
@check_arguments(OWNER, at_most=TOLERANCE, loss=optional(CALLABLE))
def assert_no_bias_amplification(
    golden: Any,
    chaos: Any,
    groups: Any,
    *,
    at_most: float,
    y_true: Any = None,
    loss: Callable[[Any, Any], Any] | None = None,
    confidence: float = 0.95,
) -> None:
    """Pass only if a fault is shown to harm no group much more than another.

    The harm of a group is its error rate under the fault less that without it. The difference
    between two groups is a difference in differences, so a model that was unfair before is not
    blamed for that.

    Args:
        golden: The predictions without faults, one for each sample.
        chaos: The predictions under faults, for the same samples in the same order. A missing one
            (None or NaN) counts as wrong.
        groups: The group of each sample. A table, a dict of columns or a 2-D array gives the
            intersections of its columns.
        at_most: The largest difference between the harms of two groups that would not matter: a
            share of the samples, or a difference in ``loss``.
        y_true: The true labels. Without them, a prediction that differs from the golden one counts
            as wrong.
        loss: A function of the true labels and the predictions that returns one number for each
            sample, for a regression or a cost: ``lambda y, p: abs(y - p)``. Smaller is better.
        confidence: The probability that a fault that harms a group more does not pass, and that one
            that does not is not blamed. Above 0.5 and below 1.

    Raises:
        Unfair: The fault harms one group more than another by more than ``at_most``.
        Inconclusive: The samples show neither. The message names the groups that are too small, and
            says how many samples would probably do.
        BadArgument: Values are missing, of different lengths, or there is one group.

    Fidelity: one fault on one set of samples. Samples are assumed to be independent. Bounds are
    those of Newcombe (1998) for paired shares, from exact ones. With ``loss``, they are those of a
    bootstrap.

    Source: the comparison of changes between groups is the difference-in-differences design (Card
    and Krueger, 1994).
    """
    check_confidence(OWNER, confidence)
    before = column_of(golden, OWNER, "golden")
    found = read_groups(groups, OWNER, len(before))
    if loss is None:
        measure: Measure = _harms(before, chaos, y_true, found)
    else:
        measure = _losses(loss, before, chaos, y_true, found)
    judge_gap(
        f"harm by the fault between {len(found)} groups",
        [measure],
        found.names,
        functools.partial(largest_difference, confidence=confidence),
        at_most,
        ratio=False,
        confidence=confidence,
    )


def _harms(before: Array, chaos: Any, y_true: Any, groups: Groups) -> Harms:
    """Return how many predictions of each group the fault made wrong, and how many right."""
    import numpy as np

    after, answered = _answers(chaos, len(before))
    true = before if y_true is None else column_of(y_true, OWNER, "y_true", len(before))
    kinds = {array.dtype.kind in "USO" for array in (before, true, after[answered])}
    if len(kinds) > 1:
        raise BadArgument(
            f"{OWNER}: golden, chaos and y_true must have labels of one type, not numbers and texts"
        )
    was_wrong = before != true
    is_wrong = np.ones(len(before), dtype=bool)
    is_wrong[answered] = after[answered] != true[answered]
    return Harms(
        "share made wrong by the fault, less the share made right,",
        groups.counts(is_wrong & ~was_wrong),
        groups.counts(was_wrong & ~is_wrong),
        groups.counts(),
    )


def _answers(chaos: Any, size: int) -> tuple[Array, Array]:
    """Return the predictions under faults, and which of them are there."""
    import numpy as np

    if hasattr(chaos, "detach"):
        chaos = chaos.detach().cpu()
    values = np.asarray(chaos) if hasattr(chaos, "__array__") else list(chaos)
    if len(values) != size:
        raise BadArgument(
            f"{OWNER}: chaos must have one prediction for each of the {size:,} samples, got "
            f"{len(values):,}. Give None for a sample that got none"
        )
    if isinstance(values, list):
        missing = np.fromiter(
            (value is None or value != value for value in values),  # NaN
            bool,
            size,
        )
        there = [value for value in values if value is not None]
        filler = there[0] if there else 0
        values = np.asarray([filler if value is None else value for value in values])
    elif values.dtype.kind == "f":
        missing = np.isnan(values)
    elif values.dtype.kind == "O":
        return _answers(values.tolist(), size)
    else:
        missing = np.zeros(size, dtype=bool)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise BadArgument(
            f"{OWNER}: chaos must have one prediction for each sample, got the shape {values.shape}"
        )
    return values, ~missing


def _losses(
    loss: Callable[[Any, Any], Any], before: Array, chaos: Any, y_true: Any, groups: Groups
) -> Means:
    """Return how much the loss of each sample grew."""
    after = column_of(chaos, OWNER, "chaos", len(before))
    true = before if y_true is None else column_of(y_true, OWNER, "y_true", len(before))
    try:
        found = [loss(true, predicted) for predicted in (before, after)]
    except Exception as error:
        raise BadArgument(f"{OWNER}: loss= raised {error_text(error)}") from error
    usual, reached = (
        numbers_of(values, OWNER, "the result of loss=", len(before)) for values in found
    )
    growth = reached - usual
    return Means(
        "mean growth of the loss",
        [growth[members] for members in groups.members()],
        groups.counts(),
    )
