"""Judge that no reply is wrong without saying so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from ...core.replies import Reply
from ...core.validation import TOLERANCE, check_arguments
from ...errors import Inconclusive, SilentlyWrong
from ...oracles.drift import DriftOptions, TextDriftOptions
from ...oracles.drift import assert_no_drift as compare
from ...oracles.drift import assert_no_text_drift as compare_texts
from ...oracles.fairness.amplification import assert_no_bias_amplification as compare_groups
from .fallbacks import LOWEST_ERROR, matches_fallback
from .load_result import ABSENT, LoadResult, first_few, has_left

__all__ = ["CorrectnessVerdicts"]


class CorrectnessVerdicts(LoadResult):
    """Judge all replies, also those that a fault struck."""

    @check_arguments("assert_no_silent_wrong", rtol=TOLERANCE, atol=TOLERANCE)
    def assert_no_silent_wrong(
        self,
        *,
        or_fallback: Any = ABSENT,
        by: Callable[[Reply], Any] | None = None,
        rtol: float = 0.0,
        atol: float = 0.0,
    ) -> None:
        """Raise ``SilentlyWrong`` unless each reply is right, the declared fallback, or an error.

        A reply is right if it equals the golden run's, as for ``assert_isolated``. Errors are
        statuses from 400 on, exceptions, and what ``is_error`` of ``drive`` counts as one. Requests
        whose client left are not judged.

        Args:
            or_fallback: The fallback: a value or JSON document, or a predicate on the reply.
            by: A function of the reply that returns the value to compare.
            rtol: Numbers may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.

        Raises:
            SilentlyWrong: A reply is wrong, and looks right.
            Inconclusive: Two golden loads have nothing in common that could be compared.
            BadArgument: No fault struck while the requests were handled.
        """
        self._compare_under_faults("assert_no_silent_wrong")
        struck = any(reply.faults or reply.suspicions for reply in self.replies)
        if not self._is_judged("assert_no_silent_wrong", struck):
            return
        wrong, silent = [], 0
        for place, reply in enumerate(self.replies):
            if has_left(reply) or _is_error(reply):
                continue
            if or_fallback is not ABSENT and matches_fallback(reply, or_fallback):
                continue
            silent += 1
            difference = self._compared.difference(place, reply, by=by, rtol=rtol, atol=atol)
            if difference:
                wrong.append(f"{reply}: {difference}{_struck(reply)}")
        if wrong:
            head = f"neither right, nor the declared fallback, nor an error: {len(wrong)} of {len(self.replies)} replies"
            raise SilentlyWrong("\n  ".join([head, *first_few(wrong), *self._remarks()]))
        if silent and not self._compared.judged:
            raise Inconclusive(
                f"assert_no_silent_wrong: nothing could be judged\n  {self._compared.remark}\n  "
                f"compare what matters with by="
            )

    def assert_no_drift(
        self,
        *,
        by: Callable[[Reply], Any] | None = None,
        **options: Unpack[DriftOptions],
    ) -> None:
        """Raise ``Drifted`` if the predictions have a different distribution than without faults.

        The replies without an error are compared with those of the golden run, by
        ``pytest_mlchaos.assert_no_drift``. Single replies may differ, for example by a fallback.

        Args:
            by: A function of the reply that returns a number, a category, or a dict of them by
                name. Without it, the value of a callable, or the JSON document.
            **options: The options of ``pytest_mlchaos.assert_no_drift``: ``method``, ``alpha``,
                ``threshold``, ``kind``, ``embed`` and so on.

        Raises:
            Drifted: The distributions differ.
            BadArgument: No fault struck, or the predictions are not numbers or categories.
        """
        pair = self._both_sides("assert_no_drift", by)
        if pair is not None:
            compare(*pair, **options)

    def assert_no_text_drift(
        self, *, by: Callable[[Reply], str] | None = None, **options: Unpack[TextDriftOptions]
    ) -> None:
        """Raise ``Drifted`` if the texts of the replies differ from those without faults.

        The replies without an error are compared with those of the golden run, by
        ``pytest_mlchaos.assert_no_text_drift``.

        Args:
            by: A function of the reply that returns a text. Without it, the value of a callable, or
                the JSON document.
            **options: The options of ``pytest_mlchaos.assert_no_text_drift``.

        Raises:
            Drifted: The texts differ.
            BadArgument: No fault struck, or the golden replies are not texts.
        """
        pair = self._both_sides("assert_no_text_drift", by)
        if pair is not None:
            compare_texts(*pair, **options)

    @check_arguments("assert_no_bias_amplification", at_most=TOLERANCE)
    def assert_no_bias_amplification(
        self,
        *,
        groups: Any,
        at_most: float,
        y_true: Any = None,
        by: Callable[[Reply], Any] | None = None,
        loss: Callable[[Any, Any], Any] | None = None,
        confidence: float = 0.95,
    ) -> None:
        """Pass only if the faults are shown to harm no group of requests much more than another.

        The replies are compared with those of the golden run, by
        ``pytest_mlchaos.assert_no_bias_amplification``. An error is a wrong answer.

        Args:
            groups: The group of each request. A table or a dict of columns gives intersections.
            at_most: The largest difference between the harms of two groups that would not matter:
                a share of the requests, or a difference in ``loss``.
            y_true: The true answer to each request. Without it, a reply that differs from that of
                the golden run counts as wrong.
            by: A function of the reply that returns its prediction. Without it, the value of a
                callable, or the JSON document.
            loss: See ``pytest_mlchaos.assert_no_bias_amplification``.
            confidence: See ``pytest_mlchaos.assert_no_bias_amplification``.

        Raises:
            Unfair: The faults harm one group more than another by more than ``at_most``.
            Inconclusive: The replies show neither.
            BadArgument: No fault struck, or a golden reply is an error.
        """
        name = "assert_no_bias_amplification"
        self._compare_under_faults(name)
        struck = any(reply.faults or reply.suspicions for reply in self.replies)
        if not self._is_judged(name, struck or bool(self._between)):
            return
        read = by or (lambda reply: reply.value if reply.status is None else reply.json)
        golden, current = (
            [None if _is_error(reply) else read(reply) for reply in replies]
            for replies in (self._compared.load.replies, self.replies)
        )
        compare_groups(
            golden,
            current,
            groups,
            at_most=at_most,
            y_true=y_true,
            loss=loss,
            confidence=confidence,
        )

    def _both_sides(self, name: str, by: Callable[[Reply], Any] | None) -> tuple[Any, Any] | None:
        """Return what the golden replies hold, and the replies; None if no fault struck."""
        self._compare_under_faults(name)
        struck = any(reply.faults or reply.suspicions for reply in self.replies)
        if not self._is_judged(name, struck or bool(self._between)):
            return None
        read = by or (lambda reply: reply.value if reply.status is None else reply.json)
        reference, current = (
            _columns([read(reply) for reply in replies if not _is_error(reply)])
            for replies in (self._compared.load.replies, self._counted)
        )
        return reference, current


def _columns(values: list[Any]) -> Any:
    """Return a list of dicts as a dict of lists, if all have the same names."""
    first = values[0] if values else None
    if not isinstance(first, Mapping) or any(
        not isinstance(one, Mapping) or one.keys() != first.keys() for one in values
    ):
        return values
    return {name: [one[name] for one in values] for name in first}


def _is_error(reply: Reply) -> bool:
    return (
        not reply.ok
        or reply.error is not None
        or (reply.status is not None and reply.status >= LOWEST_ERROR)
    )


def _struck(reply: Reply) -> str:
    return f" ({reply.faults[0]})" if reply.faults else ""
