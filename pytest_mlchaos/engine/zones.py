"""Keep the zones of a trial: which of them the running code is in, and which one an address is in."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

__all__ = ["Place", "ZoneMap", "carry_place", "here", "inside_of", "open_map", "zone_map"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A member of a zone, whose code is running.

    Attributes:
        zone: The zone.
        name: The member's name, as ``app:Replica``.
    """

    zone: str
    name: str


_PLACE: ContextVar[Place | None] = ContextVar("mlchaos_zone", default=None)


@dataclasses.dataclass(frozen=True, slots=True)
class ZoneMap:
    """The zones of a trial.

    Attributes:
        names: The names of the zones.
        home: The zone of code outside of members, or an empty text.
        urls: Patterns of addresses, each with its zone.
    """

    names: tuple[str, ...]
    home: str = ""
    urls: Sequence[tuple[str, str]] = ()

    def zone_of(self, *urls: str) -> str:
        """Return the zone of the first pattern that matches one of these addresses, or ""."""
        for pattern, zone in self.urls:
            matches = re.compile(fnmatch.translate(pattern)).match
            if any(matches(url) or url.startswith(pattern.rstrip("/") + "/") for url in urls):
                return zone
        return ""


_NO_ZONES = ZoneMap(())
_maps: list[ZoneMap] = []


def zone_map() -> ZoneMap:
    """Return the zones of the running trial."""
    return _maps[-1] if _maps else _NO_ZONES


def open_map(zones: ZoneMap) -> Callable[[], None]:
    """Let a trial have these zones, until the returned function is called."""
    _maps.append(zones)

    def close() -> None:
        if zones in _maps:
            _maps.remove(zones)

    return close


def here() -> Place | None:
    """Return the member whose code is running, or None."""
    return _PLACE.get()


@contextlib.contextmanager
def inside_of(place: Place | None) -> Iterator[None]:
    """Run code of a member inside. Tasks that start inside inherit it."""
    before = _PLACE.get()
    _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.set(before)


def carry_place(function: Callable[..., object]) -> Callable[..., object]:
    """Return ``function`` as code of the current member, for a thread with a different context."""
    place = here()
    if place is None:
        return function

    def carrying(*args: object, **kwargs: object) -> object:
        with inside_of(place):
            return function(*args, **kwargs)

    return carrying
