"""Judge whether generated texts have changed: their length, refusals, language and so on."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

from ...core.recording import oracle
from ...core.validation import CALLABLE, check_arguments, format_value, optional
from ...errors import BadArgument, Drifted
from ..columns import ColumnValues
from ..two_sample import smallest_p
from .derived import embed_texts
from .findings import Finding, significant
from .joint import judge_together
from .options import check_alpha
from .single import Test, judge_column
from .text_features import REFUSALS, is_refusal, is_valid, language, repetition, words

__all__ = ["TextDriftOptions", "assert_no_text_drift"]


class TextDriftOptions(TypedDict, total=False):
    """The options of ``assert_no_text_drift``, which judgements of runs and loads pass on."""

    alpha: float
    refusals: Sequence[str] | Callable[[str], bool]
    validator: Callable[[str], Any] | None
    language_of: Callable[[str], str] | None
    embed: Callable[[list[str]], Any] | None


@oracle
@check_arguments(
    "assert_no_text_drift",
    validator=optional(CALLABLE),
    language_of=optional(CALLABLE),
    embed=optional(CALLABLE),
)
def assert_no_text_drift(
    reference: Iterable[str],
    current: Iterable[str],
    *,
    alpha: float = 0.05,
    refusals: Sequence[str] | Callable[[str], bool] = REFUSALS,
    validator: Callable[[str], Any] | None = None,
    language_of: Callable[[str], str] | None = None,
    embed: Callable[[list[str]], Any] | None = None,
) -> None:
    """Raise ``Drifted`` if texts, such as replies of a language model, differ from a reference.

    Judged are the length in words, the share of empty texts, the share of refusals, the language
    and script, the repetition inside a text (phrases of three words that it used before), the share
    of valid texts, and the meaning by an embedding. All share ``alpha`` (Holm's correction).

    Args:
        reference: Texts to compare with, one for each request or prompt.
        current: The texts to judge.
        alpha: The share of samples without drift that may fail, over all these tests together.
        refusals: Regular expressions that find a refusal in the first 200 characters, or a function
            of a text. Without it, common phrases in English, German, French and Spanish.
        validator: A function of a text that raises an exception, or returns False, if the text is
            not valid: ``json.loads``, or one that checks a JSON schema.
        language_of: A function that returns the language of a text. Without it, the script of most
            letters, and for Latin letters a guess by frequent words of seven languages.
        embed: A function that returns a vector for each text of a list. The vectors are compared by
            MMD.

    Raises:
        Drifted: The texts differ, or cannot be judged: there are none, or not all are texts.
        BadArgument: An argument is wrong, or the reference has too few texts to show a drift.

    Fidelity: only these properties are judged. A wrong answer of the same length and language
    passes, unless ``embed`` tells it apart. Texts are independent draws: with several samples for
    each prompt, give one of them.
    """
    check_alpha("assert_no_text_drift", alpha)
    judge = _refusal_function(refusals)
    before = _texts(reference, "reference")
    try:
        after = _texts(current, "current")
    except BadArgument as error:
        raise Drifted(f"cannot be judged: {error}") from None
    features = _features(judge, validator, language_of)
    tests = len(features) + (embed is not None)
    if smallest_p(len(before), len(before)) > alpha / tests:
        raise BadArgument(
            f"assert_no_text_drift: a reference of {len(before)} texts is too small to show a drift "
            f"at this alpha"
        )
    if smallest_p(len(before), len(after)) > alpha / tests:
        raise Drifted(
            f"cannot be judged: {len(after)} texts against {len(before)} are too few to show a drift "
            f"at this alpha"
        )
    findings = [_judge(feature, before, after, alpha, tests) for feature in features]
    if embed is not None:
        findings += _by_meaning(embed, before, after, alpha, tests)
    if drifted := significant(findings, alpha, tests):
        raise Drifted(_told(drifted, len(before), len(after)))


@dataclasses.dataclass(frozen=True, slots=True)
class _Feature:
    name: str
    kind: str
    measure: Callable[[str], Any]


def _features(
    refuses: Callable[[str], bool],
    validator: Callable[[str], Any] | None,
    language_of: Callable[[str], Any] | None,
) -> list[_Feature]:
    found = [
        _Feature("length in words", "numbers", words),
        _Feature("empty", "share", lambda text: not text.strip()),
        _Feature("refusals", "share", lambda text: bool(refuses(text))),
        _Feature(
            "language",
            "categories",
            language if language_of is None else lambda text: str(language_of(text)),
        ),
        _Feature("repetition", "numbers", repetition),
    ]
    if validator is not None:
        found.append(_Feature("valid", "share", lambda text: is_valid(validator, text)))
    return found


def _refusal_function(refusals: Any) -> Callable[[str], bool]:
    if callable(refusals):
        return refusals  # type: ignore[no-any-return]
    if isinstance(refusals, str) or not all(isinstance(one, str) for one in refusals):
        raise BadArgument(
            "assert_no_text_drift: refusals must be a list of regular expressions or a function, "
            f"got {format_value(refusals)}"
        )
    try:
        return is_refusal(tuple(re.compile(one, re.IGNORECASE) for one in refusals))
    except re.error as error:
        raise BadArgument(f"assert_no_text_drift: refusals has a wrong pattern: {error}") from None


def _texts(data: Any, what: str) -> list[str]:
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise BadArgument(
            f"{what} must be a list of texts, got {format_value(type(data).__name__)}"
        )
    found = list(data)
    if not found:
        raise BadArgument(f"{what} has no texts")
    others = sum(not isinstance(one, str) for one in found)
    if others:
        raise BadArgument(f"{what} must be texts, but {others} of {len(found)} values are not")
    return [str(one) for one in found]


def _judge(
    feature: _Feature, before: list[str], after: list[str], alpha: float, tests: int
) -> Finding:
    import numpy as np

    values = [[feature.measure(text) for text in texts] for texts in (before, after)]
    method = "ks" if feature.kind == "numbers" else "chi2"
    sides = [
        ColumnValues("numbers", np.array(one, dtype=float))
        if feature.kind == "numbers"
        else ColumnValues("categories", one)
        for one in values
    ]
    test = Test(feature.name, (feature.name,), method, 0.0, alpha, alpha / tests, 10, strict=False)
    finding = judge_column(sides[0], sides[1], test)
    if feature.kind == "share":
        shares = [sum(one) / len(one) for one in values]
        text = f"{shares[1]:.1%} instead of {shares[0]:.1%} (p = {finding.p:.2g})"
        return dataclasses.replace(finding, text=text)
    if feature.measure is language and finding.p <= alpha:
        shares = [Counter(one) for one in values]
        name = max(
            {*values[0], *values[1]},
            key=lambda one: (abs(shares[1][one] / len(after) - shares[0][one] / len(before)), one),
        )
        now, then = shares[1][name] / len(after), shares[0][name] / len(before)
        text = f"{name} {now:.1%} instead of {then:.1%} (p = {finding.p:.2g})"
        return dataclasses.replace(finding, text=text)
    if feature.name == "length in words" and finding.text:
        medians = [float(np.median(one)) for one in values]
        text = f"median {medians[1]:g} instead of {medians[0]:g}, {finding.text}"
        return dataclasses.replace(finding, text=text)
    return finding


def _by_meaning(
    embed: Callable[[list[str]], Any],
    before: list[str],
    after: list[str],
    alpha: float,
    tests: int,
) -> list[Finding]:
    columns = [{"embedding": embed_texts(embed, texts)} for texts in (before, after)]
    test = Test("embedding", ("embedding",), "mmd", 0.0, alpha, alpha / tests, 10, strict=False)
    return judge_together(columns[0], columns[1], test)


def _told(drifted: list[Finding], before: int, after: int) -> str:
    lines = [f"{after} texts against {before}"]
    for finding in drifted:
        head, *rest = finding.text.splitlines()
        lines += [f"  {finding.where}: {head}", *(f"    {line}" for line in rest)]
    return "\n".join(lines)
