"""Note what a rank asks about the files of others, by ``os.stat`` and its relatives.

No event of the kernel tells of these. Opened files are known from events.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from ...engine.patching import Patches
from ...engine.scopes import INTERNAL_OPERATION, inside

__all__ = ["watch_looks"]

Looked = Callable[[str, bool], None]
"""Called with an absolute path, and True if the names in that directory were listed."""

_ASKS = ("stat", "lstat", "access", "readlink")
_LISTS = ("listdir", "scandir")


def watch_looks(patches: Patches, looked: Looked) -> None:
    """Tell ``looked`` of each path that Python code asks for, when the answer is there.

    Fidelity: C++ code that asks for a path without opening it is not seen.
    """
    with patches.together():
        for name in (*_ASKS, *_LISTS):
            old = getattr(os, name)
            new = _noting(old, looked, listing=name in _LISTS)
            patches.replace_everywhere(old, new)
            for capable in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks):
                # Code asks ``os.stat in os.supports_follow_symlinks``.
                if old in capable:
                    capable.add(new)
                    patches.on_undo(functools.partial(capable.discard, new))


def _noting(original: Callable[..., Any], looked: Looked, *, listing: bool) -> Callable[..., Any]:
    @functools.wraps(original)
    def noted(path: Any = ".", *args: Any, **keywords: Any) -> Any:
        try:
            return original(path, *args, **keywords)
        finally:
            if inside() != INTERNAL_OPERATION:
                found = _absolute(path, keywords.get("dir_fd"))
                if found is not None:
                    looked(found, listing)

    return noted


def _absolute(path: Any, folder: int | None) -> str | None:
    try:
        if isinstance(path, int):
            return os.path.realpath(f"/proc/self/fd/{path}")
        text = os.fsdecode("." if path is None else path)
        above = os.getcwd() if folder is None else os.path.realpath(f"/proc/self/fd/{folder}")
        return os.path.normpath(os.path.join(above, text))
    except (OSError, TypeError):
        return None
