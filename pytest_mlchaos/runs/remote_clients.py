"""Give a run without faults the clients of a fresh process, with empty listings."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["fresh_clients"]


@contextlib.contextmanager
def fresh_clients() -> Iterator[None]:
    """Let fsspec make new filesystems inside, and empty the listings of those that exist.

    Afterwards the filesystems from before are there again, with their listings.
    """
    specification: Any = sys.modules.get("fsspec.spec")
    kinds = [] if specification is None else _kinds(specification.AbstractFileSystem)
    made: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
    listed: list[tuple[Any, Any]] = []
    for kind in kinds:
        known = vars(kind).get("_cache")
        if isinstance(known, dict):
            made.append((known, dict(known)))
            for client in known.values():
                listing = getattr(client, "dircache", None)
                if hasattr(listing, "_cache") and hasattr(listing, "_times"):
                    listed.append((client, listing))
                    client.dircache = copy.copy(listing)
                    client.dircache._cache, client.dircache._times = {}, {}
            known.clear()
    try:
        yield
    finally:
        for known, before in made:
            known.clear()
            known.update(before)
        for client, listing in listed:
            client.dircache = listing


def _kinds(base: Any) -> list[Any]:
    """Return a class and all that are derived from it."""
    return [base, *(kind for derived in base.__subclasses__() for kind in _kinds(derived))]
