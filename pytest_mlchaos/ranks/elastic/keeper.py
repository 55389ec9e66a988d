"""Keep the nodes of an elastic world: their agents, their ranks, and the store where they meet.

One process forks all of them, so that it can end them all. It has a single thread, which makes
forks safe: the store and torch's agents, which have threads, are processes of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from ...core.privacy import error_text
from ...engine.world_store import world_store
from ...processes.messages import Inbox, read_message
from ...processes.process_tree import (
    children,
    descendants,
    die_with_parent,
    end_all,
    is_dying,
    reap,
)
from .. import rank
from ..links.switch import start_switch
from ..orphans import Orphans
from . import node_agent
from .options import ElasticOptions, Nodes

__all__ = ["keep_nodes"]


def keep_nodes(
    job: rank.RankJob,
    options: ElasticOptions,
    fds: tuple[int, int, int],
    host_store: Callable[[int, int], Any],
) -> None:
    """Run the nodes until all agents have ended, or until the runner closes its socket.

    Args:
        job: The job of the ranks.
        options: The shape of the world.
        fds: The socket on which the runner sends signals for ranks, the listening socket of the
            store, and the socket for messages to the runner, with file descriptors.
        host_store: A function of the listener and the port. Its result hosts the store.
    """
    control, listener, events = fds
    keeper = _Keeper(job, options, control, listener, socket.socket(fileno=events))
    try:
        keeper.run(host_store)
    finally:
        keeper.end()


@dataclasses.dataclass
class _Node:
    """A node: its agent, and the ranks on it."""

    number: int
    agent: int
    home: socket.socket
    closed: bool = False
    ranks: dict[int, int] = dataclasses.field(default_factory=dict)  # the numbers, by process id


class _Keeper:
    def __init__(
        self,
        job: rank.RankJob,
        options: ElasticOptions,
        control: int,
        listener: int,
        events: socket.socket,
    ) -> None:
        self._job = job
        self._options = options
        self._control = control
        self._listener = listener
        self._events = events
        self._me = os.getpid()
        self._inbox = Inbox()
        self._requests, self._ask = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._woken, self._wake = os.pipe()
        for fd in (self._woken, self._wake):
            os.set_blocking(fd, False)
        self._nodes: dict[int, _Node] = {}  # by the process id of the agent
        self._started = 0
        self._store = 0
        self._now = 0.0
        self._orphans = None if job.orphan_grace is None else Orphans(job.orphan_grace)

    # -- the loop ----------------------------------------------------------------------------------

    def run(self, host_store: Callable[[int, int], Any]) -> None:
        signal.set_wakeup_fd(self._wake)
        try:
            if self._host(host_store):
                if self._job.own_store:
                    world_store.process = self._store
                if self._job.links:
                    self._job = dataclasses.replace(self._job, switch=start_switch())
                helpers = set(children())
                for _ in range(self._options.nodes):
                    self._start_node()
                while self._nodes and self._listen():
                    self._reap()
                if self._job.own_store and is_dying(self._store):
                    self._tell("store ended")
                if self._orphans is not None:
                    self._judge_orphans(self._orphans, helpers)
        except Exception as error:  # noqa: BLE001  # the runner shows any error to the user
            self._tell("error", error_text(error))

    def _judge_orphans(self, orphans: Orphans, helpers: set[int]) -> None:
        """Tell what the ranks have left, after all agents have ended."""
        self._tell("ended")
        running = {pid for node in self._nodes.values() for pid in (node.agent, *node.ranks)}
        self._tell("left", orphans.wait(running | helpers, self._reap))

    def end(self) -> None:
        """End all processes."""
        agents = [node.agent for node in self._nodes.values() if node.agent]
        end_all([*agents, *(pid for node in self._nodes.values() for pid in node.ranks)])
        self._tell("done")

    def _host(self, host_store: Callable[[int, int], Any]) -> bool:
        """Host the store in a process of its own. It must outlive each node."""
        ready, told = os.pipe()
        self._store = self._fork()
        if not self._store:
            code = 1
            try:
                store = host_store(self._listener, self._job.port)
                os.write(told, b"+")
                while True:
                    signal.pause()
                    del store
            finally:
                os._exit(code)
        os.close(told)
        os.close(self._listener)
        answered = os.read(ready, 1)
        os.close(ready)
        if not answered:
            self._tell("error", "the store of the ranks could not be started")
        return bool(answered)

    def _listen(self) -> bool:
        """Wait for an event. Return False if the world must end."""
        homes = {node.home: node for node in self._nodes.values() if not node.closed}
        waiting: list[Any] = [self._control, self._woken, self._requests, *homes]
        ready, _, _ = select.select(waiting, [], [])
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._requests in ready:
            self._serve(*pickle.loads(self._requests.recv(1 << 16)))
        for home, node in homes.items():
            if home in ready:
                self._hear(node)
        if self._control not in ready:
            return True
        try:
            data = os.read(self._control, 1 << 16)
        except ConnectionError:
            data = b""
        for pid, signum in self._inbox.feed(data):
            self._signal(pid, signum)
        return bool(data)

    # -- the nodes ---------------------------------------------------------------------------------

    def _start_node(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number, self._started = self._started, self._started + 1
        pid = self._fork(theirs.fileno())
        if not pid:
            node_agent.main(self._options, number, theirs.detach(), self._job.port)
        theirs.close()
        self._nodes[pid] = _Node(number, pid, ours)
        self._tell("node")

    def _hear(self, node: _Node) -> None:
        """Read one message of an agent."""
        try:
            data = node.home.recv(1 << 16)
        except ConnectionError:
            data = b""
        if data:
            with contextlib.suppress(BrokenPipeError):
                self._obey(node, *pickle.loads(data))
        else:
            node.closed = True

    def _obey(self, node: _Node, kind: str, *content: Any) -> None:
        """Do what the agent of a node asks for."""
        if kind == "start" and node.agent:
            attempt, environments = content
            pids = [self._start_rank(node, attempt, one) for one in environments]
            node.home.send(pickle.dumps(("started", pids)))
        elif kind == "alive" and node.agent:
            alive = sum(bool(one.agent) for one in self._nodes.values())
            node.home.send(pickle.dumps(("alive", min(alive, self._options.nodes))))
        elif kind == "stop":
            pids, signum = content
            self._tell("stopped", [pid for pid in pids if pid in node.ranks])
            for pid in pids:
                self._signal(pid, signum)
        elif kind == "agent":
            self._tell(kind, *content)

    def _serve(self, kind: str, *content: Any) -> None:
        """Do what a fault in a rank asks for."""
        if kind == "rejoin":
            self._start_node()
            return
        (lost,) = content
        nodes = [
            node for node in self._nodes.values() if node.agent and {*lost} & {*node.ranks.values()}
        ]
        self._tell("lost", [pid for node in nodes for pid in node.ranks], time.monotonic())
        for node in nodes:
            agent, node.agent = node.agent, 0
            self._tell("node lost")
            # All processes of a node are lost with it, in whatever session they are.
            for pid in (agent, *node.ranks, *descendants(agent, *node.ranks)):
                for kill in (os.killpg, os.kill):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        kill(pid, signal.SIGKILL)

    # -- the processes -----------------------------------------------------------------------------

    def _fork(self, *keep: int) -> int:
        """Fork. The child has none of the keeper's own descriptors but those in ``keep``."""
        pid = os.fork()
        if pid:
            return pid
        signal.set_wakeup_fd(-1)
        os.setpgid(0, 0)
        die_with_parent(self._me)
        own = {self._control, self._woken, self._wake}
        own |= {one.fileno() for one in (self._events, self._requests)}
        own |= {node.home.fileno() for node in self._nodes.values()}
        if self._store:
            own.discard(self._listener)
        for fd in own - {*keep}:
            with contextlib.suppress(OSError):
                os.close(fd)
        return 0

    def _start_rank(self, node: _Node, attempt: str, environment: dict[str, str]) -> int:
        number, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        ours, theirs = socket.socketpair()
        pipes = [os.pipe() for _ in range(3)]
        read = [ours.fileno(), *(pipe[0] for pipe in pipes)]
        write = [theirs.fileno(), *(pipe[1] for pipe in pipes)]
        pid = self._fork()
        if not pid:
            for fd in read:
                os.close(fd)
            nodes = Nodes(
                per_node=self._options.per_node,
                missing=self._options.nodes - size // self._options.per_node,
                requests=self._ask.fileno(),
            )
            _become_rank(self._job, number, attempt, environment, nodes, write)
        node.ranks[pid] = number
        message = pickle.dumps(("rank", pid, number, size, attempt, time.monotonic()))
        socket.send_fds(self._events, [message], read)
        ours.close()
        theirs.close()
        for one, other in pipes:
            os.close(one)
            os.close(other)
        return pid

    def _signal(self, pid: int, signum: int) -> None:
        if any(pid in node.ranks for node in self._nodes.values()):
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if signum == signal.SIGKILL else os.kill)(pid, signum)

    def _reap(self) -> bool:
        """Collect the processes that have ended. All get one time, because none came first."""
        self._now = time.monotonic()
        return reap(self._ended)

    def _ended(self, pid: int, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if pid == self._store and self._job.own_store:
            self._tell("store ended")  # perhaps by a fault
        elif pid == self._store:
            self._tell("error", "the store of the ranks has ended. Was it killed?")
        node = self._nodes.get(pid)
        if node is not None:
            if node.agent:
                node.agent = 0
                while not node.closed and select.select([node.home], [], [], 0)[0]:
                    self._hear(node)  # its last words
                self._tell("agent ended", node.number)
            for other in node.ranks:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(other, signal.SIGKILL)
            if not node.ranks:
                self._forget(node)
            return
        for node in [*self._nodes.values()]:
            if pid in node.ranks:
                number = node.ranks.pop(pid)
                self._tell("exit", pid, code, self._now)
                if self._orphans is not None:
                    self._orphans.add(pid, number)
                else:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(pid, signal.SIGKILL)  # its loader workers, if any are left
                if node.agent:
                    with contextlib.suppress(OSError):
                        node.home.send(pickle.dumps(("exit", pid, code)))
                elif not node.ranks:
                    self._forget(node)

    def _forget(self, node: _Node) -> None:
        node.home.close()
        self._nodes = {pid: one for pid, one in self._nodes.items() if one is not node}

    def _tell(self, *message: object) -> None:
        with contextlib.suppress(OSError):
            self._events.send(pickle.dumps(message))


def _become_rank(
    job: rank.RankJob,
    number: int,
    attempt: str,
    environment: dict[str, str],
    nodes: Nodes,
    fds: list[int],
) -> None:
    """Run one rank. The runner first sends the counts from which the rank goes on."""
    counts = read_message(lambda size: os.read(fds[0], size))
    if counts is None:
        os._exit(1)
    rank.main(
        dataclasses.replace(
            job,
            ranks=int(environment["WORLD_SIZE"]),
            attempt=int(environment["TORCHELASTIC_RESTART_COUNT"]),
            resumed={number: counts},
            environment=environment,
            nodes=nodes,
            prefix=f"mlchaos/{attempt}",
        ),
        number,
        *fds,
    )
