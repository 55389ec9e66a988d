"""Define what all judgements of a load share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from ...core.entries import Entry, RecoveryTime, Requests, Timing
from ...core.journal import Strike
from ...core.replies import CallMade, Reply, Suspicion
from ...core.results import CallsResult
from ...core.sites import key_of
from ...core.validation import format_value
from ...errors import BadArgument
from ..bounds import quantile, seconds
from ..golden_load import GoldenLoad, GoldenReplies

__all__ = ["ABSENT", "LoadResult", "first_few", "has_left"]

SHOWN_LINES = 3
ABSENT: Any = object()
"""Stands for an argument that was not given, if None is a value."""


class LoadResult(CallsResult):
    """Hold the replies to one load, and compare them with the golden load."""

    def __init__(
        self,
        replies: Sequence[Reply],
        golden: Callable[[int], GoldenLoad] | None = None,
        between: Sequence[tuple[float, float]] = (),
        *,
        strict: Callable[[], bool] = bool,
        judged: Callable[[str, bool], None] = lambda who, judges: None,
        evidence: GoldenLoad | None = None,
    ) -> None:
        self.replies = tuple(replies)
        self._golden = golden
        self._between = tuple(between)
        """The begin and end of each strike while no request was in flight, also in start-up."""
        self._strict = strict
        self._judged = judged
        self._evidence = evidence or GoldenLoad(self.replies, {})

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
        yield from self._recovery_entries(number, is_virtual)

    def _recovery_entries(self, number: int, is_virtual: bool) -> Iterator[Entry]:
        """Yield the time to recovery, if the load had any time for it.

        The replies are not compared with the golden load, which may never be needed.
        """
        ended = self._fault_ended
        if ended is None or not any(reply.start >= ended for reply in self._counted):
            return
        took = self._recovered_after(ended, lambda place: self.replies[place].ok)
        if is_virtual:
            yield RecoveryTime(result=number, seconds=None if took is None else round(took, 4))
        elif took is not None:
            yield Timing(of="recovery", number=number, seconds=round(took, 4))

    def _recovered_after(self, ended: float, is_right: Callable[[int], bool]) -> float | None:
        """Return the seconds from the end of the faults to the arrival of the first request from
        which on all replies are right, or None.
        """
        since = None
        for place in sorted(range(len(self.replies)), key=lambda place: -self.replies[place].start):
            reply = self.replies[place]
            if has_left(reply):
                continue
            if reply.start < ended or not is_right(place):
                break
            since = reply.start
        return None if since is None else max(0.0, since - ended)

    def _about(self) -> str:
        return f"<Load of {len(self.replies)} replies, {self._errors} errors, p99 {seconds(self.latency(0.99))}, {len(self.faults)} faults>"

    @functools.cached_property
    def golden(self) -> Self:
        """Return the same load without faults.

        The app is started again for it, and receives all loads of this service once more, in order.
        Files, random numbers and memory (what your modules' names reach) are as they were when it
        was first served. An ASGI app is shut down before, so its service is over: call ``drive``
        before this. The memory of C code is not restored.
        """
        return self if self._golden is None else type(self)(self._golden(0).replies)

    @functools.cached_property
    def _compared(self) -> GoldenReplies:
        """Return the golden load, for comparisons. A golden load is compared with itself."""
        return GoldenReplies(self._golden or (lambda time: self._evidence))

    @functools.cached_property
    def _golden_load(self) -> GoldenLoad:
        """Return what the golden load shows. Its requests may all fail, unlike in a comparison."""
        return self._evidence if self._golden is None else self._golden(0)

    @property
    def faults(self) -> tuple[Strike, ...]:
        """Return the strikes while the requests were handled, request by request.

        One that struck several requests, as an outage does, is there once.
        """
        found = {id(strike): strike for reply in self.replies for strike in reply.faults}
        return tuple(found.values())

    def latency(self, q: float) -> float:
        """Return the nearest-rank ``q``-quantile (``0.99``) of all latencies, in seconds on the
        trial's clock.

        Failed requests count. Requests whose client left, or was slow, do not.
        """
        if isinstance(q, bool) or not isinstance(q, (int, float)) or not 0 <= q <= 1:
            raise BadArgument(
                f"latency: q must be a quantile from 0 to 1 such as 0.99, got {format_value(q)}"
            )
        return quantile([reply.latency for reply in self._counted] or [math.nan], q)

    @property
    def _errors(self) -> int:
        return sum(not reply.ok for reply in self._counted)

    @property
    def error_rate(self) -> float:
        """Return the share of requests that failed: they raised, or the reply counts as an error
        (see ``drive``).

        Requests whose client left do not count.
        """
        return self._errors / max(1, len(self._counted))

    @property
    def availability(self) -> float:
        """Return the share of requests that did not fail."""
        return 1 - self.error_rate

    @property
    def _fault_ended(self) -> float | None:
        """Return when the last fault ended, in seconds from the start of the load."""
        return max((ended for _, ended in self._strike_times), default=None)

    @property
    def _strike_times(self) -> list[tuple[float, float]]:
        """Return when each strike began (at the earliest) and ended."""
        struck = [
            (reply.start, reply.fault_ended)
            for reply in self.replies
            if reply.fault_ended is not None
        ]
        return [*struck, *self._between]

    def _remarks(self) -> list[str]:
        return [self._compared.remark] if self._compared.remark else []

    @property
    def _counted(self) -> list[Reply]:
        """Return the replies whose clients stayed, and took them at once.

        The latencies of the others are up to the clients.
        """
        return [
            reply
            for reply in self.replies
            if not has_left(reply) and not (reply.ok and reply.slowed)
        ]

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

    def _calls_of(self, target: str, who: str) -> Sequence[CallMade]:
        """Return the calls of a counted target. Raise ``BadArgument`` if it is not counted."""
        if not isinstance(target, str) or key_of(target) not in self._evidence.calls:
            raise BadArgument(
                f"{who}: the target must be a text in the test function, so that its calls are "
                f"recorded from the start, got {format_value(target)}"
            )
        key = key_of(target)
        if not self._evidence.calls[key] and not self._golden_load.calls.get(key):
            raise BadArgument(
                f"{who}: the target must be called in the test's own process, got "
                f"{format_value(target)}, which is never called, also not without faults"
            )
        return self._evidence.calls[key]

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

    def _need(self, who: str, judges: bool, why: str) -> None:
        """Raise ``BadArgument`` if there is nothing to judge, also in a test without faults.

        A search may still find it. A fault that never struck is reported after the trial.
        """
        self._judged(who, judges)
        handed = self._handed
        if not judges and (self._strict() or handed is None or handed.quiet or handed.decides):
            raise BadArgument(f"{who}: {why}")


def has_left(reply: Reply) -> bool:
    """Return True if the client left for reasons of its own before its reply was complete.

    One that lost its patience has been failed by the app.
    """
    return reply.ok and reply.left is not None


def first_few(lines: list[str]) -> list[str]:
    """Return the first lines, and the number of the others."""
    return [
        *lines[:SHOWN_LINES],
        *([f"... and {len(lines) - SHOWN_LINES} more"] if len(lines) > SHOWN_LINES else []),
    ]
