"""Save and restore the memory of user modules, and of a subject.

A golden run, a golden load and the next trial must not find what a call left there.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import copy
import enum
import functools
import itertools
import operator
import os
import queue
import random
import sys
import threading
import types
import unittest.mock
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..engine.activity import TOOLS
from ..engine.import_hooks import watch_imports
from ..engine.user_code import Project, current_project, is_users
from .module_globals import user_modules

__all__ = ["UserState"]

MAX_DEPTH = 4
"""The depth to which objects of installed packages are followed: an app, its state, its content."""
MAX_OBJECTS = 100_000
"""The largest number of objects that are saved."""
_CONTAINERS = frozenset(
    (
        dict,
        collections.OrderedDict,
        collections.defaultdict,
        collections.Counter,
        list,
        set,
        collections.deque,
    )
)
_OF_THE_STANDARD_LIBRARY = (
    types.SimpleNamespace,
    threading.local,
    threading.Semaphore,
    queue.Queue,
    asyncio.Queue,
    asyncio.Lock,
    asyncio.Event,
    asyncio.Semaphore,
    asyncio.Condition,
    collections.UserDict,
    collections.UserList,
    unittest.mock.NonCallableMock,
)
"""Classes whose instances are plain state.

Instances of others, such as threads, loops and sockets, cannot be restored.
"""
_CACHE: Any = type(functools.lru_cache(len))
_COUNTERS = (itertools.count, itertools.cycle)
_MOVING = frozenset((*_COUNTERS, random.Random))
_ABSENT = object()
_SEEN: dict[str, tuple[int, int, Project, list[Any]]] = {}
"""The modules that have been searched.

Each entry has the identity and the number of the module's names, the project, and its containers.
The containers are kept alive, so that their ids stay unique.
"""
_OTHERS: list[tuple[Any, set[int]]] = []
"""The result of the last search, with what it depends on: the modules and the project."""
_SLOTS: weakref.WeakKeyDictionary[type, tuple[Any, ...]] = weakref.WeakKeyDictionary()


class UserState:
    """Save the names in user modules, and all that they and the ``roots`` reach.

    These are containers, instances, classes, closures, caches and counters. Contents are restored
    in place, so that each object stays the same under all its names. Not restored are the content
    of C code (arrays, connections), the variables of running functions and tasks, and the inside of
    threads and event loops.
    """

    def __init__(self, roots: Iterable[Any] = ()) -> None:
        self._kept: list[_Kept] = []
        seen: set[int] = set()
        self._alive: list[Any] = []
        others = _of_other_modules()
        roots = list(roots)
        to_see: collections.deque[tuple[Any, int]] = collections.deque(
            (_Names(vars(module)), 0) for module in _modules(roots, sys._getframe(1))
        )
        to_see.extend((root, 0) for root in roots)
        while to_see and len(self._kept) < MAX_OBJECTS:
            value, depth = to_see.popleft()
            if id(value) in seen or id(value) in others:
                continue
            for kept in _keep(value, depth):
                seen.add(id(value))
                self._alive.append(value)
                self._kept.append(kept)
                to_see.extend((held, kept.depth) for held in kept.reaches())
        self._at_start = self.contents()

    def contents(self) -> list[Content]:
        """Return the current content of all saved objects."""
        return [kept.content() for kept in self._kept]

    def adopt(self, before: list[Content]) -> None:
        """Add the changes since ``before`` to the saved start. The test, or an import, made them."""
        for place, (kept, was) in enumerate(zip(self._kept, before, strict=True)):
            now = kept.content()
            if not _same(now, was):
                self._at_start[place] = _with_changes(self._at_start[place], was, now)

    @contextlib.contextmanager
    def following_imports(self) -> Iterator[None]:
        """Add changes during an import to the saved start, because an import runs once per process."""
        before: list[Content] = []

        def begin() -> None:
            before[:] = self.contents()

        with watch_imports(begin, lambda: self.adopt(before)):
            yield

    def restore(self, contents: list[Content] | None = None) -> None:
        """Restore the content from the start, or the given content."""
        copies: dict[int, Any] = {}
        wanted = zip(self._kept, self._at_start if contents is None else contents, strict=True)
        changed = [(kept, was) for kept, was in wanted if not _same(kept.content(), was)]
        for kept, was in changed:
            if isinstance(kept, _Items) and any(
                isinstance(value, types.ModuleType) for value in (*was[1], *kept.content()[1])
            ):
                continue  # This is a registry of imported modules, and imports are not reverted.
            with contextlib.suppress(AttributeError, TypeError):
                # An attribute may be read-only by now.
                kept.put_back(
                    [
                        (key, _fresh(value, copies))
                        for key, value in zip(
                            was[0] or itertools.repeat(None), was[1], strict=False
                        )
                    ]
                )

    @contextlib.contextmanager
    def as_at_the_start(self) -> Iterator[None]:
        """Restore the content from the start inside this context, and the current content at its
        end.
        """
        now = self.contents()
        self.restore()
        try:
            yield
        finally:
            self.restore(now)


class _Names:
    """Wrap the names of a module, because its dict is not a container of the user's."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names


