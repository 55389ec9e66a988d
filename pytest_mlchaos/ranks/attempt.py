"""Run one attempt of a world.

Start the ranks, read their messages, decide when to stop waiting, and end the remaining ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

# Imported by name, so that a virtual clock of the test's code does not reach it.
from time import monotonic
from types import TracebackType

from ..core.interrupts import deferred, uninterruptible
from ..core.records import Outcome
from ..engine.activity import WORLDS
from ..processes.child import STACK_SIGNAL
from ..processes.fork_server import ForkServer
from ..processes.messages import Inbox, write_message
from .agent import PIPES_PER_RANK
from .orphans import Left
from .rank import RankJob
from .rank_view import Rank

__all__ = ["RankAttempt", "RankGroup", "start_ranks"]

STACK_IDLE_SECONDS = 0.05
"""A stack is complete after this many seconds without new output."""
END_TIMEOUT_SECONDS = 5.0
"""The time that the agent gets to end the remaining ranks."""


@uninterruptible
def start_ranks(server: ForkServer, job: RankJob) -> Iterator[RankGroup]:
    """Start the ranks of one attempt. None is left at the end, also after an interruption."""
    with RankGroup(server, job) as group:
        yield group


class RankAttempt:
    """The ranks of one attempt, and how they ended.

    Attributes:
        start: The time of its start.
        failure: The time and the number of the rank that failed first, or None.
        error: Why the ranks could not be started, or None.
        lost: The ranks whose nodes were lost.
        left: The processes that ranks left running. Empty if they were not judged.
        store_ended: True if the store of the ranks had a process of its own, which ended before
            them.
    """

    start: float
    error: str | None = None
    lost: tuple[int, ...] = ()
    left: Sequence[Left] = ()
    store_ended = False

    def __init__(self, ranks: list[Rank]) -> None:
        self.ranks = ranks

    @property
    def failure(self) -> tuple[float, int] | None:
        """Return the time and the number of the rank that failed first, or None.

        The agent may notice several ends at one time. Then it was a rank that a fault struck or
        that a signal killed, rather than one that raised an error because of it.
        """
        failed = [
            (rank.left, not rank.strikes, (rank.exitcode or 0) >= 0, rank.number)
            for rank in self.ranks
            if rank.failed
        ]
        halted = [
            (rank.halted, False, False, rank.number)
            for rank in self.ranks
            if rank.halted is not None
        ]
        first = min([*failed, *halted], default=None)
        return None if first is None else (first[0], first[-1])

    @property
    def ended(self) -> str:
        """Return in words how the attempt ended: the end of the rank that failed first."""
        if self.failure is not None:
            rank = self.ranks[self.failure[1]]
            return f"rank {rank.number} {rank.ended}"
        hung = next((rank for rank in self.ranks if rank.outcome != "finished"), None)
        return f"rank {hung.number} {hung.ended}" if hung else "all ranks returned"

    def echo(self) -> None:
        """Print the output of the ranks, by rank, so that pytest captures it as the test's own
        output.
        """
        for stream, target in (("stdout", sys.stdout), ("stderr", sys.stderr)):
            for rank in self.ranks:
                for line in rank.text(stream).splitlines():
                    # The test's output belongs on stdout.
                    print(f"[rank {rank.number}] {line}", file=target)


class RankGroup(RankAttempt):
    """The ranks of one attempt. As a context manager, it leaves none at its end."""

    _orphan_grace = 0.0  # more time to end, if orphans are judged

    def __init__(self, server: ForkServer, job: RankJob) -> None:
        super().__init__([Rank(number) for number in range(job.ranks)])
        for rank in self.ranks:
            counts = job.resumed.get(rank.number)
            rank.begins_at(counts.passed.get("train.step", 0) if counts else 0)
        self._orphan_grace = job.orphan_grace or 0.0
        self._inbox = Inbox()
        self._selector = selectors.DefaultSelector()
        self._over = False
        with contextlib.ExitStack() as undo:
            undo.callback(self._close)
            listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self._control, theirs = socket.socketpair()
            with listener, theirs:
                job = dataclasses.replace(job, port=listener.getsockname()[1])
                fds = self._pipes()
                try:
                    server.fork([theirs.fileno(), listener.fileno(), *fds])
                finally:
                    for fd in fds:
                        os.close(fd)
            self._selector.register(self._control, selectors.EVENT_READ, self._from_agent)
            self.start = monotonic()
            write_message(self._control.fileno(), job)
            WORLDS.add(id(self))
            undo.pop_all()

    def _pipes(self) -> list[int]:
        """Make the pipes of all ranks. Read from one end of each, and return the writing ends."""
        writing = []
        for rank in self.ranks:
            streams = (
                rank.hear,
                functools.partial(rank.write, "stdout"),
                functools.partial(rank.write, "stderr"),
                rank.dump,
            )
            assert len(streams) == PIPES_PER_RANK
            for listen in streams:
                ours, theirs = os.pipe()
                self._selector.register(ours, selectors.EVENT_READ, listen)
                writing.append(theirs)
        return writing

    def __enter__(self) -> RankGroup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with deferred():
            try:
                self._end()
            finally:
                self._close()

    # -- the watch ---------------------------------------------------------------------------------

    def watch(self, timeout: float, grace: float, *, last: bool) -> None:
        """Wait until the ranks have ended, or until it makes no sense to wait for them.

        In the last attempt, the others get ``grace`` seconds after the first failure. In an attempt
        before, they get SIGTERM, as by torchrun.
        """
        stopping = False
        while any(rank.running for rank in self.ranks) and self.error is None:
            if self._over:
                self.error = "the agent, the process that runs them, has ended. Was it killed?"
                break
            deadline = self.start + timeout
            if self.failure is not None:
                deadline = min(deadline, self.failure[0] + grace)
            if all(rank.halted is not None for rank in self.ranks if rank.running):
                deadline = 0.0
            if not last and not stopping and any(rank.failed for rank in self.ranks):
                stopping = True
                self._signal(signal.SIGTERM, "stopped")
            left = deadline - monotonic()
            if left <= 0:
                return self._give_up()
            self._listen(left)
        return None

    def _give_up(self) -> None:
        """Ask the ranks that still run for their stacks, and mark the attempt as over."""
        now = monotonic()
        self._signal(STACK_SIGNAL)
        while self._listen(STACK_IDLE_SECONDS) and monotonic() < now + 20 * STACK_IDLE_SECONDS:
            pass
        for rank in self.ranks:
            if rank.running:
                rank.left = now
                blocked = rank.halted is not None or rank.delayed_until > now
                rank.outcome = rank.outcome or ("halted" if blocked else "hung")

    def _end(self) -> None:
        """End all ranks before this returns."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        until = monotonic() + END_TIMEOUT_SECONDS + self._orphan_grace
        while not self._over and monotonic() < until:
            self._listen(until - monotonic())
        while self._listen(0):
            pass
        for rank in self.ranks:
            rank.take_numbers()
            if rank.outcome is None:
                rank.outcome, rank.left = "hung", monotonic()

    def _close(self) -> None:
        WORLDS.discard(id(self))
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
        self._selector.close()
        with contextlib.suppress(AttributeError):
            self._control.close()

    # -- listening ---------------------------------------------------------------------------------

    def _listen(self, seconds: float) -> bool:
        """Read what has arrived. Return False if nothing came in time."""
        ready = self._selector.select(max(0.0, seconds))
        for key, _ in ready:
            try:
                data = os.read(key.fd, 1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                self._selector.unregister(key.fileobj)
                if isinstance(key.fileobj, int):
                    os.close(key.fileobj)
                else:
                    self._over = True
            else:
                key.data(data)
        return bool(ready)

    def _from_agent(self, data: bytes) -> None:
        for kind, *content in self._inbox.feed(data):
            if kind == "error":
                self.error = content[0]
            elif kind == "left":
                self.left = content[0]
            elif kind == "store ended":
                self.store_ended = True
            elif kind == "exit":
                number, code, when, numbers = content
                rank = self.ranks[number]
                rank.numbers = numbers
                rank.exitcode = code
                if rank.outcome is None:
                    rank.left = when
                    rank.outcome = "failed" if code else "finished"
                elif rank.outcome == "stopped":
                    rank.left = when

    def _signal(self, signum: int, outcome: Outcome | None = None) -> None:
        for rank in self.ranks:
            if rank.running:
                rank.outcome = rank.outcome or outcome
                with contextlib.suppress(OSError):
                    write_message(self._control.fileno(), (rank.number, signum))
