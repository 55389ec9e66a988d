"""Lead the connections of one rank through the switch, and impose conditions on them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import os
import queue
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

# Imported by name, so that a virtual clock of the subject's code does not reach them.
from time import monotonic, sleep
from typing import Any

from ...core.links import Condition, Direction
from ...engine.patching import Patches
from ...errors import BadArgument, MlchaosError
from ...processes.messages import Inbox, write_message
from .gloo_address import RankAddress, UnknownFormat, parse_address

__all__ = ["RankLinks", "links_of_rank"]

ANSWER_SECONDS = 20.0
"""The time that the switch gets to answer. It needs milliseconds, but the machine may be busy."""
CONNECTED_SECONDS = 5.0
"""The time that the switch gets to accept a connection."""
_RANK_KEY = re.compile(r"(?:.*/)?(\d+)")
_NUMBER_KEY = "mlchaos/rank/{}"


@contextlib.contextmanager
def links_of_rank(
    patches: Patches,
    port: int,
    rank: int,
    refuse: Callable[[MlchaosError], None],
) -> Iterator[RankLinks]:
    """Lead the gloo groups that this rank makes from now on through the switch at ``port``.

    Args:
        patches: The patches of the rank.
        port: The port of the switch.
        rank: The number of this rank in its world.
        refuse: A function that records an error of the tool, which is not a verdict on the subject.
    """
    links = RankLinks(port, rank, refuse)
    links.wrap_groups(patches)
    try:
        yield links
    finally:
        links.close()


class RankLinks:
    """The links of this rank. See ``core.links.Links``."""

    def __init__(self, port: int, rank: int, refuse: Callable[[MlchaosError], None]) -> None:
        self.rank = rank
        self._refuse = refuse
        self._process = os.getpid()
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._lock = threading.Lock()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._effects: dict[int, Callable[..., object]] = {}
        self._numbers = itertools.count()
        # C++ keeps only its half of a store. The methods are in this half.
        self._stores: list[Any] = []
        self._groups: list[frozenset[int]] = []
        threading.Thread(target=self._listen, name="mlchaos-links", daemon=True).start()
        self._ask("begin", rank)

    # -- what faults call --------------------------------------------------------------------------

    def impose(
        self,
        directions: Sequence[Direction],
        condition: Condition,
        took_effect: Callable[..., object],
    ) -> None:
        """Give the directions a condition. See ``core.links.Links``."""
        for direction in directions:
            if not any(group.issuperset(direction) for group in self._groups):
                raise BadArgument(
                    f"rank {direction[0]} and rank {direction[1]} have no link that a fault can "
                    f"disturb: no gloo group has both ranks. Faults of links need the backend "
                    f"'gloo'"
                )
        number = next(self._numbers)
        self._effects[number] = took_effect
        unknown = self._ask("impose", tuple(directions), condition, number)
        if unknown:
            raise _refused(unknown)

    # -- the groups --------------------------------------------------------------------------------

    def wrap_groups(self, patches: Patches) -> None:
        """Wrap the store of each gloo group that is made, by any code."""
        c10d = importlib.import_module("torch.distributed.distributed_c10d")
        group_class = getattr(c10d, "ProcessGroupGloo", None)
        if group_class is None:  # a torch without gloo: no group is made
            return
        original = group_class.__init__
        wrap = _store_class()

        @functools.wraps(original)
        def __init__(  # noqa: N807  # it replaces that of the class
            group: Any, store: Any, rank: int, size: int, *args: object, **keywords: object
        ) -> None:
            if size < 2 or os.getpid() != self._process:
                original(group, store, rank, size, *args, **keywords)
                return
            wrapped = wrap(store, _Group(self, rank, size))
            self._stores.append(wrapped)
            original(group, wrapped, rank, size, *args, **keywords)
            self._joined(wrapped)

        patches.set(group_class, "__init__", __init__)

    def lead(self, peer: int, address: RankAddress) -> int:
        """Return the port of the switch that leads to the address of a peer."""
        port: int = self._ask("lead", (self.rank, peer), address.family, address.target)
        return port

    def _joined(self, wrapped: Any) -> None:
        """Check that the connections of a group lead through the switch."""
        group: _Group = wrapped.group
        if group.own is None and not group.is_lazy:
            self.refuse("the group was made without a value in the store")
        self._groups.append(wrapped.group.members(wrapped.inner))
        for peer in group.led:
            if not group.is_lazy and not self._is_connected(peer):
                self.refuse(f"rank {self.rank} and rank {peer} connected past the switch")

    def _is_connected(self, peer: int) -> bool:
        """Return True if a connection to a peer leads through the switch.

        The kernel has accepted it, but the switch may need a moment to notice that.
        """
        until = monotonic() + CONNECTED_SECONDS
        while not (found := bool(self._ask("connections", (self.rank, peer)))):
            if monotonic() > until:
                break
            sleep(0.01)
        return found

    def refuse(self, unknown: str) -> None:
        """Raise an error that names the version of torch, and record it."""
        error = _refused(unknown)
        self._refuse(error)
        raise error

    # -- the switch --------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait until all effects so far are recorded."""
        if os.getpid() == self._process:
            with contextlib.suppress(MlchaosError, OSError):
                self._ask("sync")

    def _ask(self, *request: object) -> Any:
        with self._lock:
            try:
                write_message(self._sock.fileno(), request)
                return self._answers.get(timeout=ANSWER_SECONDS)
            except (OSError, queue.Empty):
                raise MlchaosError(
                    f"rank {self.rank}: the process that the links lead through does not answer"
                ) from None

    def _listen(self) -> None:
        """Read the messages of the switch, in a thread."""
        inbox = Inbox()
        while True:
            try:
                data = self._sock.recv(1 << 16)
            except OSError:
                return
            if not data:
                return
            for kind, *content in inbox.feed(data):
                if kind == "answer":
                    self._answers.put(*content)
                else:
                    number, details = content
                    self._effects.pop(number)(**details)


