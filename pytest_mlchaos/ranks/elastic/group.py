"""Follow an elastic world from the runner: its attempts, and the ranks of each.

Torch's agents decide when an attempt ends, and with which ranks the next one begins.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import os
import pickle
import selectors
import socket

# Imported by name, so that a virtual clock of the test's code does not reach it.
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any

from ...core.interrupts import uninterruptible
from ...core.records import Outcome
from ...engine.activity import WORLDS
from ...engine.counters import ProcessCounts
from ...processes.fork_server import ForkServer
from ...processes.messages import Inbox, write_message
from ..attempt import RankAttempt, RankGroup
from ..orphans import Left
from ..rank import RankJob
from ..rank_view import Rank
from .node_agent import FAILED
from .options import ElasticOptions

__all__ = ["ElasticAttempt", "ElasticGroup", "start_nodes"]

Count = Callable[[dict[int, ProcessCounts], Rank], None]


@uninterruptible
def start_nodes(
    server: ForkServer, job: RankJob, options: ElasticOptions, count: Count
) -> Iterator[ElasticGroup]:
    """Start the nodes of an elastic world. No process is left at the end."""
    group = ElasticGroup(server, job, options, count)
    with group:
        yield group


class ElasticRank(Rank):
    """A rank of an elastic world, with its process."""

    def __init__(self, number: int, pid: int, messages: int) -> None:
        super().__init__(number)
        self.pid = pid
        self.messages = messages
        self.waits = True


class ElasticAttempt(RankAttempt):
    """The ranks that one rendezvous has started, as a ``RankGroup`` is for other worlds."""

    def __init__(self, name: str, size: int, start: float) -> None:
        self.name = name
        self.size = size
        self.start = start
        self.started: dict[int, ElasticRank] = {}
        self.note = ""

    @property
    def ranks(self) -> list[Any]:  # type: ignore[override]
        """Return the ranks by their numbers."""
        return [self.started[number] for number in sorted(self.started)]

    @property
    def ended(self) -> str:
        """Return in words how the attempt ended."""
        text = self._ended()
        return f"{text}. {self.note}" if self.note else text

    def _ended(self) -> str:
        if self.lost:
            plural = "" if len(self.lost) == 1 else "s"
            return f"the node of rank{plural} {', '.join(map(str, self.lost))} was lost"
        if self.failure is not None:
            rank = self.started[self.failure[1]]
            return f"rank {rank.number} {rank.ended}"
        left = [rank for rank in self.ranks if rank.outcome != "finished"]
        if not left:
            return "all ranks returned"
        if all(rank.outcome == "stopped" for rank in left):
            return "all ranks were stopped, because the nodes have changed"
        return f"rank {left[0].number} {left[0].ended}"


class ElasticGroup(RankGroup):
    """The nodes of one elastic world. As a context manager, it leaves no process at its end."""

    def __init__(
        self, server: ForkServer, job: RankJob, options: ElasticOptions, count: Count
    ) -> None:
        self.attempts: list[ElasticAttempt] = []
        self._options = options
        self._count = count
        self._resumed: Mapping[int, ProcessCounts] = job.resumed
        self._waiting: list[ElasticRank] = []
        self._pids: dict[int, ElasticRank] = {}
        self._agents: dict[int, str] = {}  # the last words of each agent that ended by itself
        self._failed_at: float | None = None  # the time at which the first agent gave up
        self._orphan_grace = job.orphan_grace or 0.0
        self._ended = False  # the agents have ended, and orphans are judged
        self._nodes, self._gone = 0, 0
        self._idle_since = monotonic()
        self.error = None
        self._inbox = Inbox()
        self._selector = selectors.DefaultSelector()
        self._over = False
        with contextlib.ExitStack() as undo:
            undo.callback(self._close)
            listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self._control, control = socket.socketpair()
            self._events, events = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with listener, control, events:
                job = dataclasses.replace(job, port=listener.getsockname()[1], elastic=options)
                server.fork([control.fileno(), listener.fileno(), events.fileno()])
            self._selector.register(self._events, selectors.EVENT_READ, None)
            self.start = monotonic()
            write_message(self._control.fileno(), job)
            WORLDS.add(id(self))
            undo.pop_all()

    @property
    def ranks(self) -> list[Any]:  # type: ignore[override]
        """Return the ranks of the last attempt."""
        return self.attempts[-1].ranks if self.attempts else []

    def watch(self, timeout: float, grace: float, *, last: bool = True) -> None:
        """Wait until the agents have ended, or until it makes no sense to wait for them.

        ``timeout`` limits each attempt, and each rendezvous. ``grace`` limits what the other nodes
        do after one agent has given up.
        """
        del last  # the agents decide
        while not self._over and not self._ended and self.error is None:
            running = [rank for rank in self._pids.values() if rank.running]
            deadline = timeout + (self.attempts[-1].start if running else self._idle_since)
            if running and all(rank.halted is not None for rank in running):
                deadline = 0.0
            if len(self.attempts) > self._options.most_attempts:
                self._remark(f"The nodes did not settle in {len(self.attempts)} attempts")
                deadline = 0.0
            has_failed = FAILED in self._agents.values()
            if not running and self.attempts and (has_failed or self._has_too_few_nodes()):
                # The agents of other nodes may wait much longer, for ranks that will not come.
                deadline = 0.0
            if self._failed_at is not None:
                deadline = min(deadline, self._failed_at + grace)
            left = deadline - monotonic()
            if left <= 0:
                if not running and not has_failed:
                    self._remark(self.why_not())
                return self._give_up()
            if not self._listen(0.0 if self._waiting else left):
                self._begin_waiting()
        if not self._over and not self._ended:
            return None
        for text in self._agents.values():
            if text and text != FAILED:
                self._remark(text)
        return None

    def _has_too_few_nodes(self) -> bool:
        return bool(self._gone) and self._nodes - self._gone < self._options.min_nodes

    def why_not(self) -> str:
        """Return in words why the agents did not go on."""
        if self._has_too_few_nodes():
            fewest = self._options.min_nodes * self._options.per_node
            return f"Too few nodes were left for a world of at least {fewest} ranks"
        return "The agents started no further attempt within the time limit"

    def _remark(self, text: str) -> None:
        if self.attempts:
            self.attempts[-1].note = text

    def echo(self) -> None:
        """Print the output of all attempts."""
        whole = self.attempts
        for number in range(len(whole)):
            self.attempts = whole[: number + 1]
            super().echo()
        self.attempts = whole

    # -- listening ---------------------------------------------------------------------------------

    def _listen(self, seconds: float) -> bool:
        ready = self._selector.select(max(0.0, seconds))
        for key, _ in ready:
            if key.fileobj is self._events:
                self._from_keeper()
                continue
            try:
                data = os.read(key.fd, 1 << 16)
            except ConnectionError:
                data = b""
            if data:
                key.data(data)
            else:
                self._selector.unregister(key.fileobj)
                os.close(key.fd)
        return bool(ready)

    def _from_keeper(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._events, 1 << 16, 4)
        except ConnectionError:
            data, fds = b"", []
        if not data:
            self._selector.unregister(self._events)
            self._over = True
            return
        kind, *rest = pickle.loads(data)  # our own process wrote it
        content: list[Any] = rest
        if kind == "rank":
            self._begin(fds, *content)
        elif kind == "exit":
            self._exit(*content)
        elif kind == "stopped":
            for pid in content[0]:
                rank = self._pids[pid]
                rank.outcome = rank.outcome or "stopped"
        elif kind == "lost":
            self._lost(*content)
        elif kind == "node":
            self._nodes += 1
        elif kind == "agent":
            self._agents[content[0]] = content[1]
            if content[1] and self._failed_at is None:
                self._failed_at = monotonic()
        elif kind == "node lost":
            self._gone += 1
        elif kind == "agent ended" and content[0] not in self._agents:
            self.error = "the agent of a node has ended. Was it killed?"
        elif kind == "store ended":
            self.store_ended = True
        elif kind == "ended":
            self._ended = True
        elif kind == "left":
            for one in content[0]:
                self._left(one)
        elif kind == "error":
            self.error = content[0]
        elif kind == "done":
            self._over = True

    def _begin(
        self, fds: list[int], pid: int, number: int, size: int, name: str, when: float
    ) -> None:
        if not self.attempts or self.attempts[-1].name != name:
            self.attempts.append(ElasticAttempt(name, size, when))
        rank = ElasticRank(number, pid, fds[0])
        self.attempts[-1].started[number] = self._pids[pid] = rank
        self._waiting.append(rank)
        listeners = (
            rank.hear,
            functools.partial(rank.write, "stdout"),
            functools.partial(rank.write, "stderr"),
            rank.dump,
        )
        for fd, listen in zip(fds, listeners, strict=True):
            self._selector.register(fd, selectors.EVENT_READ, listen)

    def _begin_waiting(self) -> None:
        """Send each new rank its counts, after all messages of earlier attempts have been read."""
        counts_of = copy.deepcopy(dict(self._resumed))
        for attempt in self.attempts[:-1]:
            for rank in attempt.ranks:
                self._count(counts_of, rank)
        for rank in self._waiting:
            counts = counts_of.get(rank.number, ProcessCounts())
            rank.begins_at(counts.passed.get("train.step", 0))
            with contextlib.suppress(OSError):
                write_message(rank.messages, counts)
        self._waiting.clear()

    def _exit(self, pid: int, code: int, when: float) -> None:
        rank = self._pids[pid]
        rank.exitcode = code
        if rank.outcome is None:
            rank.outcome = "failed" if code else "finished"
            rank.left = rank.left or when
        elif rank.outcome == "stopped":
            rank.left = when
        self._idle_since = monotonic()

    def _lost(self, pids: list[int], when: float) -> None:
        for pid in pids:
            self._pids[pid].left = when
        numbers = sorted(self._pids[pid].number for pid in pids)
        self.attempts[-1].lost = (*self.attempts[-1].lost, *numbers)

    def _left(self, left: Left) -> None:
        """Attribute a process that a rank has left to the attempt in which it was started."""
        begun = [attempt for attempt in self.attempts if attempt.start <= left.started]
        attempt = (begun or self.attempts)[-1 if begun else 0]
        attempt.left = [*attempt.left, left]

    def _signal(self, signum: int, outcome: Outcome | None = None) -> None:
        for rank in self._pids.values():
            if rank.running:
                rank.outcome = rank.outcome or outcome
                with contextlib.suppress(OSError):
                    write_message(self._control.fileno(), (rank.pid, signum))

    def _close(self) -> None:
        super()._close()
        with contextlib.suppress(AttributeError):
            self._events.close()
