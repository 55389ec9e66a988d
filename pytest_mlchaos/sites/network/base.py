"""Define the site ``network``, with the common parts of proxies and client libraries.

A proxy or a library turns what begins into an ``Exchange``, asks the trial's ``Network`` what
happens to it, and carries that out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import http.client
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from time import sleep  # the real one
from typing import Any, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

from ...core.clock import VirtualClock
from ...core.journal import Strike
from ...core.network import NETWORK, Exchange, Failure, Outage, is_cut
from ...core.sites import Key, site
from ...engine.attribution import attribute_strike
from ...engine.beside_process import is_quiet, visit_beside
from ...engine.controller import Controller
from ...engine.gate import pause
from ...engine.patching import Patches
from ...engine.scopes import INTERNAL_OPERATION, inside
from ...engine.zones import here, zone_map
from ..calls import find

__all__ = ["PROXIES", "Network", "Outcome", "active", "carrying", "mechanism", "plain_url"]

PROXIES = "MLCHAOS_PROXIES"
"""The environment variable with the ports of the open proxies, for child processes."""
ENDLESS_SECONDS = 3600.0
Outcome: TypeAlias = Literal["", "refused", "reset", "timeout"]
"""How a request of a client library fails, before an answer."""
Mechanism = Callable[["Network", Patches], None]
MECHANISMS: list[Mechanism] = []
_active: list[Network] = []
_SELECTORS = re.compile(r"(url|zone|target|apart)=(.*?)(?= (?:url|zone|target|apart)=|$)")
_OF_A_NETWORK = re.compile(
    r"Connect|Timeout|TimedOut|Protocol|Disconnect|Incomplete|Payload|HTTP|ReadError|WriteError|"
    r"OperationalError|ClientError|URLError|EndpointError|ChunkedEncoding"
)
"""The names of exception classes that a failure of the network can cause in a client."""


def mechanism(install: Mechanism) -> Mechanism:
    """Register ``install(network, patches)``, to be called in each trial with network faults."""
    MECHANISMS.append(install)
    return install


def active() -> Network | None:
    """Return the network that is watched now, or None."""
    return _active[-1] if _active else None


@site(
    NETWORK,
    "A connection of a proxy, a request of a client library, or a call of a zone's member. "
    "Payload: a core.network.Exchange.",
    beside=True,
)
def arm(controller: Controller, patches: Patches, key: Key) -> None:
    """Watch one more key. The first key of a trial also installs the mechanisms."""
    network = active()
    if network is None or network.controller is not controller:
        network = Network(controller)
        network.watch(key)
        if os.environ.get(PROXIES):  # those of the process that has started this one
            controller.claims.append(_is_of_network)
        _active.append(network)
        entered = network
        patches.on_undo(lambda: _active.remove(entered) if entered in _active else None)
        for install in MECHANISMS:
            install(network, patches)
    else:
        network.watch(key)


@dataclasses.dataclass(frozen=True, slots=True)
class _Selection:
    """The exchanges that a key counts."""

    url: Callable[[str], object] | None
    zone: str | None
    target: str | None
    apart: tuple[tuple[str, ...], ...] | None
    """The groups of zones between which it counts. Empty: between any two zones."""

    def holds(self, exchange: Exchange) -> bool:
        """Return True if the exchange counts."""
        return (
            (self.zone is None or self.zone == exchange.zone)
            and (self.url is None or bool(self.url(exchange.url)))
            and (self.apart is None or self._crosses(exchange))
            and (self.target is None or _is_called_by(self.target))
        )

    def _crosses(self, exchange: Exchange) -> bool:
        caller, zone = exchange.caller, exchange.zone
        if not self.apart:
            return bool(caller and zone and caller != zone)
        return is_cut(self.apart, caller, zone)


def _selection(key: Key) -> _Selection | None:
    if isinstance(key, str):
        return None
    chosen = dict(_SELECTORS.findall(key[1]))
    target = chosen.get("target")
    if target is not None:
        find(target)  # refuse a target that does not exist
    pattern = chosen.get("url")
    matches = None if pattern is None else re.compile(fnmatch.translate(pattern)).match
    apart = None
    if "apart" in chosen:
        apart = tuple(tuple(group) for group in json.loads(chosen["apart"]))
    return _Selection(matches, chosen.get("zone"), target, apart)


def _is_called_by(target: str) -> bool:
    """Return True if an object, an instance of a class, or a function is on the stack."""
    wanted = find(target)
    code = getattr(getattr(wanted, "__func__", wanted), "__code__", None)
    frame = sys._getframe(2)
    while frame is not None:
        if code is not None and frame.f_code is code:
            return True
        if code is None and frame.f_code.co_argcount:
            first = frame.f_locals.get(frame.f_code.co_varnames[0])
            if first is wanted or (isinstance(wanted, type) and isinstance(first, wanted)):
                return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class _Away:
    """The outage of a zone, or the partition of zones, which began with an exchange at a time.

    Args:
        exchange: The exchange.
        now: The time on the trial's clock.
        strike: Its strike in the journal.
        key: The key of the fault.
    """

    def __init__(self, exchange: Exchange, now: float, strike: Strike | None, key: Key) -> None:
        outage = exchange.outage or Outage()
        self.failure: Failure = exchange.failure
        self._zone, self._apart = exchange.zone, outage.apart
        self._until = None if outage.seconds is None else now + outage.seconds
        self._left = outage.connections
        self._strike, self._key = strike, key

    def covers(self, exchange: Exchange) -> bool:
        """Return True if the exchange is one of those that fail."""
        if self._apart:
            return is_cut(self._apart, exchange.caller, exchange.zone)
        return exchange.zone == self._zone

    def counts(self, now: float) -> bool:
        """Return True if one more connection fails."""
        if self._until is not None:
            return now < self._until
        self._left -= 1
        return self._left >= 0

    def hits(self, now: float) -> None:
        """Attribute one more failure to the strike."""
        if self._strike is not None:
            ended = now if self._until is None else self._until
            lasts = self._until is not None
            attribute_strike(self._strike, now, ended, self._key, lasts=lasts)


class Network:
    """The network of one trial, with its keys and outages."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._keys: list[tuple[Key, _Selection | None]] = []
        self._outages: list[_Away] = []
        self._begun: list[_Away] = []
        self._claims = False
        self.on_outage: dict[int, Callable[[_Away], None]] = {}
        """Functions that close the connections of a zone, by the port of their proxy."""

    def watch(self, key: Key) -> None:
        """Count exchanges on this key."""
        self._keys.append((key, _selection(key)))

    def begin(self, exchange: Exchange, attributes: Mapping[str, Any]) -> Exchange:
        """Return what happens to an exchange that begins."""
        place = here()
        caller = zone_map().home if place is None else place.zone
        if exchange.caller != caller:
            exchange = dataclasses.replace(exchange, caller=caller)
        before = exchange
        begun = self._begun
        elsewhere = bool(begun) and not any(one.covers(exchange) for one in begun)
        facts = {
            "url": exchange.url,
            "zone": exchange.zone,
            "caller": caller,
            "struck_elsewhere": elsewhere,
        }
        outage, journal = exchange.outage, self.controller.journal
        for key, selection in self._keys:
            if selection is None or selection.holds(exchange):
                struck = len(journal)
                exchange = visit_beside(self.controller, key, exchange, {**facts, **attributes})
                if exchange.outage is not outage:
                    outage = exchange.outage
                    self._begin_outage(
                        exchange, journal[-1] if len(journal) > struck else None, key
                    )
        if is_quiet(self.controller):
            return exchange
        if outage is None and not exchange.failure:
            exchange = self._in_outage(exchange)
        if exchange is not before and not self._claims:
            self._claims = True
            self.controller.claims.append(_is_of_network)
        return exchange

    def _begin_outage(self, exchange: Exchange, strike: Strike | None, key: Key) -> None:
        away = _Away(exchange, self.controller.clock.now(), strike, key)
        self._outages.append(away)
        self._begun.append(away)
        # The body can begin again, for the next example of a user's own ``@given``.
        self.controller.resources.callback(self._forget_outages)
        for close in list(self.on_outage.values()):
            close(away)

    def _forget_outages(self) -> None:
        self._outages.clear()
        self._begun.clear()

    def _in_outage(self, exchange: Exchange) -> Exchange:
        """Let an exchange fail if its zone is away, or cannot be reached."""
        now = self.controller.clock.now()
        for away in [one for one in self._outages if one.covers(exchange)]:
            if away.counts(now):
                away.hits(now)
                return dataclasses.replace(exchange, failure=away.failure)
            self._outages.remove(away)
        return exchange

    @property
    def outages(self) -> int:
        """Return the number of outages that have begun."""
        return len(self._begun)

    def was_cut(self, exchange: Exchange, outages: int) -> bool:
        """Return True if an outage has begun since then that covers the exchange."""
        if is_quiet(self.controller):
            return False
        cut = next((one for one in self._begun[outages:] if one.covers(exchange)), None)
        if cut is not None:
            cut.hits(self.controller.clock.now())
        return cut is not None

    def request(self, url: str, method: str) -> Exchange | None:
        """Return what happens to a request of a client library, or None for nothing.

        Requests to a proxy are left to the proxy. A library inside another one carries out what the
        outer one has left.
        """
        carried = _carried.get()
        if carried is not None:
            return carried.exchange
        if inside() == INTERNAL_OPERATION or _is_proxied(url):
            return None
        address = plain_url(url)
        exchange = Exchange(address, "http", zone_map().zone_of(address), method=method)
        exchange = self.begin(exchange, {"method": method})
        return None if exchange.is_quiet else exchange

    def left(self) -> Exchange | None:
        """Return what a library has left to the standard library below it."""
        carried = _carried.get()
        return None if carried is None else carried.exchange

    def outcome(self, exchange: Exchange, timeout: float | None) -> Outcome:
        """Let the time before an answer pass, and return how the request fails, if it does.

        Args:
            exchange: What happens to the request.
            timeout: The client's time limit for an answer in seconds, or None.
        """
        outcome, seconds = self._before(exchange, timeout)
        clock = self.controller.clock
        if seconds == math.inf:
            self._wait_for_ever()
        if seconds:
            clock.sleep(seconds)
        return outcome

    def _wait_for_ever(self) -> None:
        """Wait until the time limit of the trial, which passes on a virtual clock at once."""
        controller = self.controller
        clock = controller.clock
        limit, interrupt = controller.limit, controller.interrupt
        is_virtual = isinstance(clock, VirtualClock) and clock.governs
        if limit is not None and interrupt is not None and is_virtual:
            clock.sleep(limit[0])
            interrupt()
        clock.become_real("a request without a time limit waits for ever")
        while True:
            sleep(ENDLESS_SECONDS)

    async def outcome_async(self, exchange: Exchange, timeout: float | None) -> Outcome:
        """Do the same as ``outcome`` in a coroutine, while other tasks run."""
        outcome, seconds = self._before(exchange, timeout)
        if seconds == math.inf:
            self.controller.clock.become_real("a request without a time limit waits for ever")
            while True:  # the time limit of the trial ends it
                await pause(self.controller.clock, ENDLESS_SECONDS)
        if seconds:
            await pause(self.controller.clock, seconds)
        return outcome

    def _before(self, exchange: Exchange, timeout: float | None) -> tuple[Outcome, float]:
        """Return how a request fails, and the seconds before."""
        if exchange.failure == "blackhole":
            return "timeout", math.inf if timeout is None else timeout
        if exchange.failure:
            return exchange.failure, 0.0
        delay = 0.0 if exchange.pace is None else exchange.pace.delay_of(0)
        if timeout is not None and delay > timeout:
            return "timeout", timeout
        return "", delay

    def transferred(self, exchange: Exchange, size: int) -> float:
        """Return the seconds that bytes take at the bandwidth of the exchange."""
        rate = None if exchange.pace is None else exchange.pace.bandwidth
        return 0.0 if rate is None else size / rate


