"""Run the switch: the process that the connections between the ranks of a world pass through.

A rank asks for a port that leads to the address of a peer, and imposes conditions on directions.
Both requests are answered when they are in effect.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ...core.links import Condition, Direction, Flip
from ...processes.messages import Inbox, write_message
from ...processes.process_tree import die_with_parent
from .gloo_address import LOCALHOST
from .gloo_frames import Frames
from .stream import DirectionState, Imposed, Stream

__all__ = ["start_switch"]

DRAIN_QUIET_SECONDS = 0.002
"""A direction is drained when no byte has arrived for this time."""
MAX_DRAIN_SECONDS = 0.5


def start_switch() -> int:
    """Start the switch as a child of this process, and return its port on the loopback interface.

    It ends with this process. Call it before this process starts a thread.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port: int = listener.getsockname()[1]
    parent = os.getpid()
    with listener:
        if os.fork() == 0:
            _main(listener, parent)
    return port


def _main(listener: socket.socket, parent: int) -> NoReturn:
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # The pipes of the ranks must close when the ranks end.
        os.closerange(3, listener.fileno())
        os.closerange(listener.fileno() + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        _Switch(listener).run()
    finally:
        os._exit(1)


class _Client:
    """A rank, as the switch sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = Inbox()

    def tell(self, *message: object) -> None:
        """Send a message. A rank that has ended gets none."""
        with contextlib.suppress(OSError):
            write_message(self.sock.fileno(), message)


class _Switch:
    """The state of all links, and the loop that passes bytes on."""

    def __init__(self, listener: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        self._states: dict[Direction, DirectionState] = {}
        self._earlier: list[DirectionState] = []  # of processes that have ended
        self._streams: dict[Direction, list[Stream]] = {}
        self._by_socket: dict[socket.socket, list[Stream]] = {}
        self._connected: dict[Direction, int] = {}
        self._unknown = ""
        self._stepped = 0.0  # the time of the last step
        self._accept(listener, self._add_client)

    def run(self) -> NoReturn:
        """Pass bytes on until this process is killed."""
        while True:
            wait = self._next_event() - time.monotonic()
            for key, events in self._selector.select(None if math.isinf(wait) else max(0.0, wait)):
                key.data(events)
            self._step()

    def _accept(self, listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        listener.setblocking(False)

        def accept(_: int) -> None:
            with contextlib.suppress(OSError):
                handle(listener.accept()[0])

        self._selector.register(listener, selectors.EVENT_READ, accept)

    # -- the ranks -------------------------------------------------------------------------------

    def _add_client(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._selector.register(
            sock, selectors.EVENT_READ, functools.partial(self._hear, _Client(sock))
        )

    def _hear(self, client: _Client, _: int) -> None:
        try:
            data = client.sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(client.sock)
            client.sock.close()
            return
        for kind, *content in client.inbox.feed(data):
            answer = getattr(self, f"_on_{kind}")(client, *content)
            client.tell("answer", answer)

    def _on_begin(self, client: _Client, rank: int) -> None:
        """Let a new process of a rank begin with healthy links.

        What its earlier process has sent keeps its conditions: its end must not become visible.
        """
        for direction in [*self._states]:
            if direction[0] == rank:
                self._earlier.append(self._states.pop(direction))

    def _on_lead(self, client: _Client, direction: Direction, family: int, target: Any) -> int:
        """Listen for one connection to the address of a peer, and return the port."""
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind((LOCALHOST[family], 0))
        listener.listen(8)

        def connect(ours: socket.socket) -> None:
            self._connect(ours, direction, family, target)

        self._accept(listener, connect)
        port: int = listener.getsockname()[1]
        return port

    def _on_connections(self, client: _Client, direction: Direction) -> int:
        """Return the number of connections that were made from one rank to another."""
        return self._connected.get(direction, 0)

    def _on_sync(self, client: _Client) -> str:
        """Answer after all messages so far. Return how gloo's format differs, if it does."""
        return self._unknown

    def _on_impose(
        self,
        client: _Client,
        directions: Sequence[Direction],
        condition: Condition,
        number: int,
    ) -> str:
        """Impose a condition on each direction, after what has been sent so far."""

        def report(**details: object) -> None:
            client.tell("effect", number, details)

        for direction in directions:
            self._drain(direction)
        now = time.monotonic()
        imposed = Imposed(condition, now, report)
        for direction in directions:
            self._state(direction).impose(imposed)
        return self._unknown if isinstance(condition, Flip) else ""

    # -- the connections -------------------------------------------------------------------------

    def _state(self, direction: Direction) -> DirectionState:
        return self._states.setdefault(direction, DirectionState())

    def _connect(
        self,
        ours: socket.socket,
        direction: Direction,
        family: int,
        target: Any,
    ) -> None:
        theirs = socket.socket(family, socket.SOCK_STREAM)
        for sock in (ours, theirs):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            theirs.connect(target)  # it listens on this machine, so this does not wait
        except OSError:
            ours.close()
            theirs.close()
            return
        for sock in (ours, theirs):
            sock.setblocking(False)
        self._connected[direction] = self._connected.get(direction, 0) + 1
        back = (direction[1], direction[0])
        for one, source, end, connects in (
            (direction, ours, theirs, True),
            (back, theirs, ours, False),
        ):
            stream = Stream(source, end, self._state(one), Frames(connects=connects))
            self._streams.setdefault(one, []).append(stream)
            for sock in (ours, theirs):
                self._by_socket.setdefault(sock, []).append(stream)

    def _drain(self, direction: Direction) -> None:
        """Read what was sent so far, so that a condition holds for later bytes alone."""
        until = time.monotonic() + MAX_DRAIN_SECONDS
        quiet = 0
        while quiet < 2 and time.monotonic() < until:
            now = time.monotonic()
            found = [stream.read(now) for stream in self._streams.get(direction, ())]
            for stream in self._streams.get(direction, ()):
                stream.write(now)
            quiet = 0 if any(found) else quiet + 1
            if quiet == 1:
                time.sleep(DRAIN_QUIET_SECONDS)

    def _next_event(self) -> float:
        """Return the time of the next arrival or healing.

        What was due at the last step waits for its socket. What has become due since is next.
        """
        times = [state.heals_at for state in (*self._states.values(), *self._earlier)]
        for streams in self._streams.values():
            times += [stream.due for stream in streams if stream.due > self._stepped]
        return min(times, default=math.inf)

    def _step(self) -> None:
        """Write what is due, and wait for the right events of each connection."""
        self._stepped = now = time.monotonic()
        for state in (*self._states.values(), *self._earlier):
            state.expire(now)
        for streams in self._streams.values():
            for stream in streams:
                stream.write(now)
                if stream.unknown and not self._unknown:
                    self._unknown = stream.unknown
        for sock, pair in [*self._by_socket.items()]:
            self._watch(sock, pair, now)
        self._forget_ended()

    def _watch(self, sock: socket.socket, pair: Sequence[Stream], now: float) -> None:
        if sock.fileno() < 0:
            return
        events = 0
        for stream in pair:
            if stream.source is sock and stream.wants_read:
                events |= selectors.EVENT_READ
            if stream.target is sock and stream.wants_write(now):
                events |= selectors.EVENT_WRITE
        known = self._selector.get_map().get(sock)
        if known is None:
            if events:
                self._selector.register(sock, events, functools.partial(self._pass, pair, sock))
        elif not events:
            self._selector.unregister(sock)
        elif known.events != events:
            self._selector.modify(sock, events, known.data)

    def _pass(self, pair: Sequence[Stream], sock: socket.socket, events: int) -> None:
        now = time.monotonic()
        for stream in pair:
            if events & selectors.EVENT_READ and stream.source is sock:
                stream.read(now)
            stream.write(now)

    def _forget_ended(self) -> None:
        for sock, pair in [*self._by_socket.items()]:
            if sock.fileno() < 0 or all(stream.over for stream in pair):
                for one in {x for stream in pair for x in (stream.source, stream.target)}:
                    with contextlib.suppress(KeyError, ValueError):
                        self._selector.unregister(one)
                    self._by_socket.pop(one, None)
                    one.close()
                for streams in self._streams.values():
                    streams[:] = [stream for stream in streams if stream not in pair]
