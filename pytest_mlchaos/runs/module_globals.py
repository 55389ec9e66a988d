"""Restore the global containers of user modules for a golden run.

It must not find the changes of a trial.
"""

from __future__ import annotations

import collections
import contextlib
import operator
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from ..core.interrupts import deferred, uninterruptible
from ..engine.import_hooks import watch_imports
from ..engine.user_code import is_users

__all__ = ["GlobalContainers", "user_modules"]

_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
_CONTAINERS = frozenset((*_MAPPINGS, list, set, collections.deque))


class GlobalContainers:
    """The contents of the plain containers in the globals of user modules.

    These are dicts, lists, sets and deques, also nested ones.

    Contents are restored in place, so that a container stays the same object under all its names.
    The objects in a container are not copied. Changes inside an instance, a class or a closure
    stay, and so does a name that was bound again. A container of modules is not touched. Changes by
    an import also stay (see ``following_imports``), because the module would not make them again.
    """

    def __init__(self, also: Iterable[Any] = ()) -> None:
        self._kept = {
            id(container): (container, _content(container)) for container in _users_containers(also)
        }

    def restore(self) -> None:
        """Restore the initial contents."""
        with deferred():
            changed = [
                (container, content)
                for container, content in self._kept.values()
                if not _same(_content(container), content)
            ]
            others = _of_other_modules() if changed else set()
            for container, content in changed:
                if (
                    id(container) not in others
                    and not _holds_modules(content)
                    and not _holds_modules(_content(container))
                ):
                    _fill(container, content)

    def changed(self) -> list[str]:
        """Return the global names (``module.name``) of containers whose contents have changed.

        Nested contents count too.
        """
        others = {
            id(container)
            for container, content in self._kept.values()
            if not _same(_content(container), content)
        }
        return (
            [
                name
                for name, held in _global_containers()
                if others & {id(container) for container in _reachable([held])}
            ]
            if others
            else []
        )

    @uninterruptible
    def as_at_the_start(self) -> Iterator[None]:
        """Restore the initial contents inside this context, and the present ones at its end."""
        now = GlobalContainers(container for container, _ in self._kept.values())
        self.restore()
        try:
            yield
        finally:
            now.restore()

    @contextlib.contextmanager
    def following_imports(self) -> Iterator[None]:
        """Count changes by imports inside as part of the initial contents.

        An import runs only once per process.
        """
        before: dict[int, tuple[Any, list[Any]]] = {}

        def begin() -> None:
            before.update(self._now())

        def end() -> None:
            self._take_over(before)
            before.clear()

        with watch_imports(begin, end):
            yield

    def _now(self) -> dict[int, tuple[Any, list[Any]]]:
        containers = _users_containers(container for container, _ in self._kept.values())
        return {id(container): (container, _content(container)) for container in containers}

    def _take_over(self, before: dict[int, tuple[Any, list[Any]]]) -> None:
        for key, (container, content) in self._now().items():
            if key not in before:
                self._kept[key] = container, content
            elif key in self._kept and not _same(before[key][1], content):
                self._kept[key] = (
                    container,
                    _with_changes(container, self._kept[key][1], before[key][1], content),
                )


def user_modules() -> Iterator[types.ModuleType]:
    """Yield the imported modules of the user."""
    for module in sys.modules.copy().values():
        if issubclass(type(module), types.ModuleType):
            file = vars(module).get("__file__")
            if isinstance(file, str) and is_users(file):
                yield module


def _content(container: Any) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else list(container)


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _holds_modules(content: list[Any]) -> bool:
    return any(isinstance(held, types.ModuleType) for held in content)


def _fill(container: Any, content: list[Any]) -> None:
    container.clear()
    if isinstance(container, dict):
        for key, value in _items(content):
            container[key] = value
    else:
        (container.update if isinstance(container, set) else container.extend)(content)


def _items(content: list[Any]) -> Iterator[tuple[Any, Any]]:
    half = len(content) // 2
    return zip(content[:half], content[half:], strict=True)


def _with_changes(
    container: object, start: list[Any], before: list[Any], after: list[Any]
) -> list[Any]:
    """Return a container's initial contents, with the changes from ``before`` to ``after``."""
    if isinstance(container, dict):
        found, old, new = dict(_items(start)), dict(_items(before)), dict(_items(after))
        for key in old.keys() - new.keys():
            found.pop(key, None)
        found.update(
            (key, value) for key, value in new.items() if key not in old or old[key] is not value
        )
        return _content(found)
    if _same(after[: len(before)], before):
        return [*start, *after[len(before) :]]
    gone, there = set(map(id, before)) - set(map(id, after)), set(map(id, before))
    return [
        *(item for item in start if id(item) not in gone),
        *(item for item in after if id(item) not in there),
    ]


def _users_containers(also: Iterable[Any]) -> list[Any]:
    return _reachable([*(held for _, held in _global_containers()), *also])


def _global_containers() -> Iterator[tuple[str, Any]]:
    """Yield the containers in the globals of user modules, with their names."""
    for module in user_modules():
        for name, value in list(vars(module).items()):
            if type(value) in _CONTAINERS and not name.startswith("__"):
                yield f"{module.__name__}.{name}", value


def _of_other_modules() -> set[int]:
    """Return the containers that user modules can name but do not own.

    They are those of other modules (``sys.path``), and module namespaces.
    """
    users = {id(module) for module in user_modules()}
    found = {id(sys.modules)}
    for module in sys.modules.copy().values():
        if issubclass(type(module), types.ModuleType):
            found.add(id(vars(module)))
            if id(module) not in users:
                found.update(
                    id(value) for value in list(vars(module).values()) if type(value) in _CONTAINERS
                )
    return found


def _reachable(roots: Iterable[Any]) -> list[Any]:
    """Return containers and those inside them, each once.

    The namespaces of modules are not followed.
    """
    seen = {
        id(vars(module))
        for module in sys.modules.copy().values()
        if issubclass(type(module), types.ModuleType)
    }
    seen.add(id(sys.modules))
    found, to_see = [], list(roots)
    while to_see:
        value = to_see.pop()
        if id(value) in seen:
            continue
        if type(value) in _CONTAINERS:
            seen.add(id(value))
            found.append(value)
            to_see += [
                held for held in _content(value) if type(held) in _CONTAINERS or type(held) is tuple
            ]
        elif type(value) is tuple:
            to_see += [held for held in value if type(held) in _CONTAINERS or type(held) is tuple]
    return found
