"""Judge that the requests that a fault struck are answered as declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from ...core.privacy import data_text
from ...core.replies import Reply, Suspicion
from ...core.validation import FLAG, TEXT, WHOLE, check_arguments, format_value, optional
from ...errors import BadArgument, Inconclusive, NoFallback
from ...oracles.state import first_difference
from .load_result import ABSENT, LoadResult, first_few, has_left

__all__ = ["FallbackVerdicts", "matches_fallback"]

LOWEST_ERROR = 400
WAY_OUT = "if a circuit breaker was open, say so by a predicate: assert_fallback(..., when=...)"


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
        when: Literal["struck"] | Callable[[Reply], object] | None = None,
    ) -> None:
        """Raise ``NoFallback`` unless each reply that a fault struck is the declared fallback.

        All given conditions must hold. Without a status, the reply may not be an error either.
        Replies that no fault struck are not judged, unless ``when`` is given. A strike in code that works for several
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
            when: Judge that the fallback is used when it must be, and only then. ``"struck"``: when
                a fault struck. A predicate on the reply: when it is true, for example while a
                circuit breaker is open. A fallback that the golden run has, too, is allowed.

        Raises:
            NoFallback: A reply differs, or is the fallback without need.
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
        if when not in (None, "struck") and not callable(when):
            raise BadArgument(
                f"assert_fallback: when must be 'struck' or a predicate on the reply, got "
                f"{format_value(when)}"
            )
        self._compare_under_faults("assert_fallback")
        due = when if callable(when) else lambda reply: bool(reply.faults)
        stayed = [place for place, reply in enumerate(self.replies) if not has_left(reply)]
        struck = [place for place in stayed if due(self.replies[place])]
        suspicions = [] if callable(when) else self._suspicions
        judgement = _Fallbacks(
            self, lambda reply: _unlike(reply, expected, status, wanted), or_golden
        )
        if self._is_judged("assert_fallback", bool(struck or suspicions)):
            judgement.judge(struck, suspicions)
        if when is not None:
            judgement.judge_needless(
                [
                    place
                    for place in stayed
                    if place not in struck
                    and (callable(when) or not self.replies[place].suspicions)
                ],
                way_out="" if callable(when) else WAY_OUT,
            )


class _Fallbacks:
    """Judge one load for ``assert_fallback``."""

    def __init__(
        self, load: LoadResult, unlike: Callable[[Reply], str | None], or_golden: bool
    ) -> None:
        self._load = load
        self._unlike = unlike
        self._or_golden = or_golden

    def judge_needless(self, others: Sequence[int], way_out: str) -> None:
        """Raise ``NoFallback`` if a reply without need is the fallback, unlike the golden reply."""
        needless = [
            str(self._load.replies[place])
            for place in others
            if self._unlike(self._load.replies[place]) is None
            and self._unlike(self._load._compared.reply(place)) is not None
        ]
        if needless:
            head = f"the fallback was given without need: {len(needless)} of {len(others)} replies"
            lines = [head, *first_few(needless), way_out]
            raise NoFallback("\n  ".join(filter(None, lines)))

    def judge(self, struck: Sequence[int], suspicions: Sequence[Suspicion]) -> None:
        """Raise ``NoFallback`` or ``Inconclusive`` if one is due."""
        replies, wrong, unseen = self._load.replies, [], []
        for place in struck:
            reply = replies[place]
            difference = self._unlike(reply)
            if difference is None or (self._or_golden and self._is_golden(place)):
                continue
            only_suspected = reply.faults and len(reply.faults) == sum(
                len(one.requests) == 1 for one in reply.suspicions
            )
            if only_suspected and self._is_golden(place):
                unseen.append(f"{reply}, which was in flight, equals the golden run's")
            else:
                wrong.append(f"{reply}: {difference}")
        count = len(struck)
        for suspicion in suspicions:
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


def matches_fallback(reply: Reply, fallback: Any) -> bool:
    """Return True if a reply is the declared fallback: a value or JSON document, a status from 400
    on, or a predicate on the reply.
    """
    if callable(fallback):
        return bool(fallback(reply))
    if reply.error is not None:
        return False
    if reply.content is None:
        return first_difference(reply.value, fallback) is None
    if isinstance(fallback, int) and fallback >= LOWEST_ERROR:
        return reply.status == fallback
    if isinstance(fallback, str) and reply.text == fallback:
        return True
    try:
        return reply.ok and first_difference(reply.json, fallback) is None
    except BadArgument:
        return False


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
