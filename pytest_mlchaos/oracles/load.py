"""A load on a served app, and the judgements on its replies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..core.journal import Strike
from ..core.replies import Reply
from ..core.values import CALLABLE, FLAG, TEXT, TOLERANCE, WHOLE, checked, optional, parse_duration, shown
from ..errors import BadArgument, NoFallback, NotIsolated, NotRecovered, SloMissed
from .slo import Bounds, quantile, seconds
from .state import first_difference

__all__ = ["Load"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

SHOWN = 3
_ABSENT: Any = object()


class Load:
    """The replies to one :meth:`~pytest_mlchaos.plugin.service.Service.drive`, in the order of the requests."""

    def __init__(self, replies: Sequence[Reply], golden: Callable[[], Load] | None = None, *, strict: Callable[[], bool] = bool) -> None:
        self.replies = tuple(replies)
        self._golden = golden
        self._strict = strict

    def __repr__(self) -> str:
        return f"<Load of {len(self.replies)} replies, {self._errors} errors, p99 {seconds(self.latency(0.99))}, {len(self.faults)} faults>"

    @functools.cached_property
    def golden(self) -> Load:
        """The same load without faults.

        The app is shut down and started afresh for it, and meets all loads of this service once more, in order, with files and random
        numbers as they were when it was first served. So the service is over: ``drive`` comes before. What an app keeps in globals
        outlives a start, as it does not in a new process; a callable is copied as it was at first.
        """
        return self if self._golden is None else self._golden()

    @property
    def faults(self) -> tuple[Strike, ...]:
        """What struck while the requests were handled, request by request."""
        return tuple(strike for reply in self.replies for strike in reply.faults)

    def latency(self, q: float) -> float:
        """The nearest-rank ``q``-quantile (``0.99``) of all replies' latencies, failed ones included: seconds on the trial's clock."""
        if isinstance(q, bool) or not isinstance(q, (int, float)) or not 0 <= q <= 1:
            raise BadArgument(f"latency: expected a quantile from 0 to 1, such as 0.99, but got {shown(q)}")
        return quantile([reply.latency for reply in self.replies], q)

    @property
    def _errors(self) -> int:
        return sum(not reply.ok for reply in self.replies)

    @property
    def error_rate(self) -> float:
        """The share of requests that failed: they raised, or the reply counts as an error (see ``drive``)."""
        return self._errors / len(self.replies)

    @property
    def availability(self) -> float:
        """The share of requests that did not fail."""
        return 1 - self.error_rate

    def assert_slo(self, **bounds: Any) -> None:
        """``assert_slo`` on these replies: ``load.assert_slo(p99="150ms", error_rate=0.01)``. Raises ``SloMissed``.

        Fidelity: on the virtual clock latencies are what the app waited for; computing takes no time. A model that is slow to compute is
        judged with ``@chaos.settings(clock="real")``.
        """
        missed = _missed(self.replies, Bounds(bounds))
        if missed:
            raise SloMissed("\n  ".join([f"the SLO is missed over {len(self.replies)} requests:", *missed, *self._worst()]))

    def _worst(self) -> list[str]:
        slowest = max(self.replies, key=lambda reply: reply.latency)
        failed = next((reply for reply in self.replies if not reply.ok), None)
        lines = [f"slowest: {slowest}, {slowest.outcome}, {seconds(slowest.latency)}"]
        return lines + ([f"first error: {failed}, {failed.outcome}"] if failed is not None else [])

    def assert_recovered(self, *, within: Any, **bounds: Any) -> None:
        """Raise :class:`~pytest_mlchaos.errors.NotRecovered` unless the SLO holds again soon after the faults.

        The replies that are judged are those whose requests arrived ``within`` (seconds, or ``"2s"``, on the trial's clock) after the last
        fault had ended, or later: together they keep ``bounds``, as in ``assert_slo``. A fault ends when its failure is
        raised, or its delay has passed. A load that ends before there is one such reply judges nothing: ``BadArgument``.
        """
        grace, slo = parse_duration(within, "within"), Bounds(bounds)
        ended = max((reply.fault_ended for reply in self.replies if reply.fault_ended is not None), default=None)
        if ended is None:
            self._refuse_no_strike("assert_recovered")
            ended, grace = 0.0, 0.0
        after = sorted((reply for reply in self.replies if reply.start >= ended), key=lambda reply: reply.start)
        judged = [reply for reply in after if reply.start >= ended + grace]
        if not judged:
            raise BadArgument(
                f"assert_recovered: no request arrived {seconds(grace)} or more after the last fault, which ended {seconds(ended)} into "
                "the load; drive more requests, or at a rate"
            )
        missed = _missed(judged, slo)
        if missed:
            raise NotRecovered(
                f"the SLO did not hold {seconds(grace)} after the last fault, over {len(judged)} requests:\n  "
                + "\n  ".join([*missed, _recovery(after, ended, slo)])
            )

    @checked("assert_fallback", status=optional(WHOLE), text=optional(TEXT), or_golden=FLAG)
    def assert_fallback(
        self,
        expected: Callable[[Reply], object] | None = None,
        *,
        status: int | None = None,
        json: Any = _ABSENT,
        text: str | None = None,
        value: Any = _ABSENT,
        or_golden: bool = False,
    ) -> None:
        """Raise :class:`~pytest_mlchaos.errors.NoFallback` unless each reply that was given while a fault struck is the declared fallback.

        The fallback is what all the given conditions hold for: ``expected(reply)``, the ``status``, the body as ``json`` or ``text``, a
        callable's ``value``. Where no status is named, it may not be an error either. ``or_golden`` lets the golden run's reply pass too,
        for an app that tries again and succeeds. Replies during which nothing struck are not judged. A test whose faults struck during
        none of these replies proves nothing: ``BadArgument`` (but for schedules that are searched, of which some strike elsewhere).
        """
        wanted = {"json": json, "text": text if text is not None else _ABSENT, "value": value}
        wanted = {name: one for name, one in wanted.items() if one is not _ABSENT}
        if expected is None and status is None and not wanted:
            raise BadArgument(
                "assert_fallback: say what the fallback is: status=503, json={...}, text=, value=, or a predicate on the reply"
            )
        if expected is not None and not callable(expected):
            raise BadArgument(
                f"assert_fallback: expected a predicate on the reply but got {shown(expected)}; give a value as json= or value="
            )
        struck = [place for place, reply in enumerate(self.replies) if reply.faults]
        if not struck:
            self._refuse_no_strike("assert_fallback")
        wrong = []
        for place in struck:
            reply = self.replies[place]
            difference = _unlike(reply, expected, status, wanted)
            if difference and not (or_golden and _differs(reply, self.golden.replies[place], None, 0.0, 0.0) is None):
                wrong.append(f"{reply}: {difference}")
        if wrong:
            head = f"not the declared fallback: {len(wrong)} of {len(struck)} replies given while a fault struck"
            raise NoFallback("\n  ".join([head, *_first_few(wrong)]))

    @checked("assert_isolated", rtol=TOLERANCE, atol=TOLERANCE, by=optional(CALLABLE))
    def assert_isolated(self, *, by: Callable[[Reply], Any] | None = None, rtol: float = 0.0, atol: float = 0.0) -> None:
        """Raise :class:`~pytest_mlchaos.errors.NotIsolated` unless the faults harmed no bystander.

        The replies during which no fault struck must equal the golden run's: by status, whether an exception of the same type was
        raised, and body (JSON is compared entry by entry, numbers within ``atol + rtol * abs(expected)``) or value; or by ``by(reply)``
        alone, where bodies hold times or identifiers. Headers are not compared.
        """
        bystanders = [place for place, reply in enumerate(self.replies) if not reply.faults]
        if not bystanders and self._strict():
            raise BadArgument("assert_isolated: a fault struck during every reply, so none is left to judge; drive requests that meet none")
        wrong = []
        for place in bystanders:
            difference = _differs(self.replies[place], self.golden.replies[place], by, rtol, atol)
            if difference:
                wrong.append(f"{self.replies[place]}: {difference}")
        if wrong:
            head = f"not as in the golden run: {len(wrong)} of {len(bystanders)} replies during which no fault struck"
            raise NotIsolated("\n  ".join([head, *_first_few(wrong)]))

    def _refuse_no_strike(self, who: str) -> None:
        if self._strict():
            raise BadArgument(f"{who}: no fault struck while these {len(self.replies)} requests were handled, so there is nothing to judge")


def _missed(replies: Sequence[Reply], slo: Bounds) -> list[str]:
    return slo.missed([reply.latency for reply in replies], sum(not reply.ok for reply in replies))


def _recovery(after: Sequence[Reply], ended: float, slo: Bounds) -> str:
    """When the SLO held from then on, in words."""
    holds = next((reply for place, reply in enumerate(after) if not _missed(after[place:], slo)), None)
    return "it held never again" if holds is None else f"it held {seconds(holds.start - ended)} after it, from {holds} on"


def _unlike(reply: Reply, expected: Callable[[Reply], object] | None, status: int | None, wanted: dict[str, Any]) -> str | None:
    """Why a reply is not the fallback, or None."""
    if status is not None and reply.status != status:
        return f"{reply.outcome} instead of status {status}"
    if status is None and expected is None and not reply.ok:
        return reply.outcome
    for name, value in wanted.items():
        try:
            difference = first_difference(getattr(reply, name), value, name=name)
        except BadArgument:
            difference = f"{reply.outcome}, and no JSON"
        if difference:
            return difference
    return None if expected is None or expected(reply) else f"{reply.outcome}, for which the predicate does not hold"


def _differs(reply: Reply, golden: Reply, by: Callable[[Reply], Any] | None, rtol: float, atol: float) -> str | None:
    if by is not None:
        return first_difference(by(reply), by(golden), rtol=rtol, atol=atol, name="by(reply)")
    if (reply.status, type(reply.error)) != (golden.status, type(golden.error)):
        return f"{reply.outcome} instead of {golden.outcome}"
    if reply.content is None:
        return first_difference(reply.value, golden.value, rtol=rtol, atol=atol, name="value")
    try:
        return first_difference(reply.json, golden.json, rtol=rtol, atol=atol, name="json")
    except BadArgument:
        return first_difference(reply.content, golden.content, name="content")


def _first_few(lines: list[str]) -> list[str]:
    return [*lines[:SHOWN], *([f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])]