Content = tuple[tuple[Any, ...], tuple[Any, ...]]
"""The keys and the values of an object. A list or a set has no keys."""


class _Kept:
    """Read and restore the content of an object."""

    def __init__(
        self,
        read: Callable[[], Content],
        put_back: Callable[[list[tuple[Any, Any]]], None],
        depth: int,
    ) -> None:
        self._read = read
        self.put_back = put_back
        self.depth = depth

    def content(self) -> Content:
        keys, values = self._read()
        # It is a hot path: most contents have no counter.
        if _MOVING.isdisjoint(map(type, values)):
            return keys, values
        return keys, tuple(map(_frozen, values))

    def reaches(self) -> Iterator[Any]:
        keys, values = self._read()
        yield from values
        yield from (key for key in keys if type(key) is tuple)


class _Items(_Kept):
    """Read and restore the content of a container."""


class _Frozen:
    """Hold a counter, or a random number generator, with its position."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.state = value.getstate() if isinstance(value, random.Random) else copy.copy(value)


def _frozen(value: object) -> Any:
    return _Frozen(value) if type(value) in _MOVING else value


def _fresh(value: Any, copies: dict[int, Any]) -> Any:
    if not isinstance(value, _Frozen):
        return value
    if isinstance(value.value, random.Random):
        value.value.setstate(value.state)
        return value.value
    return copies.setdefault(id(value.value), copy.copy(value.state))


def _same(one: Content, other: Content) -> bool:
    if len(one[1]) != len(other[1]) or len(one[0]) != len(other[0]):
        return False
    if not all(map(operator.is_, one[0], other[0])):
        return False
    return all(map(operator.is_, one[1], other[1])) or all(map(_is_same, one[1], other[1]))


def _with_changes(start: Content, before: Content, now: Content) -> Content:
    """Return the start with the changes between ``before`` and ``now``."""
    if not (start[0] or before[0] or now[0]):
        # Items without keys are those of a list.
        kept = now[1][: len(before[1])]
        return ((), (*start[1], *now[1][len(before[1]) :])) if _same(((), kept), before) else now
    found, old, new = (dict(zip(*content, strict=True)) for content in (start, before, now))
    for key in old.keys() - new.keys():
        found.pop(key, None)
    found.update(
        (key, value)
        for key, value in new.items()
        if key not in old or not _is_same(old[key], value)
    )
    return tuple(found), tuple(found.values())


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, _Frozen) and isinstance(other, _Frozen):
        return one.value is other.value and (
            one.state == other.state or repr(one.state) == repr(other.state)
        )
    return one is other


def _keep(value: Any, depth: int) -> list[_Kept]:
    """Return the handlers that save an object. Return none if it is not saved."""
    cls = type(value)
    if cls is _Names:
        return [
            _Kept(
                functools.partial(_read_names, value.names),
                functools.partial(_put_names, value.names),
                0,
            )
        ]
    if cls in _CONTAINERS:
        return [_items(value, depth)]
    if cls is types.FunctionType:
        mine = is_users(value.__code__.co_filename)
        return (
            [
                _Kept(
                    functools.partial(_read_function, value),
                    functools.partial(_put_function, value),
                    0,
                )
            ]
            if mine
            else []
        )
    if cls is _CACHE:
        return [
            _Kept(
                lambda: ((value.cache_info().misses,), (value.__wrapped__,)),
                lambda content: value.cache_clear(),
                depth,
            )
        ]
    if parts := _parts(value):
        return [_Kept(lambda: ((), parts), lambda content: None, depth)]
    if isinstance(value, type):
        mine = _is_users_class(value) and not issubclass(value, enum.Enum)
        return (
            [_Kept(functools.partial(_read_class, value), functools.partial(_put_class, value), 0)]
            if mine
            else []
        )
    below = 0 if _is_users_class(cls) else depth + 1
    if below > MAX_DEPTH or not _is_followed(cls) or issubclass(cls, types.ModuleType):
        return []
    found = [
        _Kept(
            functools.partial(_read_instance, value), functools.partial(_put_instance, value), below
        )
    ]
    return (
        [*found, _items(value, below)]
        if isinstance(value, (dict, list, set, collections.deque))
        else found
    )


def _items(container: object, depth: int) -> _Kept:
    kind = _kind(container)
    read = (
        _dict_reader(kind, container) if issubclass(kind, dict) else _list_reader(kind, container)
    )
    return _Items(read, functools.partial(_put_container, container), depth)


def _dict_reader(kind: Any, container: Any) -> Callable[[], Content]:
    def read() -> Content:
        # A copy, because other threads may change the dict between its keys and its values.
        held = kind.copy(container) if kind is dict else dict(kind.items(container))
        return tuple(held), tuple(held.values())

    return read


def _list_reader(kind: Any, container: Any) -> Callable[[], Content]:
    iterate = kind.__iter__
    return lambda: ((), tuple(iterate(container)))


def _parts(value: object) -> tuple[Any, ...]:
    """Return the parts of an object that cannot change itself, but refers to others."""
    if isinstance(value, tuple):
        return tuple(value)
    if isinstance(value, types.MethodType):
        return value.__self__, value.__func__
    if isinstance(value, (staticmethod, classmethod)):
        return (value.__func__,)
    if isinstance(value, property):
        return value.fget, value.fset
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    return ()


def _is_users_class(cls: type) -> bool:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return isinstance(file, str) and is_users(file)


def _is_followed(cls: type) -> bool:
    """Return True if instances of a class hold plain state.

    These are classes of the user, of installed packages, and those listed above.
    """
    package = str(cls.__module__).partition(".")[0]
    if package in TOOLS:
        return False
    return issubclass(cls, _OF_THE_STANDARD_LIBRARY) or package not in sys.stdlib_module_names


def _modules(roots: list[Any], frame: types.FrameType | None) -> list[types.ModuleType]:
    """Return the user's modules, but of the modules of tests only those that take part.

    These are the ones on the stack, those that have a name for a root, and those whose objects or
    functions one of the others uses. A session has hundreds of others.
    """
    found, tests = [], {}
    for module in user_modules():
        name = os.path.basename(vars(module)["__file__"])
        if name.startswith("test_") or name.endswith("_test.py"):
            tests[module.__name__] = module
        else:
            found.append(module)
    used: list[str] = []
    while frame is not None:
        used.append(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    wanted = {id(root) for root in roots}
    used += [
        name
        for name, module in tests.items()
        if not wanted.isdisjoint(map(id, vars(module).values()))
    ]
    used += [_module_of(root) for root in roots]
    to_see = list(found)
    while True:
        added = [tests.pop(name) for name in dict.fromkeys(used) if name in tests]
        found += added
        to_see += added
        if not to_see or not tests:
            return found
        used = [
            name
            for module in to_see
            for value in list(vars(module).values())
            # A package has a name for each of its modules, used or not.
            if not (name := _module_of(value)).startswith(f"{module.__name__}.")
        ]
        to_see = []


def _module_of(value: Any) -> str:
    """Return the name of the module that has made a value, or that it is."""
    cls = type(value)
    if issubclass(cls, types.ModuleType):
        return str(types.ModuleType.__getattribute__(value, "__name__"))
    if cls is functools.partial:
        return _module_of(value.func)
    if cls is types.MethodType:
        return _module_of(value.__func__)
    name = value.__module__ if cls is types.FunctionType or cls is type else cls.__module__
    return name if isinstance(name, str) else ""


def _of_other_modules() -> set[int]:
    """Return the ids of containers of modules that are not the user's, and of the modules' names.

    A user's module may have a name for such a container, for example ``sys.path``.
    """
    project = current_project()
    modules = [
        (name, vars(module))
        for name, module in sys.modules.copy().items()
        if issubclass(type(module), types.ModuleType)
    ]
    key = project, tuple((name, id(names), len(names)) for name, names in modules)
    if _OTHERS and _OTHERS[0][0] == key:
        return _OTHERS[0][1]
    found = _search(modules, project)
    _OTHERS[:] = [(key, found)]
    return found


def _search(modules: list[tuple[str, dict[str, Any]]], project: Project) -> set[int]:
    found: set[int] = set()
    for name, names in modules:
        known = _SEEN.get(name)
        if known is None or known[:3] != (id(names), len(names), project):
            file = names.get("__file__")
            mine = isinstance(file, str) and is_users(file)
            held = (
                []
                if mine
                else [value for value in list(names.values()) if type(value) in _CONTAINERS]
            )
            known = _SEEN[name] = id(names), len(names), project, held
        found.update(map(id, known[3]), (id(names),))
    return found


# -- how each kind is read and put back ------------------------------------------------------------


def _read_names(names: dict[str, Any]) -> Content:
    found = {
        name: value
        for name, value in names.copy().items()
        if not name.startswith("__") and not issubclass(type(value), types.ModuleType)
    }
    return tuple(found), tuple(found.values())


def _put_names(names: dict[str, Any], content: list[tuple[Any, Any]]) -> None:
    held = dict(content)
    for name in _read_names(names)[0]:
        if name not in held:
            del names[name]
    for name, value in content:
        if names.get(name, _ABSENT) is not value:
            names[name] = value


def _put_container(container: Any, content: list[tuple[Any, Any]]) -> None:
    kind: Any = _kind(container)
    kind.clear(container)
    if issubclass(kind, dict):
        for key, value in content:
            kind.__setitem__(container, key, value)
    else:
        (kind.update if kind is set else kind.extend)(container, [value for _, value in content])


def _kind(container: object) -> Any:
    """Return the built-in class of a container. Its methods bypass the overrides of subclasses."""
    return next(
        kind
        for kind in (collections.OrderedDict, dict, list, set, collections.deque)
        if isinstance(container, kind)
    )


def _read_function(function: types.FunctionType) -> Content:
    attributes, cells = vars(function), function.__closure__ or ()
    values = (
        *map(_cell, cells),
        *attributes.values(),
        function.__defaults__,
        *(function.__kwdefaults__ or {}).values(),
    )
    keys = (*range(len(cells)), *attributes)
    # Defaults cannot be restored, so they need no key of their own.
    return (*keys, *itertools.repeat(None, len(values) - len(keys))), values


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _ABSENT


def _put_function(function: types.FunctionType, content: list[tuple[Any, Any]]) -> None:
    attributes = vars(function)
    attributes.clear()
    for key, value in content:
        if isinstance(key, str):
            attributes[key] = value
        elif (
            isinstance(key, int)
            and function.__closure__
            and _cell(function.__closure__[key]) is not value
            and value is not _ABSENT
        ):
            function.__closure__[key].cell_contents = value


def _read_class(cls: type) -> Content:
    found = {
        name: value
        for name, value in vars(cls).copy().items()
        if not name.startswith("__") and name != "_abc_impl"
    }
    return tuple(found), tuple(found.values())


def _put_class(cls: type, content: list[tuple[Any, Any]]) -> None:
    held, now = dict(content), dict(zip(*_read_class(cls), strict=True))
    for name in now:
        if name not in held:
            type.__delattr__(cls, name)
    for name, value in content:
        if now.get(name, _ABSENT) is not value:
            type.__setattr__(cls, name, value)


def _read_instance(value: object) -> Content:
    attributes = _attributes(value)
    keys, values = tuple(attributes), tuple(attributes.values())
    if slots := _slots(type(value)):
        held = [(slot, found) for slot in slots if (found := _slot(slot, value)) is not _ABSENT]
        keys = (*keys, *(slot for slot, _ in held))
        values = (*values, *(found for _, found in held))
    return keys, values


def _put_instance(value: object, content: list[tuple[Any, Any]]) -> None:
    attributes, held = _attributes(value), dict(content)
    for name in [name for name in attributes if name not in held]:
        del attributes[name]
    for slot in _slots(type(value)):
        if slot not in held and _slot(slot, value) is not _ABSENT:
            slot.__delete__(value)
    for key, one in content:
        if isinstance(key, str):
            attributes[key] = one
        else:
            key.__set__(value, one)


def _attributes(value: object) -> dict[str, Any]:
    """Return an instance's own dict, without running any code of its class."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return {}
    return found if type(found) is dict else {}


def _slots(cls: type) -> tuple[Any, ...]:
    found = _SLOTS.get(cls)
    if found is None:
        found = tuple(
            slot
            for base in cls.__mro__
            for slot in vars(base).values()
            if type(slot) is types.MemberDescriptorType
        )
        _SLOTS[cls] = found
    return found


def _slot(slot: Any, value: Any) -> Any:
    try:
        return slot.__get__(value)
    except AttributeError:
        return _ABSENT
