"""Judge a service of several replicas: available, nothing lost or doubled, sessions, one leader."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...core.replies import Reply
from ...core.sites import CALL
from ...core.validation import CALLABLE, FLAG, check_arguments, format_value, is_real, optional
from ...errors import (
    BadArgument,
    Inconclusive,
    NotExactlyOnce,
    RequestLost,
    SessionLost,
    SplitBrain,
    TooManyCalls,
    Unavailable,
)
from .load_result import LoadResult, first_few, has_left

__all__ = ["FailoverVerdicts"]

KeyOf = Callable[[Reply], Any]


class FailoverVerdicts(LoadResult):
    """Judge a balancer and its replicas."""

    def assert_available(
        self, *, at_least: float, during: float | None = None, after: float | None = None
    ) -> None:
        """Raise ``Unavailable`` unless enough requests got a good answer.

        A request whose client left does not count.

        Args:
            at_least: The smallest share of all requests, for example 0.99.
            during: The smallest share of the requests that arrived between the first strike and the
                end of the last fault. Without it, they are judged with the others alone.
            after: The same for those that arrived after the end of the last fault.

        Raises:
            Unavailable: A share is smaller.
            BadArgument: No request arrived in that time (if schedules are searched, in none of
                them).
        """
        phases = {
            "at_least": ("in the whole load", self._counted),
            "during": ("during the fault", self._arrived(before_end=True)),
            "after": ("after the fault", self._arrived(before_end=False)),
        }
        wanted = {"at_least": at_least, "during": during, "after": after}
        low: dict[str, str] = {}
        for name, bound in wanted.items():
            if bound is None:
                continue
            _check_share(name, bound)
            words, replies = phases[name]
            self._judged("assert_available", bool(replies))
            if not replies:
                if not self._strict():  # a search tries late visits, too
                    continue
                raise BadArgument(
                    f"assert_available: {name}= needs a request {words}, and none arrived. Drive "
                    f"more requests, or give rate="
                )
            if _share(replies) < bound:
                low[name] = f"{words} it is {_share_text(replies)}, expected at least {bound:.4g}"
        if not low:
            return
        known = [
            f"{words}: {_share_text(replies)}"
            for name, (words, replies) in phases.items()
            if replies and name not in low
        ]
        failed = [f"{one}: {one.outcome}" for one in self._counted if not one.ok]
        lines = [*low.values(), *known, *first_few(failed)]
        raise Unavailable("\n  ".join(["the service was not available enough:", *lines]))

    def _arrived(self, *, before_end: bool) -> list[Reply]:
        """Return the replies to requests that arrived during the faults, or after them."""
        ended = self._fault_ended
        if ended is None:
            return []
        if not before_end:
            return [reply for reply in self._counted if reply.start >= ended]
        begun = min(start for start, _ in self._strike_times)
        return [
            reply
            for reply in self._counted
            if begun <= reply.start < ended or reply.faults or reply.suspicions
        ]

    @check_arguments("assert_no_request_lost", or_error=FLAG, key=optional(CALLABLE))
    def assert_no_request_lost(
        self, *, or_error: bool = False, effects: Any = None, key: KeyOf | None = None
    ) -> None:
        """Raise ``RequestLost`` unless each request got a good answer, and its effect took place
        once.

        A request that fails without faults, too, is not lost. A request whose client left needs no
        answer.

        Args:
            or_error: If true, an error is an answer, too: the client knows that it must ask again.
            effects: What the requests did: the keys of all effects, or a function that returns
                them, for example ``lambda: [row.id for row in store.rows]``. A request with a good
                answer took effect exactly once. Another one took effect at most once.
            key: A function of the reply that returns the key of its effect. Without it, the request
                as it was given.

        Raises:
            RequestLost: A request got no good answer.
            NotExactlyOnce: An effect is missing, or took place more often.
        """
        if effects is None and key is not None:
            raise BadArgument("assert_no_request_lost: key= needs effects=. Give the keys of both")
        self._compare_under_faults("assert_no_request_lost")
        if effects is not None:
            done = list(effects() if callable(effects) else effects)
            self._check_effects(done, key or (lambda reply: reply.request))
        if or_error:
            return
        failed = [
            (place, reply)
            for place, reply in enumerate(self.replies)
            if not has_left(reply) and not reply.ok
        ]
        lost = [f"{one}: {one.outcome}" for place, one in failed if self._compared.reply(place).ok]
        if lost:
            head = f"lost: {len(lost)} of {len(self.replies)} requests got no good answer"
            way_out = "if an error is a proper answer here, use assert_no_request_lost(or_error=True, effects=...)"
            raise RequestLost("\n  ".join([head, *first_few(lost), way_out]))

    def _check_effects(self, done: Sequence[Any], key: KeyOf) -> None:
        requests: dict[Any, list[Reply]] = {}
        for reply in self.replies:
            requests.setdefault(_hashable(key(reply)), []).append(reply)
        counts = collections.Counter(map(_hashable, done))
        if counts and not any(one in requests for one in counts):
            raise BadArgument(
                f"assert_no_request_lost: effects= and key= must name the same things, got "
                f"{format_value(done[0])} for an effect, which is the key of no request"
            )
        wrong = []
        for one, replies in requests.items():
            least = sum(reply.ok and not has_left(reply) for reply in replies)
            count = counts[one]
            if not least <= count <= len(replies):
                times = f"{count} time{'' if count == 1 else 's'}"
                which = next((reply for reply in replies if reply.ok), replies[0])
                wrong.append(f"{which} took effect {times}, and its answer is {which.outcome}")
        if wrong:
            head = f"not exactly once: the effects of {len(wrong)} of {len(requests)} requests"
            raise NotExactlyOnce("\n  ".join([head, *first_few(wrong)]))

    @check_arguments("assert_sessions_kept", session=CALLABLE, state=optional(CALLABLE))
    def assert_sessions_kept(self, session: KeyOf, state: KeyOf | None = None) -> None:
        """Raise ``SessionLost`` if a session goes on with a state that is not its own.

        The good answers of each session must equal those of the golden load. After a request that
        failed, the session is not judged any more, because its state is unknown.

        Args:
            session: A function of the reply that returns the session's key, or None for none.
            state: A function of the reply that returns what must be kept. Without it, the value or
                the body.

        Raises:
            SessionLost: An answer differs.
            Inconclusive: All sessions begin with a failed request.
            BadArgument: No reply belongs to a session.
        """
        self._compare_under_faults("assert_sessions_kept")
        over: set[Any] = set()
        seen: set[Any] = set()
        wrong, judged = [], 0
        for place, reply in enumerate(self.replies):
            name = session(reply)
            if name is None:
                continue
            name = _hashable(name)
            seen.add(name)
            golden = self._compared.reply(place)
            if not reply.ok or has_left(reply) or not golden.ok:
                over.add(name)
            if name in over:
                continue
            judged += 1
            difference = self._compared.difference(place, reply, by=state)
            if difference:
                wrong.append(f"{reply}: {difference}")
                over.add(name)
        if not seen:
            raise BadArgument(
                "assert_sessions_kept: session must return the key of a session, got None for all "
                "replies"
            )
        if wrong:
            head = f"sessions that are not kept: {len(wrong)} of {len(seen)}. Their first wrong answers:"
            raise SessionLost("\n  ".join([head, *first_few(wrong), *self._remarks()]))
        if not judged:
            raise Inconclusive(
                f"assert_sessions_kept: a request of each of the {len(seen)} sessions failed before "
                f"its first good answer, so no state can be compared. Drive more requests"
            )

    def assert_amplification(self, target: str | Iterable[str], *, at_most: float = 1.5) -> None:
        """Raise ``TooManyCalls`` if faults multiply the calls of a replica or a dependency.

        The calls during this load are compared with those of the golden load. So hedging, retries
        and health checks that go on in every load do not count as amplification.

        Args:
            target: The function, for example ``"pkg.mod:Replica.predict"``, or a list of functions
                whose calls are added up. Write it in the test as a text, as for ``assert_calls``.
            at_most: The largest ratio of the calls to those of the golden load.

        Raises:
            TooManyCalls: The ratio is higher.
            BadArgument: The golden load does not call the target.

        Fidelity: calls in processes that the app starts are not counted.
        """
        if not is_real(at_most) or at_most < 1:
            raise BadArgument(
                f"assert_amplification: at_most must be a number, 1 or more, got "
                f"{format_value(at_most)}"
            )
        self._compare_under_faults("assert_amplification")
        targets = [target] if isinstance(target, str) else list(target)
        for one in targets:
            self._calls_of(one, "assert_amplification")
        made = sum(self._evidence.visits.get((CALL, one), 0) for one in targets)
        usual = sum(self._compared.visits((CALL, one)) for one in targets)
        names = " and ".join(targets)
        if not usual:
            raise BadArgument(
                f"assert_amplification: target must be called in the golden load, and {names} is "
                f"not. Name a function that each request needs"
            )
        if made > at_most * usual:
            count = len(self.replies)
            raise TooManyCalls(
                f"faults multiply the calls of {names} by {made / usual:.3g}, expected at most "
                f"{at_most:g}: {made} calls for {count} requests, {usual} without faults"
            )

    @check_arguments("assert_no_split_brain", leader=CALLABLE, epoch=CALLABLE)
    def assert_no_split_brain(self, *, leader: KeyOf, epoch: KeyOf) -> None:
        """Raise ``SplitBrain`` if two leaders accept requests at the same time.

        An epoch (term, generation, fencing token) has one leader. No request that arrives after an
        answer of a newer epoch is accepted by a leader of an older one.

        Args:
            leader: A function of the reply that returns the node that accepted the request, or None
                if none did (a read).
            epoch: A function of the reply that returns the epoch in which it did, a number.

        Raises:
            SplitBrain: There were two leaders.
            BadArgument: No good reply names a leader and an epoch.
        """
        self._compare_under_faults("assert_no_split_brain")
        accepted = [
            (reply, leader(reply), epoch(reply))
            for reply in self._counted
            if reply.ok and leader(reply) is not None
        ]
        bad = next((one for one in accepted if not is_real(one[2])), None)
        if bad is not None or not accepted:
            got = "no such reply" if bad is None else f"{format_value(bad[2])} for {bad[0]}"
            raise BadArgument(
                f"assert_no_split_brain: leader= and epoch= must return a node and a number for a "
                f"good reply, got {got}"
            )
        wrong = [*_two_in_one_epoch(accepted), *_outdated(accepted)]
        if wrong:
            head = f"two leaders accepted requests: {len(wrong)} of {len(accepted)} replies"
            raise SplitBrain("\n  ".join([head, *first_few(wrong)]))


Accepted = Sequence[tuple[Reply, Any, float]]


def _two_in_one_epoch(accepted: Accepted) -> list[str]:
    first: dict[float, tuple[Any, Reply]] = {}
    found = []
    for reply, node, epoch in accepted:
        before = first.setdefault(epoch, (node, reply))
        if before[0] != node:
            found.append(f"{reply}: a different leader than for {before[1]}, in the same epoch")
    return found


def _outdated(accepted: Accepted) -> list[str]:
    """Describe replies of a leader whose successor had answered before they arrived."""
    found: list[str] = []
    answered = sorted(accepted, key=lambda one: _answered_at(one[0]))
    newest: tuple[Reply, Any, float] | None = None
    place = 0
    for reply, _, epoch in sorted(accepted, key=lambda one: one[0].start):
        while place < len(answered) and _answered_at(answered[place][0]) <= reply.start:
            if newest is None or answered[place][2] > newest[2]:
                newest = answered[place]
            place += 1
        if newest is not None and newest[2] > epoch:
            found.append(f"{reply}: an older epoch than {newest[0]}, which was answered before it")
    return found


def _answered_at(reply: Reply) -> float:
    return reply.start + reply.latency


def _share(replies: Sequence[Reply]) -> float:
    return sum(reply.ok for reply in replies) / len(replies)


def _share_text(replies: Sequence[Reply]) -> str:
    failed = sum(not reply.ok for reply in replies)
    return f"{_share(replies):.4g} ({failed} of {len(replies)} failed)"


def _check_share(name: str, value: object) -> None:
    if not is_real(value) or not 0 <= value <= 1:  # type: ignore[operator]
        raise BadArgument(
            f"assert_available: {name} must be a share from 0 to 1, got {format_value(value)}"
        )


def _hashable(value: Any) -> Any:
    """Return a value that is equal for equal lists and dicts, as a key."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), _hashable(one)) for name, one in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    if isinstance(value, (set, frozenset)):
        return frozenset(map(_hashable, value))
    return value
