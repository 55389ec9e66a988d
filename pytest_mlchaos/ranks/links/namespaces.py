"""Give each rank a network of its own, and cut its links in the kernel (Linux, without root).

The agent makes a user namespace with a bridge. Each rank has a network namespace with one interface
at that bridge. A link is cut by a route that drops what the rank sends to a peer.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

# Imported by name, so that a virtual clock of the subject's code does not reach them.
from time import monotonic
from typing import Any, ClassVar

from ...core.links import Condition, Cut, Direction
from ...errors import BadArgument, MlchaosError

__all__ = ["RankNetwork", "RealLinks", "why_no_namespaces"]

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_INTERFACE = "eth0"
_AGENT = "10.77.0.254"
POLL_SECONDS = 0.01
COMMAND_SECONDS = 20.0
_PROBE = "link add br0 type bridge\nlink add v0 type veth peer name v1\nlink set lo up\n"


def _address(rank: int) -> str:
    return f"10.77.0.{rank + 1}"


@functools.cache
def why_no_namespaces() -> str:
    """Return the reason why ranks cannot have networks of their own, or "" if they can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    for command, package in (("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(command) is None:
            return f"the command {command} (package {package}) is missing"
    try:
        found = subprocess.run(
            ["unshare", "--map-root-user", "--net", "ip", "-batch", "-"],
            input=_PROBE,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unshare does not work ({type(error).__name__})"
    said = found.stderr.strip().partition("\n")[0]
    return f"the kernel does not allow it ({said})" if found.returncode else ""


class RankNetwork:
    """The bridge that the ranks of a world are attached to. The agent makes it."""

    environment: ClassVar[Mapping[str, str]] = {
        "MASTER_ADDR": _AGENT,
        "GLOO_SOCKET_IFNAME": _INTERFACE,
        "TP_SOCKET_IFNAME": _INTERFACE,
    }
    """The variables of the ranks."""

    def __init__(self) -> None:
        """Move this process, which has one thread, into new namespaces."""
        user, group = os.getuid(), os.getgid()
        _unshare(_NEW_USER | _NEW_NETWORK)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {user} 1"),
            ("gid_map", f"0 {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
        _ip(
            "link set lo up",
            "link add br0 type bridge",
            "link set br0 up",
            f"addr add {_AGENT}/24 dev br0",
        )

    def listen(self, port: int) -> socket.socket:
        """Return a listener of this network, with the port that the ranks know."""
        return socket.create_server(("", port), backlog=1024)

    def place(self, rank: int) -> _Place:
        """Return the place of a rank, before it is forked."""
        return _Place(rank)


class _Place:
    """The place of one rank in the network. ``enter`` and ``attach`` run side by side."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._entered, self._attached = os.pipe(), os.pipe()

    def enter(self) -> None:
        """Move this process, a rank, into a network namespace of its own."""
        for fd in (self._entered[0], self._attached[1]):
            os.close(fd)
        _unshare(_NEW_NETWORK)
        os.write(self._entered[1], b"1")
        if not os.read(self._attached[0], 1):
            raise MlchaosError("the rank could not be attached to the network")
        _ip(
            "link set lo up",
            f"addr add {_address(self._rank)}/24 dev {_INTERFACE}",
            f"link set {_INTERFACE} up",
        )
        for fd in (self._entered[1], self._attached[0]):
            os.close(fd)

    def attach(self, pid: int) -> None:
        """Attach the process of the rank to the bridge."""
        for fd in (self._entered[1], self._attached[0]):
            os.close(fd)
        try:
            if os.read(self._entered[0], 1):
                _ip(
                    f"link add v{self._rank} type veth peer name {_INTERFACE} netns {pid}",
                    f"link set v{self._rank} master br0 up",
                )
                os.write(self._attached[1], b"1")
        finally:
            for fd in (self._entered[0], self._attached[1]):
                os.close(fd)


class RealLinks:
    """The links of a rank with a network of its own. See ``core.links.Links``."""

    def __init__(self) -> None:
        self._cuts: list[_Cut] = []

    def impose(
        self,
        directions: Sequence[Direction],
        condition: Condition,
        took_effect: Callable[..., object],
    ) -> None:
        """Cut what this rank sends. See ``core.links.Links``."""
        if not isinstance(condition, Cut):
            raise BadArgument("real=True can cut links, and nothing else")
        cut = _Cut([_address(peer) for _, peer in directions], condition.heal_after, took_effect)
        self._cuts.append(cut)
        cut.begin()

    def close(self) -> None:
        """Report the effects so far."""
        for cut in self._cuts:
            cut.report()


class _Cut:
    """Routes that drop what is sent to some peers, until they heal."""

    def __init__(
        self, peers: Sequence[str], heal_after: float, took_effect: Callable[..., object]
    ) -> None:
        self._peers = peers
        self._heal_after = heal_after
        self._took_effect = took_effect
        self._lock = threading.Lock()
        self._reported = False
        self._dropped = 0

    def begin(self) -> None:
        """Add the routes."""
        self._dropped = _dropped_packets()
        _ip(*(f"route replace blackhole {peer}/32" for peer in self._peers))
        threading.Thread(target=self._watch, name="mlchaos-links", daemon=True).start()

    def report(self) -> None:
        """Report the first packet that was dropped, once."""
        with self._lock:
            if self._reported or _dropped_packets() <= self._dropped:
                return
            self._reported = True
        self._took_effect()

    def _watch(self) -> None:
        until = monotonic() + self._heal_after
        wait = threading.Event().wait
        while (left := until - monotonic()) > 0:
            self.report()
            if self._reported and self._heal_after == float("inf"):
                return
            wait(min(left, POLL_SECONDS))
        self.report()
        _ip(*(f"route del blackhole {peer}/32" for peer in self._peers))


def _dropped_packets() -> int:
    """Return the number of packets that found no route in this namespace."""
    with open("/proc/self/net/snmp", encoding="ascii") as file:
        names, values = (line.split() for line in file if line.startswith("Ip:"))
    return int(dict(zip(names, values, strict=True))["OutNoRoutes"])


def _unshare(flags: int) -> None:
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def _ip(*commands: str) -> None:
    """Run commands of iproute2 in the namespace of this process."""
    found = subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if found.returncode:
        raise MlchaosError(f"the network of a rank could not be set up: {found.stderr.strip()}")
