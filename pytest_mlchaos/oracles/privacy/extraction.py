"""Attack a model by asking it: train a surrogate on its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ...core.privacy import error_text
from ...core.recording import oracle
from ...core.validation import CALLABLE, COUNT, check_arguments, optional
from ...errors import BadArgument, Inconclusive, Leaks
from ..confidence import check_confidence
from ..intervals import clopper_pearson
from .inputs import check_share_limit, records_of
from .surrogates import best_surrogate

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["assert_no_extraction"]

OWNER = "assert_no_extraction"
FEWEST_JUDGED = 20


class _Stolen(NamedTuple):
    answers: int
    agreement: float
    low: float
    high: float


@oracle
@check_arguments(
    OWNER, model=CALLABLE, truth=optional(CALLABLE), budget=optional(COUNT), batch=COUNT
)
def assert_no_extraction(
    model: Callable[[Any], Any],
    queries: Any,
    holdout: Any,
    *,
    at_most: float,
    budget: int | None = None,
    batch: int = 32,
    truth: Callable[[Any], Any] | None = None,
    confidence: float = 0.95,
) -> None:
    """Pass only if a surrogate that is trained on a model's answers is shown to agree too little.

    The attack asks the model, trains several surrogates on the answers (linear, with random
    features, and nearest neighbours), and keeps the best one by its own cross-validation. The
    agreement is the share of ``holdout`` for which it gives the model's class.

    A model may defend itself. An exception, or None for a whole batch or for a query, is a refusal,
    as by a rate limit. Noise in the answers reaches the surrogate. So the defence can be judged
    under faults, for example while the store of the rate limit is down.

    As a control, the same attack steals a linear classifier, with all queries. If it does not reach
    the limit there, nothing is said about the model.

    Args:
        model: A function of a batch of queries that returns a class for each, or one score per
            class for each.
        queries: The queries of the attacker, an array with one row for each.
        holdout: Other queries, on which the agreement is measured.
        at_most: The largest agreement that is allowed.
        budget: The number of queries that the attacker makes. Without it, all.
        batch: The number of queries in one call.
        truth: The model without its defence, which answers for ``holdout``. Without it, ``model``.
        confidence: The probability that a model that can be stolen does not pass, and that one that
            cannot is not called stolen. Above 0.5 and below 1.

    Raises:
        Leaks: The surrogate agrees more often than ``at_most``.
        Inconclusive: The holdout is too small, or the control was not stolen.
        BadArgument: One class is more frequent than ``at_most``, so a constant would agree as much.

    Fidelity: simple surrogates and fixed queries. An attacker who chooses each query by the last
    answer needs fewer of them, and deep surrogates reach more on images and texts.

    Source: Tramèr et al. (2016), "Stealing machine learning models via prediction APIs".
    """
    check_share_limit(OWNER, "at_most", at_most)
    check_confidence(OWNER, confidence)
    asked = records_of(queries, OWNER, "queries")[:budget]
    judged = records_of(holdout, OWNER, "holdout", asked.shape[1])
    if len(judged) < FEWEST_JUDGED:
        raise BadArgument(
            f"{OWNER}: holdout must have at least {FEWEST_JUDGED} queries, got {len(judged)}"
        )
    expected = _classes(_truth(truth or model, judged, batch))
    _check_constant(expected, at_most)
    known, answers = _answers(model, asked, batch)
    stolen = _steal(known, answers, judged, expected, confidence)
    text = (
        f"a surrogate trained on {stolen.answers:,} answers of {len(asked):,} queries agrees with "
        f"the model on {100 * stolen.agreement:.3g} % of the holdout (bounds at "
        f"{100 * confidence:g} %: {100 * stolen.low:.3g} to {100 * stolen.high:.3g} %, limit "
        f"{100 * at_most:g} %)"
    )
    if stolen.low > at_most:
        raise Leaks(text)
    if stolen.high > at_most:
        raise Inconclusive(
            f"{text}. This shows neither that it can be stolen nor that it cannot. Give a larger "
            f"holdout than {len(judged):,} queries"
        )
    control = _control(asked, judged, len(set(expected.tolist())), confidence)
    if control.low <= at_most:
        raise Inconclusive(
            f"the attack does not steal a linear classifier with all {len(asked):,} queries (it "
            f"agrees on {100 * control.agreement:.3g} %, limit {100 * at_most:g} %), so that it "
            f"does not steal the model says nothing. Give more queries, or a lower limit"
        )


def _truth(model: Callable[[Any], Any], judged: Array, batch: int) -> Array:
    known, answers = _answers(model, judged, batch)
    if len(known) < len(judged):
        raise BadArgument(
            f"{OWNER}: the model refused queries of the holdout, on which it is judged. Give the "
            f"model without its defence with truth="
        )
    return answers


def _answers(model: Callable[[Any], Any], asked: Array, batch: int) -> tuple[Array, Array]:
    """Return the queries that were answered, and the answers."""
    import numpy as np

    known, answers = [], []
    problem = ""
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        try:
            replies = model(part)
        except Exception as error:  # noqa: BLE001  # any error is a refusal
            problem = error_text(error)
            continue
        if replies is None:
            continue
        if hasattr(replies, "detach"):
            replies = replies.detach().cpu().numpy()
        replies = list(replies)
        if len(replies) != len(part):
            raise BadArgument(
                f"{OWNER}: the model must return one answer for each query of a batch, got "
                f"{len(replies)} for {len(part)}"
            )
        for query, reply in zip(part, replies, strict=True):
            if reply is not None:
                known.append(query)
                answers.append(np.asarray(reply))
    if not answers:
        why = f". The last error was {problem}" if problem else ""
        raise Inconclusive(
            f"the model answered none of {len(asked):,} queries, so nothing was attacked{why}"
        )
    return np.stack(known), np.stack(answers)


def _classes(answers: Array) -> Any:
    """Return classes as whole numbers or texts."""
    import numpy as np

    if answers.ndim == 2 and answers.shape[1] > 1:
        return answers.argmax(1)
    flat = answers.reshape(len(answers))
    if flat.dtype.kind == "f" and bool((flat != np.floor(flat)).any()):
        raise BadArgument(
            f"{OWNER}: the model must return classes, or one score for each class, got single "
            f"scores. Return the class (score >= 0.5)"
        )
    return flat


def _check_constant(expected: Array, at_most: float) -> None:
    import numpy as np

    share = float(np.unique(expected, return_counts=True)[1].max()) / len(expected)
    if share > at_most:
        raise BadArgument(
            f"{OWNER}: at_most must be above {share:.3g}, the share of the most frequent class, "
            f"because a constant agrees as often, got {at_most:g}"
        )


def _steal(
    known: Array, answers: Array, judged: Array, expected: Array, confidence: float
) -> _Stolen:
    predicted = best_surrogate(known, _classes(answers))(judged)
    right = int((predicted == expected).sum())
    found = clopper_pearson(right, len(judged), 2 * confidence - 1)
    return _Stolen(len(known), found.estimate, found.low, found.high)


def _control(asked: Array, judged: Array, classes: int, confidence: float) -> _Stolen:
    """Steal a linear classifier that answers all queries."""
    import numpy as np

    rng = np.random.default_rng(0)
    centre, spread = asked.mean(0), asked.std(0)
    spread[spread == 0] = 1.0
    weights = rng.normal(size=(asked.shape[1], max(2, classes)))

    def planted(records: Array) -> Any:
        return ((records - centre) / spread @ weights).argmax(1)

    return _steal(asked, planted(asked), judged, planted(judged), confidence)
