"""Name fault points: the places at which a fault can strike, as the fault coverage lists them."""

from __future__ import annotations

import re

from .sites import Key

__all__ = ["file_point", "key_point"]

_NUMBERS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b(?=\w*\d)[0-9a-f]{12,}\b|\d+")
_RANDOM = re.compile(r"\btmp[a-z0-9_]{8}\b")


def file_point(path: str) -> str:
    """Return the fault point of a file: ``storage ckpt-*.pt``."""
    return f"storage {_NUMBERS.sub('*', _RANDOM.sub('tmp*', path))}"


def key_point(key: Key) -> str:
    """Return the fault point of a site. The faults of one call share it, whatever they change."""
    site, rest = (key, "") if isinstance(key, str) else key
    kind = site.partition(".")[0]
    if kind == "storage":
        return file_point(rest) if rest else kind
    return f"{kind} {rest}" if kind == "call" else site
