"""Judge an app under more load than it can serve."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from ...core.replies import Reply
from ...core.validation import WHOLE, check_arguments, format_value, optional, parse_duration
from ...errors import BadArgument, Inconclusive, NotShed, QueueGrows
from ..bounds import Bounds, seconds
from .load_result import LoadResult, first_few
from .service_level import judge_bounds

__all__ = ["OverloadVerdicts"]

REFUSALS = (429, 503)
"""Too Many Requests, and Service Unavailable (RFC 6585 and RFC 9110)."""
FEWEST = 20
"""Fewer requests than this show no trend."""
ROUNDING = 1e-3
"""Seconds by which two times may differ that are the same moment. A loop's turns take a little."""
LINEAR, SLOW = (1.5, 1.3, 1.2), (1.1, 1.1, 1.1)
"""The least growth from one quarter of the load to the next that looks like growth without bound.

Under a constant overload, the medians of the quarters are as 1 to 3 to 5 to 7.
"""
SURE = 3.0
"""By chance, a queue whose servers just keep up grows by less than this many standard deviations."""


class OverloadVerdicts(LoadResult):
    """Judge refusals, and what waits in the app."""

    def assert_sheds_load(
        self,
        *,
        refused: int | Collection[int] = REFUSALS,
        within: object = None,
        **bounds: object,
    ) -> None:
        """Raise ``NotShed`` unless the app refuses what it cannot serve, early, and serves the rest.

        Some requests must be refused, not kept until their clients lose patience. No refusal may
        take longer than the slowest reply that is not one, and there may not be ever more requests
        in the app, nor in the part of the load that ``overload`` strikes.

        Args:
            refused: The statuses that refuse a request. If a callable is served, an exception
                refuses it.
            within: The time limit for a refusal: seconds or ``"50ms"``, on the trial's clock.
            **bounds: Bounds for the requests that were not refused, as for ``assert_slo``.

        Raises:
            NotShed: The app refuses nothing, refuses late, or serves too slowly.
            Inconclusive: A growth may be chance.
            BadArgument: The app was not overloaded in this load.
        """
        statuses = {refused} if isinstance(refused, int) else set(refused)
        limit = None if within is None else parse_duration(within, "within")
        slo = Bounds(bounds) if bounds else None
        turned_away = [reply for reply in self._counted if _is_refusal(reply, statuses)]
        served = [reply for reply in self._counted if not _is_refusal(reply, statuses)]
        impatient = [reply for reply in served if not reply.ok and reply.left is not None]
        growth = _growth(self.replies)
        if not turned_away and not growth.is_sure:
            during = _growth_during_overload(self.replies)
            growth = during if during.text else growth
        if not turned_away and not impatient and growth.text and not growth.is_sure:
            raise Inconclusive(
                f"assert_sheds_load: no request was refused, and {growth.text}, which may be chance. "
                f"Drive more requests"
            )
        if not turned_away and not impatient and not growth.text:
            self._need(
                "assert_sheds_load",
                False,
                "no request was refused, and not ever more of them were in the app, so it was not overloaded. "
                "Drive more requests at a higher rate=",
            )
            return
        self._judged("assert_sheds_load", True)
        wrong = _late(turned_away, served, limit)
        if growth.is_sure:
            wrong.append(growth.text)
        if slo is not None and served:
            wrong += judge_bounds(served, slo).missed
        if not turned_away:
            lost = f", and {len(impatient)} clients lost their patience" if impatient else ""
            wrong.insert(0, f"none of {len(served)} requests was refused{lost}")
        if wrong:
            raise NotShed("\n  ".join(["the app does not shed load:", *wrong]))

    @check_arguments("assert_bounded_queue", at_most=optional(WHOLE))
    def assert_bounded_queue(self, *, at_most: int | None = None, of: Any = None) -> None:
        """Raise ``QueueGrows`` unless the number of requests in the app stays bounded.

        Args:
            at_most: The largest number of requests that may be in the app at the same time: those
                that wait, and those that are served. Without it, the number may not grow from each
                quarter of the load to the next.
            of: A ``Capacity``, whose largest queue is judged instead, with ``at_most``.

        Raises:
            QueueGrows: More requests were in the app, or ever more.
            Inconclusive: A growth may be chance.
            BadArgument: There are too few requests to show a trend.

        Fidelity: requests that wait for a place of ``drive(concurrency=...)`` count as in the app.
        """
        if of is not None:
            return _judge_capacity(of, at_most)
        waiting = _in_flight(self.replies)
        most = max(number for _, number in waiting)
        if at_most is not None and most > at_most:
            first = next(reply for reply, number in waiting if number > at_most)
            raise QueueGrows(
                f"{most} requests were in the app at the same time, more than {at_most}. The first "
                f"too many is {first}"
            )
        if at_most is None and len(waiting) < FEWEST:
            raise BadArgument(
                f"assert_bounded_queue: {len(waiting)} requests show no trend. Drive {FEWEST} or "
                f"more, or give at_most="
            )
        growth = _growth(self.replies)
        if at_most is None and growth.is_sure:
            raise QueueGrows(growth.text)
        if at_most is None and growth.text:
            raise Inconclusive(
                f"assert_bounded_queue: {growth.text}, which may be chance. Drive more requests, or "
                f"give at_most="
            )
        return None


