"""Judge that the requests that a fault struck are answered as declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...core.privacy import data_text
from ...core.replies import Reply
from ...core.validation import FLAG, TEXT, WHOLE, check_arguments, optional
from ...errors import BadArgument, Inconclusive, NoFallback
from ...oracles.state import first_difference
from .load_result import ABSENT, LoadResult, first_few

__all__ = ["FallbackVerdicts"]


class FallbackVerdicts(LoadResult):
    """Judge the declared fallback."""

    @check_arguments("assert_fallback", status=optional(WHOLE), text=optional(TEXT), or_golden=FLAG)
    def assert_fallback(
        self,
        expected: Callable[[Reply], object] | None = None,
        *,
        status: int | None = None,
        json: Any = ABSENT,
        text: str | None = None,
        value: Any = ABSENT,
        or_golden: bool = False,
    ) -> None:
        """Raise ``NoFallback`` unless each reply that a fault struck is the declared fallback.

        All given conditions must hold. Without a status, the reply may not be an error either.
        Replies that no fault struck are not judged. A strike in code that works for several
        requests (a batching worker) is judged by the replies to all requests in flight: one of them
        must be the fallback, and the others the golden run's.

        Args:
            expected: A predicate on the reply.
            status: The status.
            json: The body as JSON.
            text: The body as text.
            value: A callable's value.
            or_golden: If true, the golden run's reply passes too, for an app that tries again and
                succeeds.

        Raises:
            NoFallback: A reply differs.
            BadArgument: No fault struck one of these replies (if schedules are searched, in none of
                them).
            Inconclusive: The replies do not show which request a strike hit.
        """
        wanted = {"json": json, "text": text if text is not None else ABSENT, "value": value}
        wanted = {name: one for name, one in wanted.items() if one is not ABSENT}
        if expected is None and status is None and not wanted:
            raise BadArgument(
                "assert_fallback: describe the fallback: status=503, json={...}, text=, value=, or "
                "a predicate on the reply"
            )
        if expected is not None and not callable(expected):
            raise BadArgument(
                f"assert_fallback: expected must be a predicate on the reply, got "
                f"{data_text(expected)}. Give a value as json= or value="
            )
        self._compare_under_faults("assert_fallback")
        struck = [place for place, reply in enumerate(self.replies) if reply.faults]
        if self._is_judged("assert_fallback", bool(struck or self._suspicions)):
            _Fallbacks(
                self, lambda reply: _unlike(reply, expected, status, wanted), or_golden
            ).judge(struck)


class _Fallbacks:
    """Judge one load for ``assert_fallback``."""

    def __init__(
        self, load: LoadResult, unlike: Callable[[Reply], str | None], or_golden: bool
    ) -> None:
        self._load = load
        self._unlike = unlike
        self._or_golden = or_golden

    def judge(self, struck: Sequence[int]) -> None:
        """Raise ``NoFallback`` or ``Inconclusive`` if one is due."""
        replies, wrong, unseen = self._load.replies, [], []
        for place in struck:
            reply = replies[place]
            difference = self._unlike(reply)
            if difference is None or (self._or_golden and self._is_golden(place)):
                continue
            only_suspected = len(reply.faults) == sum(
                len(one.requests) == 1 for one in reply.suspicions
            )
            if only_suspected and self._is_golden(place):
                unseen.append(f"{reply}, which was in flight, equals the golden run's")
            else:
                wrong.append(f"{reply}: {difference}")
        count = len(struck)
        for suspicion in self._load._suspicions:
            count += 1
            places = [place for place, reply in enumerate(replies) if suspicion in reply.suspicions]
            fallbacks = [place for place in places if self._unlike(replies[place]) is None]
            others = [
                place for place in places if place not in fallbacks and not self._is_golden(place)
            ]
            if others and not fallbacks:
                wrong += [
                    f"{replies[place]}: {self._unlike(replies[place])} (struck: {suspicion})"
                    for place in others
                ]
            elif others:
                unseen.append(
                    f"{suspicion}: {replies[others[0]]} is neither the fallback nor equal to the "
                    f"golden run's, "
                    f"although {replies[fallbacks[0]]} is the fallback"
                )
            elif not fallbacks and not self._or_golden:
                unseen.append(f"{suspicion}: all of them equal the golden run's")
        if wrong:
            head = f"not the declared fallback: {len(wrong)} of {count} replies given while a fault struck"
            raise NoFallback("\n  ".join([head, *first_few(wrong)]))
        if unseen:
            head = "no reply shows which request was struck, because the code works for several at a time"
            way_out = "if the app retries and succeeds, use assert_fallback(..., or_golden=True)"
            raise Inconclusive("\n  ".join([head, *first_few(unseen), way_out]))

    def _is_golden(self, place: int) -> bool:
        return self._load._compared.difference(place, self._load.replies[place]) is None


def _unlike(
    reply: Reply,
    expected: Callable[[Reply], object] | None,
    status: int | None,
    wanted: dict[str, Any],
) -> str | None:
    """Return why a reply is not the fallback, or None."""
    if status is not None and reply.status != status:
        return f"{reply.outcome} instead of status {status}"
    if status is None and expected is None and not reply.ok:
        return reply.outcome
    for name, value in wanted.items():
        try:
            difference = first_difference(getattr(reply, name), value, name=name)
        except BadArgument:
            difference = f"{reply.outcome}, which is not JSON"
        if difference:
            return difference
    return (
        None
        if expected is None or expected(reply)
        else f"{reply.outcome}, for which the predicate is false"
    )
