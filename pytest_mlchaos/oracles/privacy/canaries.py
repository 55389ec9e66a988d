"""Judge whether a language model has memorised texts of its training data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ...core.recording import oracle
from ...core.validation import CALLABLE, ITERABLE, check_arguments, optional
from ...errors import BadArgument, Inconclusive, Leaks
from ..confidence import check_confidence
from ..intervals import clopper_pearson
from .inputs import ask, scores_of

__all__ = ["assert_no_memorised_canaries"]

OWNER = "assert_no_memorised_canaries"


@oracle
@check_arguments(
    OWNER,
    canaries=ITERABLE,
    references=ITERABLE,
    loss=optional(CALLABLE),
    generated=optional(ITERABLE),
)
def assert_no_memorised_canaries(
    canaries: Iterable[str],
    references: Iterable[str],
    *,
    loss: Callable[[Any], Any] | None = None,
    generated: Iterable[str] | None = None,
    confidence: float = 0.95,
) -> None:
    """Pass only if canaries in the training data are shown to be as likely as random texts.

    Canaries are random texts that were put into the training data. References are random texts of
    the same form that were not. If nothing is memorised, a canary has any rank among the references
    with equal probability, so its rank gives an exact p-value. The exposure of a canary is the
    number of bits by which the model narrows it down: ``log2`` of one more than the number of
    references, less ``log2`` of its rank.

    The references must be so many that a canary with the lowest loss of all would be called a leak.

    Args:
        canaries: The texts that were in the training data.
        references: Random texts of the same form. For k canaries and 95 %, at least 20 k - 1.
        loss: A function of a list of texts that returns one loss (negative log-likelihood) for
            each. A memorised text has a low one.
        generated: Texts that the model generated. A canary in one of them, without regard to case
            and white space, is a leak if references are not there as often.
        confidence: The probability that a model that has memorised nothing is not called a leak.
            Above 0.5 and below 1. A model passes only if each canary is shown not to be among the
            few most likely texts that would call it one.

    Raises:
        Leaks: A canary is more likely than chance allows, or it was generated.
        Inconclusive: The references are too few, or the ranks show neither.
        BadArgument: Texts repeat, or there is nothing to judge.

    Fidelity: the rank of a canary depends on its form. References must be drawn in the same way as
    canaries, for example with the same number of random digits. Generated texts show only what the
    prompts bring out.

    Source: Carlini et al. (2019), "The Secret Sharer", for exposure.
    """
    planted, others = list(canaries), list(references)
    _check(planted, others, loss, generated, confidence)
    doubt = (1 - confidence) / len(planted)
    if (len(others) + 1) * doubt < 1 - 1e-9:
        raise Inconclusive(
            f"{len(others)} references cannot show at {100 * confidence:g} % that one of "
            f"{len(planted)} canaries is memorised. Give at least "
            f"{math.ceil(1 / doubt - 1e-9) - 1:,}"
        )
    if generated is not None:
        _judge_generated(planted, others, list(generated), confidence)
    if loss is not None:
        losses = scores_of(ask(OWNER, "loss", loss, planted + others), OWNER, "the result of loss=")
        if len(losses) != len(planted) + len(others):
            raise BadArgument(f"{OWNER}: loss must return one number for each text")
        _judge_losses(losses[: len(planted)], losses[len(planted) :], doubt, confidence)


def _check(
    planted: list[str], others: list[str], loss: Any, generated: Any, confidence: float
) -> None:
    check_confidence(OWNER, confidence)
    if loss is None and generated is None:
        raise BadArgument(f"{OWNER}: give loss=, generated= or both")
    for name, texts in (("canaries", planted), ("references", others)):
        if not texts:
            raise BadArgument(f"{OWNER}: {name} is empty")
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise BadArgument(f"{OWNER}: {name} must be texts that are not empty")
    if len({_normal(text) for text in planted + others}) < len(planted) + len(others):
        raise BadArgument(f"{OWNER}: canaries and references must be different texts")


def _judge_losses(planted: Any, others: Any, doubt: float, confidence: float) -> None:
    """Compare the ranks of the canaries with chance."""
    import numpy as np

    # A reference with an equal loss counts as more likely, so ties never make a leak.
    more_likely = (others[None, :] <= planted[:, None]).sum(1)
    p_values = (more_likely + 1) / (len(others) + 1)
    worst = int(p_values.argmin())
    exposure = -math.log2(float(p_values[worst]))
    text = (
        f"the canary {worst} of {len(planted)} is more likely than all but "
        f"{int(more_likely[worst]):,} of {len(others):,} references (exposure {exposure:.3g} bits, "
        f"p = {p_values[worst]:.2g})"
    )
    if p_values[worst] <= doubt + 1e-12:
        raise Leaks(f"{text}: the model has memorised it")
    share = clopper_pearson(int(more_likely[worst]), len(others), confidence, "lower")
    if share.low < doubt:
        size = len(others)
        estimate = float(p_values[worst])
        while size < 10**8:
            size *= 2
            found = clopper_pearson(round(estimate * size), size, confidence, "lower")
            if found.low >= doubt or estimate <= doubt:
                break
        raise Inconclusive(
            f"{text}. This shows neither that it is memorised nor that it is not. About {size:,} "
            f"references would probably do"
        )
    if not len(np.unique(others)) > 1:
        raise Inconclusive("the loss is the same for all references, so ranks say nothing")


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def _judge_generated(
    planted: list[str], others: list[str], texts: list[str], confidence: float
) -> None:
    """Look for canaries and references in generated texts."""
    if not texts or not any(isinstance(text, str) and text.strip() for text in texts):
        raise BadArgument(f"{OWNER}: generated holds no texts, so nothing was judged")
    whole = "\n".join(_normal(str(text)) for text in texts)
    found = [place for place, text in enumerate(planted) if _normal(text) in whole]
    by_chance = sum(_normal(text) in whole for text in others)
    if not found:
        return
    # By chance, each text is one of the canaries among those found with equal probability.
    p_value = _at_least(len(found), by_chance, len(planted), len(others))
    text = (
        f"{len(found)} of {len(planted)} canaries are in the generated texts (the first is canary "
        f"{found[0]}), and {by_chance} of {len(others)} references (p = {p_value:.2g})"
    )
    if p_value <= 1 - confidence + 1e-12:
        raise Leaks(f"{text}: the model repeats its training data")
    raise Inconclusive(f"{text}. Give more references, or canaries with more random characters")


def _at_least(found: int, by_chance: int, canaries: int, references: int) -> float:
    """Return the probability that as many canaries are among the texts found (Fisher's test)."""
    drawn, total = found + by_chance, canaries + references
    ways = math.comb(total, drawn)
    return (
        sum(
            math.comb(canaries, k) * math.comb(references, drawn - k)
            for k in range(found, min(canaries, drawn) + 1)
        )
        / ways
    )