def _judge_capacity(capacity: Any, at_most: int | None) -> None:
    most = getattr(capacity, "max_queue", None)
    if not isinstance(most, int) or at_most is None:
        raise BadArgument(
            "assert_bounded_queue: of must be what mlchaos.capacity(...) returned, with at_most=, "
            f"got {format_value(capacity)}"
        )
    if most > at_most:
        raise QueueGrows(f"{most} calls waited at the same time, more than {at_most}")


def _is_refusal(reply: Reply, statuses: Collection[int]) -> bool:
    return reply.status in statuses or (reply.status is None and reply.error is not None)


def _late(refused: Sequence[Reply], served: Sequence[Reply], limit: float | None) -> list[str]:
    """Describe the refusals that came late."""
    if limit is None:
        limit = max((reply.latency for reply in served if reply.ok), default=None)
    late = [reply for reply in refused if limit is not None and reply.latency > limit]
    return first_few(
        [
            f"{reply} was refused after {seconds(reply.latency)}, later than {seconds(limit or 0)}"
            for reply in late
        ]
    )


def _by_arrival(replies: Sequence[Reply]) -> list[Reply]:
    return sorted(replies, key=lambda reply: reply.start)


def _in_flight(replies: Sequence[Reply]) -> list[tuple[Reply, int]]:
    """Return each request with the number in the app when it arrived, itself included.

    A request that is answered at once does not wait.
    """
    ends = sorted(map(_end, replies))
    over, found = 0, []
    for arrived, reply in enumerate(_by_arrival(replies), 1):
        while over < len(ends) and ends[over] <= reply.start + ROUNDING:
            over += 1
        # Those that arrived and ended at this very moment are among both.
        found.append((reply, max(0, arrived - over)))
    return found


def _end(reply: Reply) -> float:
    """Return when the app was done with a request, also if its client had left before."""
    over = reply.latency if reply.left is None or reply.ended is None else reply.ended
    return reply.start + over


class _Growth(NamedTuple):
    """A growth of the number of requests in the app, in words, and if it cannot be chance."""

    text: str = ""
    is_sure: bool = False


def _growth_during_overload(replies: Sequence[Reply]) -> _Growth:
    """Compare the quarters of the part of the load in which copies of requests arrived, too."""
    copies = {
        reply.number: strike.details["copies"]
        for reply in replies
        for strike in reply.faults
        if "copies" in strike.details
    }
    struck = [reply for reply in replies if reply.number in copies]
    return _growth(struck, 1 + statistics.mean(copies.values())) if struck else _Growth()


def _growth(replies: Sequence[Reply], each: float = 1.0) -> _Growth:
    """Compare the number of requests in the app between the quarters of the load.

    Each reply stands for ``each`` requests that arrived together.

    The queue of servers that just keep up is a random walk: after n arrivals at random, its standard
    deviation is about the root of 2n.
    """
    numbers = [each * number for _, number in _in_flight(replies)]
    if len(numbers) < FEWEST:
        return _Growth()
    size = len(numbers) / 4
    medians = [
        statistics.median(numbers[round(place * size) : round((place + 1) * size)])
        for place in range(4)
    ]
    steps = list(itertools.pairwise(medians))
    slow, linear = (
        all(after > factor * before for (before, after), factor in zip(steps, least, strict=True))
        for least in (SLOW, LINEAR)
    )
    is_sure = slow and medians[3] - medians[0] > SURE * math.sqrt(2 * each * len(numbers))
    if not is_sure and not linear:
        return _Growth()
    where = "load" if each == 1 else "overload"
    shown = f"{', '.join(f'{one:g}' for one in medians[:3])} and {medians[3]:g}"
    return _Growth(
        f"the number of requests in the app grew from quarter to quarter of the {where}: {shown} "
        f"(medians)",
        is_sure,
    )
