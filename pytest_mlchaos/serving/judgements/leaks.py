"""Judge what an app still holds after a load."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Collection, Iterator

from ...errors import BadArgument, Inconclusive, NotReleased
from ..golden_load import OWN_CALL, Gauge, GoldenLoad, Holdings
from .load_result import LoadResult, first_few

__all__ = ["LeakVerdicts"]

FEWEST = 5
"""Fewer requests than this do not show that something grows with each request."""
FEWEST_RESTS = {"size": 3, "number": 4}
"""Fewer moments of rest do not show that a size or number always returns to where it was.

Two of them are before the first request, and one is after the last.
"""


class LeakVerdicts(LoadResult):
    """Judge tasks, threads, sockets, slots, and entries of containers."""

    def assert_no_leak(self, *, ignore: str | Collection[str] = ()) -> None:
        """Raise ``NotReleased`` if the app holds more after the load than it needs.

        These leak: a semaphore, lock or limiter that is not released, and a number that counts free
        slots or requests. An entry of a container that the golden run always removes before the
        next request. A task that waits for something that no timer brings, and that the golden run
        does not leave. A thread, a socket or a file that stays open with each request that a fault
        strikes. What grows with each request in the golden run leaks, too. A cache or a pool that
        warms up does not.

        Args:
            ignore: Names of tasks, of kinds (``"thread"``, ``"socket"``) or of values
                (``"mod.cache"``) that do not leak. A text that is part of the name is enough.

        Raises:
            NotReleased: Something leaks. The message names it, and where it stands.
            Inconclusive: There is one more of something that may be needed: a connection that is
                opened again, an entry for a later attempt, a number. Or a call still runs.
            BadArgument: No fault struck, and there are too few requests.

        Fidelity: memory of C code and of other processes is not seen, nor what only a running
        function reaches. Threads, sockets and files are judged in loads of one request after
        another. So are numbers, and containers that are not empty at rest. A number must move
        while the app waits.
        """
        ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        held, golden = self._evidence.holdings, self._golden_load
        if held is None or golden.holdings is None:
            raise BadArgument(
                "assert_no_leak: the app must run in the test's own process, and the assertion must "
                "be in the test function itself or in a function of its module, because what the app "
                "holds is noted while it runs"
            )
        struck = sum(len(reply.faults) or bool(reply.suspicions) for reply in self.replies)
        left = [reply for reply in self.replies if reply.left is not None]
        self._need(
            "assert_no_leak",
            bool(struck or left) or len(self.replies) >= FEWEST,
            f"no fault struck while these {len(self.replies)} requests were handled, and fewer than "
            f"{FEWEST} show no growth. Drive more requests",
        )
        leaked, doubtful = list(self._for_each_request(held, golden)), list[str]()
        for grown, line in self._gauges(held, golden):
            is_certain = grown is None or (left and grown > 0) or grown >= struck > 1
            (leaked if is_certain else doubtful).append(line)
        extra = dict(_more(held, golden.holdings))
        running = sum(reply.ended is None and not reply.remote for reply in left)
        stuck = extra.pop(OWN_CALL, 0)
        if stuck:
            leaked.append(_waiting(OWN_CALL, stuck, held))
        certain = {name for name in extra if left}
        certain |= {name for name, number in extra.items() if number >= struck > 1}
        leaked += [_waiting(name, extra[name], held) for name in extra if name in certain]
        doubtful += [_waiting(name, extra[name], held) for name in extra if name not in certain]
        for is_certain, line in self._resources_of(held):
            (leaked if is_certain else doubtful).append(line)
        leaked, doubtful = (
            [one for one in lines if not any(name in one for name in ignored)]
            for lines in (leaked, doubtful)
        )
        if running > stuck:
            raise Inconclusive(
                f"assert_no_leak: {running} calls whose clients have left still run, so what they "
                f"hold may be released. Give drive(linger=...) a longer time"
            )
        if leaked:
            raise NotReleased("\n  ".join(["not released after the load:", *first_few(leaked)]))
        if doubtful:
            head = "assert_no_leak: something is left that may be needed:"
            way_out = "let the fault strike more often to see if it grows, or give ignore="
            raise Inconclusive("\n  ".join([head, *first_few(doubtful), way_out]))

    def _gauges(self, held: Holdings, golden: GoldenLoad) -> Iterator[tuple[int | None, str]]:
        """Yield the semaphores and containers that leak.

        Each has the number of entries, or None if it is certain to leak: an app may keep an entry
        to try again later, but no slot.
        """
        assert golden.holdings is not None
        for name, gauge in held.gauges.items():
            usual = golden.holdings.gauges.get(name)
            if usual is None or usual.before != gauge.before:
                continue
            more = gauge.after - usual.after
            if gauge.kind == "slots" and more < 0 and gauge.after < gauge.before:
                which = f"{-more} of {gauge.before} " if gauge.before > 1 else ""
                yield None, f"{name}: {which}not released"
                continue
            grown = _growth(gauge.kind, more, usual)
            if grown is not None and _always_returns(usual):
                what = "entries" if gauge.kind == "size" else "its value"
                yield (
                    grown,
                    f"{name}: {what} {gauge.after} instead of {gauge.before}, to which it returns "
                    f"after each request of the golden run",
                )

    def _for_each_request(self, held: Holdings, golden: GoldenLoad) -> Iterator[str]:
        """Describe what grows with each request, also without faults."""
        assert golden.holdings is not None
        number = len(self.replies)
        if number < FEWEST:
            return
        for name, count in held.tasks.items():
            if count >= number and golden.holdings.tasks.get(name, 0) >= number:
                yield f"{_waiting(name, count, held)}: one for each request"
        grown = [_names_grown(one, number) for one in (held, golden.holdings)]
        for name in grown[0]:
            if all(len(each[name]) == number for each in grown):
                yield f"{number} {name}: one for each request"

    def _resources_of(self, held: Holdings) -> Iterator[tuple[bool, str]]:
        """Yield what stays open after struck requests, and True if it is certain to leak."""
        struck = [
            place
            for place, reply in enumerate(self.replies)
            if reply.faults or reply.suspicions or reply.left is not None
        ]
        for name, places in _names_grown(held, len(self.replies)).items():
            with_strike = [place for place in struck if place in places]
            others = [place for place in places if place and place not in struck]
            if others or not with_strike:
                continue  # it also grows without a strike, as a pool does
            if len(struck) > 1 and with_strike == struck:
                yield True, f"{len(struck)} {name}: one for each request that was struck"
            elif with_strike[0]:
                yield False, f"{len(with_strike)} {name}, since {self.replies[with_strike[0]]}"


def _growth(kind: str, more: int, usual: Gauge) -> int | None:
    """Return the number of entries, or of requests that a number counts. None for no growth.

    A number counts the requests in the app, or the free slots, if each request of the golden run
    has moved it by the same step. 0 says that something else is left.
    """
    if kind == "size":
        return more if more > 0 else None
    if kind != "number" or not more:
        return None
    (step, *others) = usual.steps or {0}
    if others or not step:
        return 0 if more > 0 else None
    return more // step if more % step == 0 and more // step > 0 else None


def _always_returns(gauge: Gauge) -> bool:
    """Return True if a number changes while the app works, and is always back when it rests."""
    is_empty = gauge.kind == "size" and gauge.before == 0
    return (
        gauge.moved
        and set(gauge.rests) == {gauge.before}
        and (is_empty or len(gauge.rests) >= FEWEST_RESTS[gauge.kind])
    )


def _names_grown(held: Holdings, number: int) -> collections.defaultdict[str, list[int]]:
    """Return the kinds of resources that requests have left open, with the places of the requests.

    Return none if the app did not rest before each of the requests.
    """
    grown = collections.defaultdict[str, list[int]](list)
    if len(held.resources) != number + 1:
        return grown
    for place, (before, after) in enumerate(itertools.pairwise(held.resources)):
        more = collections.Counter(after.values()) - collections.Counter(before.values())
        for name in more:
            grown[name].append(place)
    return grown


def _more(held: Holdings, golden: Holdings) -> Iterator[tuple[str, int]]:
    """Yield the tasks of which there are more than after the golden run."""
    for name, number in held.tasks.items():
        if number > golden.tasks.get(name, 0):
            yield name, number - golden.tasks.get(name, 0)


def _waiting(name: str, number: int, held: Holdings) -> str:
    place = held.places.get(name)
    return f"{number} {'' if name == OWN_CALL else 'task '}{name}" + (
        f", which waits in {place}" if place else ""
    )