@dataclasses.dataclass(frozen=True, slots=True)
class _Carried:
    """The part of an exchange that an outer library leaves to the one below it, or nothing."""

    exchange: Exchange | None


_carried: ContextVar[_Carried | None] = ContextVar("mlchaos_exchange", default=None)


@contextlib.contextmanager
def carrying(exchange: Exchange | None) -> Iterator[None]:
    """Leave the rest of an exchange to the library below, whose requests are not counted again."""
    token = _carried.set(_Carried(exchange))
    try:
        yield
    finally:
        _carried.reset(token)


def _is_of_network(error: BaseException) -> bool:
    """Return True if a failure of the network can have caused an error."""
    seen = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, (ConnectionError, TimeoutError, http.client.HTTPException)) or any(
            _OF_A_NETWORK.search(base.__name__) for base in type(cause).__mro__
        ):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_proxied(url: str) -> bool:
    ports = os.environ.get(PROXIES)
    if not ports:
        return False
    where = urlsplit(url)
    return where.hostname in ("127.0.0.1", "localhost") and str(where.port) in ports.split(",")


@functools.lru_cache(maxsize=1024)
def plain_url(url: str) -> str:
    """Return an address without credentials, query and fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return SplitResult(parts.scheme, host, parts.path, "", "").geturl()
