"""Read the version of a dict, which CPython changes with each change of the dict.

The version is a private field, which CPython 3.11 to 3.13 have. ``is_versioned`` checks by an
experiment that this interpreter keeps it.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["is_versioned", "version_of"]

_PLACE = object.__basicsize__ + ctypes.sizeof(ctypes.c_ssize_t)
"""The field comes after the object's header and the number of items."""


def version_of(content: dict[str, Any]) -> ctypes.c_uint64:
    """Return the version field of a dict. ``bytes`` of it is the present version.

    It must not be read after the dict is gone.
    """
    return ctypes.c_uint64.from_address(id(content) + _PLACE)


@functools.cache
def is_versioned() -> bool:
    """Return True if this interpreter changes the version with each change of a dict."""
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 14):
        return False
    # Without a global lock, a dict may change between its version and a look at its content.
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False
    return dict.__basicsize__ >= _PLACE + ctypes.sizeof(ctypes.c_uint64) and _keeps_versions()


def _keeps_versions() -> bool:
    """Change a dict in each way, as code and from outside, and look at its version."""
    content: dict[str, Any] = {"__builtins__": {"__import__": __import__}}
    version = version_of(content)
    changes: tuple[Callable[[], object], ...] = (
        lambda: content.update(a=1),
        lambda: content.__setitem__("a", 2),
        lambda: content.setdefault("b", 3),
        lambda: exec("a = 4", content),
        lambda: exec("def change():\n global a\n a = a + 1\nchange()", content),
        lambda: exec("import sys as a", content),
        lambda: exec("del a", content),
        lambda: content.pop("b"),
        lambda: content.popitem(),
        lambda: content.clear(),
    )
    seen = [bytes(version)]
    for change in changes:
        change()
        seen.append(bytes(version))
        content.get("a")
        if bytes(version) != seen[-1]:
            return False
    return len(set(seen)) == len(seen)
