"""Judge that a fault changes only the replies that it struck."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ...core.replies import Reply, Suspicion
from ...core.validation import TOLERANCE, check_arguments, format_value, parse_duration
from ...errors import BadArgument, Inconclusive, NotIsolated
from ..bounds import Bounds, seconds
from ..golden_load import GoldenLoad, GoldenReplies
from .fallbacks import matches_fallback
from .load_result import ABSENT, LoadResult, first_few, has_left
from .service_level import judge_bounds

__all__ = ["IsolationVerdicts"]

WAY_OUT = "if this is the app's fallback while a circuit breaker is open, use assert_isolated(or_fallback=..., within=...)"


class IsolationVerdicts(LoadResult):
    """Judge the replies that no fault struck."""

    @check_arguments("assert_isolated", rtol=TOLERANCE, atol=TOLERANCE)
    def assert_isolated(
        self,
        *,
        by: Callable[[Reply], Any] | Literal["batch"] | None = None,
        rtol: float = 0.0,
        atol: float = 0.0,
        or_fallback: Any = ABSENT,
        within: Any = None,
        tenant: Callable[[Reply], Any] | None = None,
    ) -> None:
        """Raise ``NotIsolated`` if the faults changed a reply that they did not strike.

        Replies that no fault struck must equal the golden run's: by status, the type of an
        exception, and body (JSON is compared entry by entry) or value. Headers, and what two golden
        loads do not have in common (times, request ids), are not compared. A strike in code that
        works for several requests (a batching worker) may have hit any request in flight: as many
        of these may differ as there were strikes. Companions of the load must be answered as in the
        golden run, too.

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
            tenant: A function of the reply that returns its tenant. Only tenants are judged of whose
                requests no fault struck any.

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
        bystanders = [
            place
            for place, reply in enumerate(self.replies)
            if not reply.faults and not has_left(reply)
        ]
        if tenant is not None:
            struck = [tenant(reply) for reply in self.replies if reply.faults]
            bystanders = [
                place for place in bystanders if tenant(self.replies[place]) not in struck
            ]
        self._check_companions()
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

    @property
    def companions(self) -> tuple[Reply, ...]:
        """Return the replies to the companions, in the order in which they were sent."""
        return tuple(self._evidence.companions)

    def assert_companions(self, **bounds: object) -> None:
        """Raise ``NotIsolated`` unless the companions of the load are answered well.

        Their replies before, during and after the faults must equal those of the golden run.

        Args:
            **bounds: Bounds on their latencies and errors, as for ``assert_slo``.

        Raises:
            NotIsolated: A companion is answered differently, late, or with an error.
            BadArgument: The load has no companions: ``drive(companions=["/health"])``.
        """
        if not self.companions:
            raise BadArgument(
                "assert_companions: the load has no companions. Give some: "
                'drive(..., companions=["/health"])'
            )
        self._compare_under_faults("assert_companions")
        struck = any(
            reply.faults or reply.suspicions for reply in (*self.replies, *self.companions)
        )
        self._is_judged("assert_companions", struck or bool(self._between))
        self._check_companions()
        missed = judge_bounds(self.companions, Bounds(bounds)).missed if bounds else []
        if missed:
            slowest = max(self.companions, key=lambda reply: reply.latency)
            head = f"the companions miss their bounds, over {len(self.companions)} replies:"
            shown = f"slowest: {slowest}, {slowest.outcome}, {seconds(slowest.latency)}"
            raise NotIsolated("\n  ".join([head, *missed, shown]))

    def _check_companions(self) -> None:
        """Raise ``NotIsolated`` if a fault changed a companion that it did not strike."""
        if not self.companions or self._golden is None:
            return
        wrong = []
        for place, reply in enumerate(self.companions):
            difference = None if reply.faults else self._accompanied.difference(place, reply)
            if difference:
                wrong.append(f"{reply}: {difference}")
        if wrong:
            head = (
                f"different from the golden run: {len(wrong)} of {len(self.companions)} companions"
            )
            raise NotIsolated("\n  ".join([head, *first_few(wrong)]))

    @functools.cached_property
    def _accompanied(self) -> GoldenReplies:
        golden = self._golden
        assert golden is not None
        return GoldenReplies(lambda time: GoldenLoad(golden(time).companions, {}))


class _Excused:
    """Find the replies that may be the fallback although no fault struck them."""

    def __init__(self, load: LoadResult, fallback: Any, within: Any) -> None:
        self.declared = fallback is not ABSENT
        if within is not None and not self.declared:
            raise BadArgument("assert_isolated: within= limits or_fallback=. Give or_fallback= too")
        self._load = load
        self._fallback = fallback
        self._grace = None if within is None else parse_duration(within, "within")

    def by_fallback(self, place: int) -> bool:
        """Return True if a reply is the fallback and came after a strike, in time."""
        reply = self._load.replies[place]
        ends = [ended for begun, ended in self._load._strike_times if begun <= reply.start]
        if not self.declared or not ends:
            return False
        in_time = self._grace is None or reply.start <= max(ends) + self._grace
        return in_time and matches_fallback(reply, self._fallback)


class _Isolation:
    """Judge for ``assert_isolated`` the replies that differ from the golden run's."""

    def __init__(
        self,
        load: LoadResult,
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
            *first_few([self._wrong[place] for place in blamed or early]),
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
            raise Inconclusive("\n  ".join([head, *lines, *first_few(said), shared]))
        head = f"different from the golden run: {len(blamed)} of {len(self._bystanders)} replies during which no fault struck"
        way_out = [] if self._fallback else [WAY_OUT]
        raise NotIsolated("\n  ".join([head, *lines, *first_few(said), *way_out]))

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