class _Group:
    """One gloo group of this rank.

    Attributes:
        rank: The number of this rank in the group.
        size: The number of ranks in the group.
        own: The address of this rank.
        led: The peers to which this rank connects, by their number in the world.
    """

    def __init__(self, links: RankLinks, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.own: RankAddress | None = None
        self.led: set[int] = set()
        self.is_lazy = os.environ.get("TORCH_GLOO_LAZY_INIT", "0") not in ("", "0")
        self._links = links

    def written(self, key: str, value: bytes) -> None:
        """Note the address of this rank."""
        found = _RANK_KEY.fullmatch(key)
        if found is not None and int(found[1]) == self.rank:
            self.own = self._parsed(value)

    def read(self, key: str, value: bytes, store: Any) -> bytes:
        """Return the value with the address of the switch, if this rank connects to that peer."""
        found = _RANK_KEY.fullmatch(key)
        if found is None or (number := int(found[1])) == self.rank:
            return value
        peer = self._parsed(value)
        if self.own is None:
            self._links.refuse(f"the address of peer {number} was read before the own one")
            return value
        if peer.family != self.own.family:
            self._links.refuse("the addresses of two ranks have different families")
        if not self.own.connects_to(peer):
            return value
        other = self._number_of(number, store)
        self.led.add(other)
        return peer.at_switch(self._links.lead(other, peer))

    def members(self, store: Any) -> frozenset[int]:
        """Return the ranks of the group, by their numbers in the world."""
        return frozenset(self._number_of(number, store) for number in range(self.size))

    def _number_of(self, number: int, store: Any) -> int:
        """Return the number in the world of a rank of the group."""
        return int(store.get(_NUMBER_KEY.format(number)))

    def _parsed(self, value: bytes) -> RankAddress:
        try:
            return parse_address(value, self.size)
        except UnknownFormat as error:
            self._links.refuse(str(error))
            raise


def _refused(unknown: str) -> MlchaosError:
    torch = importlib.import_module("torch")
    return MlchaosError(
        f"faults of links do not know the format of gloo in torch {torch.__version__}: {unknown}. "
        f"The format is private to gloo, and this says nothing about your code"
    )


@functools.cache
def _store_class() -> Any:
    """Return the class of a store that rewrites the addresses of peers."""
    dist = importlib.import_module("torch.distributed")

    class SwitchedStore(dist.Store):  # type: ignore[misc,name-defined]
        """The store of one gloo group."""

        def __init__(self, inner: Any, group: _Group) -> None:
            super().__init__()
            self.inner, self.group = inner, group
            inner.set(_NUMBER_KEY.format(group.rank), str(group._links.rank))

        def set(self, key: str, value: Any) -> Any:
            data = value if isinstance(value, bytes) else str(value).encode("latin-1")
            self.group.written(key, data)
            return self.inner.set(key, value)

        def get(self, key: str) -> bytes:
            return self.group.read(key, bytes(self.inner.get(key)), self.inner)

        def wait(self, keys: Any, timeout: Any = None) -> Any:
            return self.inner.wait(keys) if timeout is None else self.inner.wait(keys, timeout)

        def has_extended_api(self) -> bool:
            return False  # so that gloo reads each value by get

    for name in (
        "add",
        "append",
        "check",
        "compare_set",
        "delete_key",
        "num_keys",
        "queue_len",
        "queue_pop",
        "queue_push",
        "set_timeout",
    ):
        setattr(SwitchedStore, name, _passed_on(name))
    return SwitchedStore


def _passed_on(name: str) -> Any:
    def method(store: Any, *args: object, **keywords: object) -> Any:
        return getattr(store.inner, name)(*args, **keywords)

    method.__name__ = name
    return method
