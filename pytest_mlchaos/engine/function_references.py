"""Pickle replaced functions by reference.

Pickle looks up a function by its name, and refuses one that differs from the object there. A
default argument, a partial or a table may still hold the original function. This module lets pickle
store it as a reference to its name, as without the replacement.
"""

from __future__ import annotations

import functools
import io
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

from .patching import Patches
from .stand_ins import unbound

__all__ = ["by_reference"]

_replaced: dict[int, Any] = {}
"""The original functions. They are kept alive so that no other object gets their id."""


def by_reference(patches: Patches, original: object) -> None:
    """Let pickle accept ``original`` under its name, until the patches are undone."""
    if id(original) in _replaced or not isinstance(getattr(original, "__qualname__", None), str):
        return
    first = not _replaced
    _replaced[id(original)] = original
    patches.on_undo(functools.partial(_replaced.pop, id(original), None))
    if first:
        _patch_picklers(patches)


def _reduce(value: Any) -> Any:
    """Reduce a replaced function to the look-up of its name.

    Return NotImplemented for other values.
    """
    if id(value) not in _replaced:
        return NotImplemented
    name = f"{value.__module__}:{value.__qualname__}"
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return NotImplemented
    return NotImplemented if found is value else (pkgutil.resolve_name, (name,))


def _patch_picklers(patches: Patches) -> None:
    """Patch all picklers: the C and the Python one, and the classes derived from them."""
    compiled = pickle.Pickler

    class Pickler(compiled):  # type: ignore[misc, valid-type]  # it is a class
        """The C pickler as a Python class, because the C class cannot be patched."""

        def reducer_override(self, value: object) -> Any:
            """Reduce a function that pickle would refuse."""
            return _reduce(value)

    Pickler.__module__, Pickler.__qualname__ = compiled.__module__, compiled.__qualname__

    def dump(
        value: object,
        file: object,
        protocol: int | None = None,
        *,
        fix_imports: bool = True,
        buffer_callback: object = None,
    ) -> None:
        Pickler(file, protocol, fix_imports=fix_imports, buffer_callback=buffer_callback).dump(
            value
        )

    def dumps(
        value: object,
        protocol: int | None = None,
        *,
        fix_imports: bool = True,
        buffer_callback: object = None,
    ) -> bytes:
        file = io.BytesIO()
        dump(value, file, protocol, fix_imports=fix_imports, buffer_callback=buffer_callback)
        return file.getvalue()

    for base in (compiled, pickle._Pickler):
        for cls in list(_descendants(base)):
            if cls is not Pickler and (
                "reducer_override" in vars(cls) or not hasattr(cls.__base__, "reducer_override")
            ):
                patches.set(cls, "reducer_override", _before(vars(cls).get("reducer_override")))
    patches.set(pickle._Pickler, "reducer_override", _before(None))
    patches.set(pickle, "Pickler", Pickler)
    with patches.together():
        for original, replacement in ((pickle.dump, dump), (pickle.dumps, dumps)):
            patches.replace_everywhere(
                original, unbound(functools.wraps(original)(replacement), original)
            )


def _before(own: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
    """Return a ``reducer_override`` that runs before the class's own one."""

    def reducer_override(self: object, value: object) -> Any:
        reduced = _reduce(value)
        return reduced if reduced is not NotImplemented or own is None else own(self, value)

    return reducer_override


def _descendants(cls: type) -> Iterator[type]:
    child: type
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)
