"""Judge the replies to a load on a served app."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from ..core.entries import Entry, Requests, Timing
from ..core.journal import Strike
from ..core.privacy import data_text
from ..core.replies import Reply, Suspicion
from ..core.results import CallsResult
from ..core.validation import (
    FLAG,
    TEXT,
    TOLERANCE,
    WHOLE,
    check_arguments,
    format_value,
    optional,
    parse_duration,
)
from ..errors import BadArgument, Inconclusive, NoFallback, NotIsolated, NotRecovered, SloMissed
from ..oracles.state import first_difference
from .golden_load import GoldenLoad, GoldenReplies
from .slo import Bounds, quantile, seconds

__all__ = ["Load"]

SHOWN_LINES = 3
LOWEST_ERROR = 400
WAY_OUT = "if this is the app's fallback while a circuit breaker is open, use assert_isolated(or_fallback=..., within=...)"
_ABSENT: Any = object()


class Load(CallsResult):
    """The replies to one ``drive``, in the order of the requests."""

    def __init__(
        self,
        replies: Sequence[Reply],
        golden: Callable[[int], GoldenLoad] | None = None,
        *,
        strict: Callable[[], bool] = bool,
        judged: Callable[[str, bool], None] = lambda who, judges: None,
    ) -> None:
        self.replies = tuple(replies)
        self._golden = golden
        self._strict = strict
        self._judged = judged

    def _entries(self, number: int, is_virtual: bool) -> Iterator[Entry]:
        starts = tuple(round(reply.start, 4) for reply in self.replies)
        latencies = tuple(round(reply.latency, 4) for reply in self.replies)
        yield Requests(
            result=number,
            failed=tuple(place for place, reply in enumerate(self.replies) if not reply.ok),
            struck=tuple(place for place, reply in enumerate(self.replies) if reply.faults),
            starts=starts if is_virtual else (),
            latencies=latencies if is_virtual else (),
        )
        if not is_virtual:
            yield Timing(of="requests", number=number, starts=starts, latencies=latencies)

    def _about(self) -> str:
        return f"<Load of {len(self.replies)} replies, {self._errors} errors, p99 {seconds(self.latency(0.99))}, {len(self.faults)} faults>"

    @functools.cached_property
    def golden(self) -> Load:
        """Return the same load without faults.

        The app is started again for it, and receives all loads of this service once more, in order.
        Files, random numbers and memory (what your modules' names reach) are as they were when it
        was first served. An ASGI app is shut down before, so its service is over: call ``drive``
        before this. The memory of C code is not restored.
        """
        return self if self._golden is None else Load(self._golden(0).replies)

    @functools.cached_property
    def _compared(self) -> GoldenReplies:
        """Return the golden load, for comparisons. A golden load is compared with itself."""
        return GoldenReplies(self._golden or (lambda time: GoldenLoad(self.replies, {})))

    @property
    def faults(self) -> tuple[Strike, ...]:
        """Return the strikes while the requests were handled, request by request."""
        return tuple(strike for reply in self.replies for strike in reply.faults)

    def latency(self, q: float) -> float:
        """Return the nearest-rank ``q``-quantile (``0.99``) of all latencies, in seconds on the
        trial's clock. Failed requests count."""
        if isinstance(q, bool) or not isinstance(q, (int, float)) or not 0 <= q <= 1:
            raise BadArgument(
                f"latency: q must be a quantile from 0 to 1 such as 0.99, got {format_value(q)}"
            )
        return quantile([reply.latency for reply in self.replies], q)

    @property
    def _errors(self) -> int:
        return sum(not reply.ok for reply in self.replies)

    @property
    def error_rate(self) -> float:
        """Return the share of requests that failed: they raised, or the reply counts as an error
        (see ``drive``)."""
        return self._errors / len(self.replies)

    @property
    def availability(self) -> float:
        """Return the share of requests that did not fail."""
        return 1 - self.error_rate

    def assert_slo(self, **bounds: object) -> None:
        """Call ``assert_slo`` with these replies: ``load.assert_slo(p99="150ms",
        error_rate=0.01)``.

        Raises:
            SloMissed: A bound is exceeded.

        Fidelity: on the virtual clock, latencies only measure waiting. To judge a model that is
        slow to compute, use ``@chaos.settings(clock="real")``.
        """
        missed = _find_missed(self.replies, Bounds(bounds))
        if missed:
            raise SloMissed(
                "\n  ".join(
                    [
                        f"the SLO is missed over {len(self.replies)} requests:",
                        *missed,
                        *self._worst(),
                    ]
                )
            )

    def _worst(self) -> list[str]:
        slowest = max(self.replies, key=lambda reply: reply.latency)
        failed = next((reply for reply in self.replies if not reply.ok), None)
        lines = [f"slowest: {slowest}, {slowest.outcome}, {seconds(slowest.latency)}"]
        return lines + ([f"first error: {failed}, {failed.outcome}"] if failed is not None else [])

    def assert_recovered(
        self, *, within: object, like_golden: bool = True, **bounds: object
    ) -> None:
        """Raise ``NotRecovered`` unless the SLO holds again soon after the faults.

        A fault ends when its failure is raised, or its delay has passed. The replies to requests
        that arrived ``within`` this time after the last fault, or later, are judged together.

        Args:
            within: The time to recover: seconds, or ``"2s"``, on the trial's clock.
            like_golden: If true, the replies must also equal those of the golden load, except for
                what two golden loads do not have in common (times, request ids). An app that
                answers with its fallback for ever has not recovered.
            **bounds: As for ``assert_slo``.

        Raises:
            NotRecovered: The SLO does not hold, or a reply differs.
            BadArgument: The load ends before there is such a reply.
        """
        self._compare_under_faults("assert_recovered")
        grace, slo = parse_duration(within, "within"), Bounds(bounds)
        ended = self._fault_ended
        if ended is None:
            self._refuse_no_strike("assert_recovered")
            ended, grace = 0.0, 0.0
        after = sorted(
            (reply for reply in self.replies if reply.start >= ended), key=lambda reply: reply.start
        )
        judged = [reply for reply in after if reply.start >= ended + grace]
        if not judged:
            raise BadArgument(
                f"assert_recovered: no request arrived {seconds(grace)} or more after the last "
                f"fault, which ended {seconds(ended)} into "
                "the load. Drive more requests, or give rate="
            )
        missed = _find_missed(judged, slo)
        if missed:
            raise NotRecovered(
                f"the SLO did not hold {seconds(grace)} after the last fault, over {len(judged)} "
                f"requests:\n  " + "\n  ".join([*missed, _recovery(after, ended, slo)])
            )
        if like_golden and self._golden is not None:
            self._check_golden(judged, grace)

    def _check_golden(self, judged: Sequence[Reply], grace: float) -> None:
        wrong = []
        for place, reply in enumerate(self.replies):
            difference = self._compared.difference(place, reply) if reply in judged else None
            if difference:
                wrong.append(f"{reply}: {difference}")
        if wrong:
            head = f"different from the golden run {seconds(grace)} after the last fault: {len(wrong)} of {len(judged)} replies"
            way_out = "if these replies are correct, assert_recovered(..., like_golden=False) judges only the SLO"
            raise NotRecovered("\n  ".join([head, *_first_few(wrong), *self._remarks(), way_out]))

    @property
    def _fault_ended(self) -> float | None:
        """Return when the last fault ended, in seconds from the start of the load."""
        return max(
            (reply.fault_ended for reply in self.replies if reply.fault_ended is not None),
            default=None,
        )

    def _remarks(self) -> list[str]:
        return [self._compared.remark] if self._compared.remark else []

    @check_arguments("assert_fallback", status=optional(WHOLE), text=optional(TEXT), or_golden=FLAG)
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
        wanted = {"json": json, "text": text if text is not None else _ABSENT, "value": value}
        wanted = {name: one for name, one in wanted.items() if one is not _ABSENT}
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

    @check_arguments("assert_isolated", rtol=TOLERANCE, atol=TOLERANCE)
    def assert_isolated(
        self,
        *,
        by: Callable[[Reply], Any] | Literal["batch"] | None = None,
        rtol: float = 0.0,
        atol: float = 0.0,
        or_fallback: Any = _ABSENT,
        within: Any = None,
    ) -> None:
        """Raise ``NotIsolated`` if the faults changed a reply that they did not strike.

        Replies that no fault struck must equal the golden run's: by status, the type of an
        exception, and body (JSON is compared entry by entry) or value. Headers, and what two golden
        loads do not have in common (times, request ids), are not compared. A strike in code that
        works for several requests (a batching worker) may have hit any request in flight: as many
        of these may differ as there were strikes.

        Args:
            by: A function of the reply that returns the value to compare. ``"batch"``: a batch
                shares its work, so one strike may change all of its replies.
            rtol: Numbers may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.
            or_fallback: The fallback that requests after a strike may get instead, as from an open
                circuit breaker: a value or JSON document, a status from 400 on, or a predicate on
                the reply.
            within: Allow the fallback only for requests that arrived at most this long (seconds, or
                ``"30s"``) after the last fault.

        Raises:
            NotIsolated: A reply differs.
            Inconclusive: It cannot be decided.
            GoldenRunFailed: Every request fails without any fault.
        """
        if isinstance(by, str) and by != "batch":
            raise BadArgument(
                f"assert_isolated: by must be a function of a reply or 'batch', got "
                f"{format_value(by)}"
            )
        compare = None if isinstance(by, str) else by
        excused = _Excused(self, or_fallback, within)
        self._compare_under_faults("assert_isolated")
        bystanders = [place for place, reply in enumerate(self.replies) if not reply.faults]
        if not bystanders:
            self._is_judged(
                "assert_isolated",
                False,
                "a fault struck during every reply, so there is none to judge",
            )
            return
        self._judged("assert_isolated", True)
        wrong: dict[int, str] = {}
        for place in bystanders:
            difference = self._compared.difference(
                place, self.replies[place], by=compare, rtol=rtol, atol=atol
            )
            if difference and not excused.by_fallback(place):
                wrong[place] = f"{self.replies[place]}: {difference}"
        if not self._compared.judged:
            raise Inconclusive(
                f"assert_isolated: nothing could be judged\n  {self._compared.remark}\n  compare "
                f"what matters with by="
            )
        _Isolation(self, bystanders, wrong, shared=by == "batch", fallback=excused.declared).judge()

    @functools.cached_property
    def _suspicions(self) -> list[Suspicion]:
        """Return the strikes that may have hit one of several requests, once each."""
        found = {
            id(one): one
            for reply in self.replies
            for one in reply.suspicions
            if len(one.requests) > 1
        }
        return list(found.values())

    def _is_judged(self, who: str, judges: bool, why: str = "") -> bool:
        """Return True if there is something to judge.

        Raise ``BadArgument`` if there is not, unless a search may still find it.
        """
        self._judged(who, judges)
        if not judges and self._strict():
            nothing = f"no fault struck while these {len(self.replies)} requests were handled, so there is nothing to judge"
            raise BadArgument(
                f"{who}: {why or nothing}{'. Drive requests that no fault strikes' if why else ''}"
            )
        return judges

    def _refuse_no_strike(self, who: str) -> None:
        self._is_judged(who, False)


class _Fallbacks:
    """Judge one load for ``assert_fallback``."""

    def __init__(self, load: Load, unlike: Callable[[Reply], str | None], or_golden: bool) -> None:
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
            raise NoFallback("\n  ".join([head, *_first_few(wrong)]))
        if unseen:
            head = "no reply shows which request was struck, because the code works for several at a time"
            way_out = "if the app retries and succeeds, use assert_fallback(..., or_golden=True)"
            raise Inconclusive("\n  ".join([head, *_first_few(unseen), way_out]))

    def _is_golden(self, place: int) -> bool:
        return self._load._compared.difference(place, self._load.replies[place]) is None


class _Excused:
    """Find the replies that may be the fallback although no fault struck them."""

    def __init__(self, load: Load, fallback: Any, within: Any) -> None:
        self.declared = fallback is not _ABSENT
        if within is not None and not self.declared:
            raise BadArgument("assert_isolated: within= limits or_fallback=. Give or_fallback= too")
        self._load = load
        self._fallback = fallback
        self._grace = None if within is None else parse_duration(within, "within")

    def by_fallback(self, place: int) -> bool:
        """Return True if a reply is the fallback and came after a strike, in time."""
        reply = self._load.replies[place]
        struck = [
            other
            for other in self._load.replies
            if other.fault_ended is not None and other.start <= reply.start
        ]
        if not self.declared or not struck:
            return False
        ended = max(other.fault_ended or 0.0 for other in struck)
        return (self._grace is None or reply.start <= ended + self._grace) and self._is_fallback(
            reply
        )

    def _is_fallback(self, reply: Reply) -> bool:
        fallback = self._fallback
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


class _Isolation:
    """Judge for ``assert_isolated`` the replies that differ from the golden run's."""

    def __init__(
        self,
        load: Load,
        bystanders: Sequence[int],
        wrong: Mapping[int, str],
        *,
        shared: bool,
        fallback: bool,
    ) -> None:
        self._load = load
        self._bystanders = bystanders
        self._wrong = wrong
        self._shared = shared
        self._fallback = fallback

    def judge(self) -> None:
        """Raise ``NotIsolated`` or ``Inconclusive`` if one is due."""
        replies = self._load.replies
        left = [place for place in self._wrong if place not in self._hit()]
        early = [place for place in left if self._is_before_all_faults(replies[place])]
        blamed = [place for place in left if place not in early]
        if not left:
            return
        lines = [
            *_first_few([self._wrong[place] for place in blamed or early]),
            *self._load._remarks(),
        ]
        if not blamed:
            head = (
                "the golden run is not reliable, because the app cannot be reset. "
                "These replies differ from it, and were given before any fault"
            )
            raise Inconclusive(
                "\n  ".join(
                    [
                        head,
                        *lines,
                        "create the app inside the test, or compare what matters with by=",
                    ]
                )
            )
        suspicions = [one for place in blamed for one in replies[place].suspicions]
        said = list(dict.fromkeys(f"{one.strike} hit {one}" for one in suspicions))
        if all(replies[place].suspicions for place in blamed) and not all(
            map(self._has_one_visit_each, suspicions)
        ):
            head = f"more replies differ from the golden run than there were strikes: {len(self._wrong)}"
            shared = "if a batch shares that work and may fail as a whole, use assert_isolated(by='batch')"
            raise Inconclusive("\n  ".join([head, *lines, *_first_few(said), shared]))
        head = f"different from the golden run: {len(blamed)} of {len(self._bystanders)} replies during which no fault struck"
        way_out = [] if self._fallback else [WAY_OUT]
        raise NotIsolated("\n  ".join([head, *lines, *_first_few(said), *way_out]))

    def _hit(self) -> set[int]:
        """Return as many of the differing replies as strikes may have hit.

        Each strike may have hit one of the requests in flight, or all of them in a batch.
        """
        strikes: dict[int, list[int]] = {}
        for place in self._wrong:
            for one in self._load.replies[place].suspicions:
                strikes.setdefault(id(one), []).append(place)
        if self._shared:
            return {place for places in strikes.values() for place in places}
        taken: dict[int, int] = {}  # for each reply, the strike that it is attributed to

        def placed(strike: int, tried: set[int]) -> bool:
            for place in strikes[strike]:
                if place not in tried:
                    tried.add(place)
                    if place not in taken or placed(taken[place], tried):
                        taken[place] = strike
                        return True
            return False

        for strike in strikes:
            placed(strike, set())
        return set(taken)

    def _is_before_all_faults(self, reply: Reply) -> bool:
        """Return True if a reply was complete before any fault struck, so no fault can have harmed
        it.
        """
        struck = [other.number for other in self._load.replies if other.faults or other.suspicions]
        first = min(struck, default=None)
        if first is None:
            return False
        begun = next(other.start for other in self._load.replies if other.number == first)
        return reply.number < first and reply.start + reply.latency <= begun

    def _has_one_visit_each(self, suspicion: Suspicion) -> bool:
        """Return True if the golden load visited the site at least once per request.

        Then a strike there belongs to one request.
        """
        return self._load._compared.visits(suspicion.key) >= len(self._load.replies)


def _find_missed(replies: Sequence[Reply], slo: Bounds) -> list[str]:
    return slo.missed([reply.latency for reply in replies], sum(not reply.ok for reply in replies))


def _recovery(after: Sequence[Reply], ended: float, slo: Bounds) -> str:
    """Describe from when on the SLO held."""
    holds = next(
        (reply for place, reply in enumerate(after) if not _find_missed(after[place:], slo)), None
    )
    return (
        "it never held again"
        if holds is None
        else f"it held {seconds(holds.start - ended)} after it, from {holds} on"
    )


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


def _first_few(lines: list[str]) -> list[str]:
    return [
        *lines[:SHOWN_LINES],
        *([f"... and {len(lines) - SHOWN_LINES} more"] if len(lines) > SHOWN_LINES else []),
    ]
