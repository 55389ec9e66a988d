"""What user modules keep in global containers, as it was at the start: a golden run must not find what a trial has left there."""

from __future__ import annotations

import collections
import contextlib
import operator
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from .places import is_users

__all__ = ["GlobalContainers"]

_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
_CONTAINERS = frozenset((*_MAPPINGS, list, set, collections.deque))


class GlobalContainers:
    """The contents of the plain containers (dicts, lists, sets, deques) in the globals of user modules, and of those nested in them.

    Contents are put back in place, so that a container stays the same object under all its names. Objects that are held are not
    copied: what changed inside of an instance, a class or a closure stays changed, and so does a name that was bound anew.
    """

    def __init__(self, also: Iterable[Any] = ()) -> None:
        self._kept = [(container, _content(container)) for container in _reached([*(held for _, held in _global_containers()), *also])]

    def restore(self) -> None:
        """Make the contents those of the start."""
        self._restore()

    def changed(self) -> list[str]:
        """The global names (``module.name``) of containers whose contents, or those nested in them, are others now."""
        others = {id(container) for container, content in self._kept if not _same(_content(container), content)}
        return [name for name, held in _global_containers() if others & {id(container) for container in _reached([held])}] if others else []

    @contextlib.contextmanager
    def as_at_the_start(self) -> Iterator[None]:
        """The contents of the start; what they are now comes back at the end."""
        now = GlobalContainers(container for container, _ in self._kept)
        self._restore()
        try:
            yield
        finally:
            now._restore()

    def _restore(self) -> None:
        changed = [(container, content) for container, content in self._kept if not _same(_content(container), content)]
        others = _of_other_modules() if changed else set()
        for container, content in changed:
            if id(container) not in others:
                _fill(container, content)


def _content(container: Any) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else list(container)


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _fill(container: Any, content: list[Any]) -> None:
    container.clear()
    if isinstance(container, dict):
        half = len(content) // 2
        for key, value in zip(content[:half], content[half:], strict=True):
            container[key] = value
    else:
        (container.update if isinstance(container, set) else container.extend)(content)


def _modules() -> Iterator[tuple[bool, dict[str, Any]]]:
    """The names of each module (its own among them), and whether it is the user's."""
    for module in list(sys.modules.values()):
        if issubclass(type(module), types.ModuleType):
            file = vars(module).get("__file__")
            yield isinstance(file, str) and is_users(file), vars(module)


def _global_containers() -> Iterator[tuple[str, Any]]:
    """The containers in the globals of user modules, and their names."""
    for users, names in _modules():
        if users:
            for name, value in list(names.items()):
                if type(value) in _CONTAINERS and not name.startswith("__"):
                    yield f"{names.get('__name__')}.{name}", value


def _of_other_modules() -> set[int]:
    """What user modules have a name for, too, and what is not theirs: another module's container (``sys.path``), a module's names."""
    found = set()
    for users, names in _modules():
        found.add(id(names))
        if not users:
            found.update(id(value) for value in list(names.values()) if type(value) in _CONTAINERS)
    return found


def _reached(roots: Iterable[Any]) -> list[Any]:
    """Containers, and those in them, once each; what a module's own names hold is not followed."""
    seen = {id(names) for _, names in _modules()}
    found, to_see = [], list(roots)
    while to_see:
        value = to_see.pop()
        if id(value) in seen:
            continue
        if type(value) in _CONTAINERS:
            seen.add(id(value))
            found.append(value)
            to_see += [held for held in _content(value) if type(held) in _CONTAINERS or type(held) is tuple]
        elif type(value) is tuple:
            to_see += [held for held in value if type(held) in _CONTAINERS or type(held) is tuple]
    return found
