"""Find the module-level names of objects, and look only at modules that have changed since.

There are tens of thousands of names. A search of all takes longer than all else that arms a trial,
and nearly all modules are the same as in the last trial.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import operator
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ..core.interrupts import deferred
from .dict_versions import is_versioned, version_of

__all__ = ["FUNCTIONS", "Name", "names"]

FUNCTIONS = {types.FunctionType, types.BuiltinFunctionType}
"""The types whose objects can be looked up in a set without running user code."""

_SIZE = ctypes.sizeof(ctypes.c_uint64)
_BLOCK = 32 * _SIZE
_NEW = b"\xff" * _SIZE
"""A version that no dict has."""


class _Entry:
    """A module in ``sys.modules``. It is not kept alive."""

    __slots__ = ("changed", "index", "key", "module", "version")

    def __init__(self, key: str, module: object, changed: int) -> None:
        self.key = key
        self.module = _reference(module)
        self.changed = changed
        """The moment of the last change that was noticed, apart from the plugin's own."""
        self.index = -1
        self.version: ctypes.c_uint64 | None = None
        if is_versioned() and _has_one_dict(type(module)):
            self.version = version_of(vars(module))

    @property
    def is_searched_always(self) -> bool:
        """Return True for a module whose changes go unnoticed."""
        return self.version is None and isinstance(self.module(), types.ModuleType)


class Name(NamedTuple):
    """A module-level name of an object."""

    entry: _Entry
    module: types.ModuleType
    name: str
    place: int
    """The object's index in the objects that were searched for."""


class _Known(NamedTuple):
    """The names of one object at one moment."""

    object: weakref.ref[Any]
    moment: int
    names: list[tuple[_Entry, str]]


class ModuleNames:
    """The modules of this process, in the order in which they changed.

    A *moment* is a number that grows with each change that is noticed. A change is noticed by the
    version of the module's namespace, so it does not matter which code made it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._moment = 0
        self._forget()
        os.register_at_fork(after_in_child=self._in_child)

    def _forget(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._loaded: tuple[object, object] = (None, None)
        self._versioned: list[_Entry] = []
        self._fields: list[ctypes.c_uint64] = []
        self._versions = bytearray()
        self._always: list[_Entry] = []
        self._recent: dict[_Entry, None] = {}
        self._assigned: dict[tuple[_Entry, str], int] = {}
        self._known: dict[int, _Known] = {}

    def _in_child(self) -> None:
        """Begin anew in a forked process, because another thread may have held the lock."""
        if not self._lock.acquire(blocking=False):
            self._lock = threading.RLock()
            self._forget()
        else:
            self._lock.release()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and signal handlers out. After an error, begin anew."""
        with deferred(), self._lock:
            try:
                yield
            except BaseException:
                self._forget()
                raise

    @property
    def moment(self) -> int:
        """Return the present moment. An object that is made later has no name yet."""
        return self._moment

    def find(self, wanted: Sequence[object], *, made_after: int | None = None) -> list[Name]:
        """Return each module-level name that is bound to one of these very objects.

        Args:
            wanted: The objects.
            made_after: A moment before all of the objects were made, if there is one. Modules that
                have not changed since cannot have names for them.
        """
        with self._alone():
            self._look()
            if made_after is not None:
                return self._search(wanted, made_after)
            known = [self._recall(one) for one in wanted]
            since = min((one.moment if one else 0 for one in known), default=0)
            found = self._search(wanted, since)
            for place, one in enumerate(known):
                for entry, name in one.names if one else ():
                    if (
                        entry.changed <= since
                        and self._assigned.get((entry, name), 0) <= since
                        and entry in self._recent
                    ):
                        module: Any = entry.module()
                        found.append(Name(entry, module, name, place))
            self._remember(wanted, found)
            return found

    def assign(self, module: object, name: str, value: object) -> None:
        """Set an attribute. If it is one of a module, later searches look at this name alone."""
        if type(module) is not types.ModuleType:
            setattr(module, name, value)
            return
        # An interrupted assignment is a change that the next search notices.
        with self._lock:
            key = vars(module).get("__name__")
            entry = self._entries.get(key) if type(key) is str else None
            if entry is None or entry.version is None or entry.module() is not module:
                setattr(module, name, value)
                return
            version = functools.partial(bytes, entry.version)
            steps: tuple[Callable[[], Any], ...] = (
                version,
                functools.partial(setattr, module, name, value),
                version,
            )
            # In C, so that no other thread runs between the steps.
            before, _, after = map(_call, steps)
            place = slice(entry.index * _SIZE, (entry.index + 1) * _SIZE)
            if before == self._versions[place]:
                self._moment += 1
                self._assigned.pop((entry, name), None)
                self._assigned[entry, name] = self._moment
                self._versions[place] = after

    # -- what has changed --------------------------------------------------------------------------

    def _look(self) -> None:
        """Notice modules that are new, gone or changed."""
        # A copy, because the fields of a module that is gone must not be read.
        modules = sys.modules.copy()
        loaded = sys.modules, bytes(version_of(sys.modules)) if is_versioned() else object()
        if loaded[0] is not self._loaded[0] or loaded[1] != self._loaded[1]:
            modules = sys.modules.copy()
            self._take(modules)
            self._loaded = loaded
        # One copy in C, because there are thousands of modules.
        versions = bytearray().join(self._fields)
        if versions == self._versions:
            return
        self._moment += 1
        for index in _differences(versions, self._versions):
            entry = self._versioned[index]
            entry.changed = self._moment
            self._recent.pop(entry, None)
            self._recent[entry] = None
        self._versions = versions

    def _take(self, loaded: dict[str, types.ModuleType]) -> None:
        """Use the modules that are loaded now. A new one counts as changed."""
        self._moment += 1
        kept = {
            entry: bytes(self._versions[index * _SIZE : (index + 1) * _SIZE])
            for index, entry in enumerate(self._versioned)
        }
        known = self._entries
        self._entries = {
            name: entry
            if (entry := known.get(name)) is not None and entry.module() is module
            else _Entry(name, module, self._moment)
            for name, module in loaded.items()
        }
        entries = self._entries.values()
        self._versioned = [entry for entry in entries if entry.version is not None]
        for index, entry in enumerate(self._versioned):
            entry.index = index
        self._fields = [entry.version for entry in self._versioned if entry.version is not None]
        self._versions = bytearray().join(kept.get(entry, _NEW) for entry in self._versioned)
        self._always = [entry for entry in entries if entry.is_searched_always]
        still = set(entries)
        self._recent = {entry: None for entry in self._recent if entry in still}
        self._assigned = {at: when for at, when in self._assigned.items() if at[0] in still}

    # -- the names ---------------------------------------------------------------------------------

    def _search(self, wanted: Sequence[object], since: int) -> list[Name]:
        """Search what may have changed after a moment."""
        changed = itertools.takewhile(lambda entry: entry.changed > since, reversed(self._recent))
        modules = [
            (entry, module)
            for entry in (*self._always, *changed)
            if isinstance(module := entry.module(), types.ModuleType)
        ]
        assigned = itertools.takewhile(lambda at: at[1] > since, reversed(self._assigned.items()))
        # A search of a module covers what the plugin assigned there.
        single = [at for at, _ in assigned if at[0].changed <= since]
        return [*_bound(wanted, modules), *_bound_alone(wanted, single)]

    def _recall(self, one: object) -> _Known | None:
        known = self._known.get(id(one))
        return known if known is not None and known.object() is one else None

    def _remember(self, wanted: Sequence[object], found: list[Name]) -> None:
        """Remember the names of the objects, as long as these live."""
        for place, one in enumerate(wanted):
            try:
                reference = weakref.ref(one, functools.partial(self._drop, id(one)))
            except TypeError:  # it takes no weak reference, and is searched for each time
                continue
            held = [(at.entry, at.name) for at in found if at.place == place]
            self._known[id(one)] = _Known(reference, self._moment, held)

    def _drop(self, key: int, gone: weakref.ref[Any]) -> None:
        known = self._known.get(key)
        if known is not None and known.object is gone:
            self._known.pop(key, None)


