"""Judge what goes on in an app after a client has left."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...core.replies import CallMade, Reply
from ...core.sites import key_of
from ...core.validation import parse_duration
from ...errors import Inconclusive, WorkGoesOn
from ..bounds import seconds
from .load_result import LoadResult, first_few

__all__ = ["WorkVerdicts", "is_idle"]


class WorkVerdicts(LoadResult):
    """Judge work that nothing needs any more."""

    def assert_work_stops(self, *, within: object = "1s", of: str | None = None) -> None:
        """Raise ``WorkGoesOn`` unless the work for a request stops soon after its client has left.

        The app's own call must end, and so must each task that the request has started. Tasks that
        outlive their requests in the golden run as well are left out, such as a worker that the
        first request starts for all. So is a task while it may work for other requests in the app.
        Background work of the golden run after the response gets its time.

        Args:
            within: The time limit after the client has left: seconds or ``"1s"``, on the trial's
                clock.
            of: A function such as ``"pkg.mod:Model.step"``, or a site, that may not be called after
                that for a request whose client has left. Nor may it be called while no request is
                in the app, unless the golden run does so, too. Write it as a text in the test.

        Raises:
            WorkGoesOn: Some work goes on.
            Inconclusive: The load did not wait for as long as ``within``.
            BadArgument: No client has left, or the target is never called.

        Fidelity: work in other processes and in threads is seen by ``of`` alone.
        """
        limit = parse_duration(within, "within")
        calls = None if of is None else self._calls_of(of, "assert_work_stops")
        left = [reply for reply in self.replies if reply.left is not None]
        if not left:
            self._need(
                "assert_work_stops",
                False,
                f"no client left before it had its reply, in {len(self.replies)} requests. Let one "
                f"leave, for example with @chaos.client_disconnect",
            )
            return
        self._judged("assert_work_stops", True)
        if all(reply.remote for reply in left):
            raise Inconclusive(
                "assert_work_stops: the app is a process of its own, so its work after a client has "
                "left is not seen. Serve the app itself: mlchaos.serve(app)"
            )
        wrong = [line for reply in left if (line := self._own_work(reply, limit))]
        shared = {
            name_in(task)
            for reply in self._golden_replies
            for task in reply.outlived_by
            if reply.left is None
        }
        for reply in left:
            wrong += self._tasks_of(reply, limit, shared)
        if of is not None and calls is not None:
            wrong += self._calls_after(left, limit, of, calls)
        if wrong:
            head = f"work goes on {seconds(limit)} after the client has left:"
            raise WorkGoesOn("\n  ".join([head, *first_few(wrong)]))
        if any(reply.ended is None or reply.outlived_by for reply in left) and (
            limit > self._evidence.lingered
        ):
            raise Inconclusive(
                f"assert_work_stops: work still goes on, but the load waited only "
                f"{seconds(self._evidence.lingered)}. Give drive(linger=...) more than within"
            )

    @property
    def _golden_replies(self) -> Sequence[Reply]:
        return self._golden_load.replies

    def _own_work(self, reply: Reply, limit: float) -> str:
        """Describe the app's own call, if it goes on for too long. Return "" if it does not."""
        assert reply.left is not None
        golden = self._golden_load.replies[self.replies.index(reply)]
        tail = 0.0
        if golden.left is None and golden.ended is not None:
            tail = max(0.0, golden.ended - golden.latency)
        if reply.ended is None:
            waited = self._evidence.lingered
            return (
                f"{reply}: its call still runs, at {reply.still_at}"
                if limit + tail <= waited
                else ""
            )
        went_on = reply.ended - reply.left
        if went_on <= limit + tail:
            return ""
        return f"{reply}: its call went on for {seconds(went_on)}"

    def _tasks_of(self, reply: Reply, limit: float, shared: set[str]) -> list[str]:
        """Describe the tasks of a request that go on for too long."""
        assert reply.left is not None
        waited = limit <= self._evidence.lingered
        running = [(name_in(task), math.inf, f"still runs: {task}") for task in reply.outlived_by]
        ended = [
            (name, after, f"{name} went on for {seconds(after - reply.left)}")
            for name, after in reply.tasks_ended
        ]
        return [
            f"{reply}: its task {how}"
            for name, after, how in [*(running if waited else []), *ended]
            if name not in shared and self._is_own(reply, name, reply.start + after, limit)
        ]

    def _is_own(self, reply: Reply, name: str, until: float, limit: float) -> bool:
        """Return True if a task worked for no other request.

        Either it went on for longer than the limit while no other request was in the app. Or one
        that came in the meantime started such a task for itself.
        """
        since = _moment(reply)
        others = [
            (other, other.start, math.inf if other.ended is None else other.start + other.ended)
            for other in self.replies
            if other is not reply
        ]
        if any(since < start < until and name in other.tasks_started for other, start, _ in others):
            return until - since > limit
        alone, at = 0.0, since
        for _, start, end in sorted(others, key=lambda other: other[1]):
            alone += max(0.0, min(start, until) - at)
            at = max(at, end)
        return alone + max(0.0, until - at) > limit

    def _calls_after(
        self, left: Sequence[Reply], limit: float, of: str, calls: Sequence[CallMade]
    ) -> list[str]:
        """Describe calls for requests whose clients have left."""
        gone = {reply.number: _moment(reply) + limit for reply in left}
        lines = []
        for reply in left:
            late = [call for call in calls if call.request == reply.number]
            late = [call for call in late if call.time > gone[reply.number]]
            if late:
                last = seconds(late[-1].time - _moment(reply))
                lines.append(f"{reply}: {of} was called {len(late)} times more, until {last} later")
        golden = self._golden_load.calls.get(key_of(of), ())
        if any(call.request is None and is_idle(self._golden_replies, call) for call in golden):
            return lines  # a worker that also runs while there is nothing to do
        idle = [
            call
            for call in calls
            if call.request is None
            and is_idle(self.replies, call)
            and any(call.time > moment for moment in gone.values())
        ]
        if idle:
            first = min(left, key=_moment)
            lines.append(
                f"{of} was called {len(idle)} times more while no request was in the app, until "
                f"{seconds(idle[-1].time - _moment(first))} after the client of {first} had left"
            )
        return lines


def name_in(task: str) -> str:
    """Return the name of a task in its description."""
    return task.partition(", in ")[0]


def is_idle(replies: Sequence[Reply], call: CallMade) -> bool:
    """Return True if no request was in the app at the time of a call."""
    return not any(
        reply.start <= call.time and (reply.ended is None or call.time <= reply.start + reply.ended)
        for reply in replies
    )


def _moment(reply: Reply) -> float:
    """Return when the client left, in seconds from the start of the load."""
    return reply.start + (reply.left or 0.0)