_call: Callable[[Callable[[], Any]], Any] = operator.call


def _differences(one: bytearray, other: bytearray) -> list[int]:
    """Return the indices of the versions that differ. These are few, so whole blocks are equal."""
    return [
        place // _SIZE
        for block in range(0, len(one), _BLOCK)
        if one[block : block + _BLOCK] != other[block : block + _BLOCK]
        for place in range(block, min(block + _BLOCK, len(one)), _SIZE)
        if one[place : place + _SIZE] != other[place : place + _SIZE]
    ]


def _has_one_dict(kind: type) -> bool:
    """Return True for a class of modules that does not compute the ``__dict__`` of a module."""
    module = types.ModuleType
    return (
        issubclass(kind, module)
        and kind.__getattribute__ is module.__getattribute__
        and not any("__dict__" in vars(cls) for cls in kind.__mro__[: kind.__mro__.index(module)])
    )


def _reference(module: object) -> Callable[[], object]:
    """Return a weak reference if there can be one.

    There can be one to each real module, but not to None or to an object that only claims to be a
    module (by ``__class__``).
    """
    try:
        return weakref.ref(module)
    except TypeError:
        return lambda: module


def _bound(
    wanted: Sequence[object], modules: Sequence[tuple[_Entry, types.ModuleType]]
) -> list[Name]:
    kinds = set(map(type, wanted))
    quick = frozenset(wanted) if all(map(_is_told_by_identity, kinds)) else None
    # This must be one comprehension. The jump that ends a loop has no line number in CPython 3.11,
    # and a traceback that begins there breaks pytest.
    return [
        Name(entry, module, name, place)
        for entry, module in modules
        for name, held in vars(module).copy().items()
        if type(held) in kinds and (quick is None or held in quick)
        for place, one in enumerate(wanted)
        if one is held
    ]


def _bound_alone(wanted: Sequence[object], names: Sequence[tuple[_Entry, str]]) -> list[Name]:
    """Return those of the given names that are bound to one of the objects."""
    return [
        Name(entry, module, name, place)
        for entry, name in names
        if isinstance(module := entry.module(), types.ModuleType)
        for held in (vars(module).get(name, names),)
        for place, one in enumerate(wanted)
        if one is held
    ]


def _is_told_by_identity(kind: Any) -> bool:
    """Return True if objects of this type can be looked up in a set without running user code."""
    return kind in FUNCTIONS or (kind.__eq__ is object.__eq__ and kind.__hash__ is object.__hash__)


names = ModuleNames()
"""The names in this process."""
