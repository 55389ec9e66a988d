"""Patches with guaranteed restore."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

__all__ = ["Patches", "aliases"]

_ABSENT = object()


class Patches:
    """What was patched, and how to undo it: last in, first out, whatever happens.

    An undo that is interrupted (Ctrl-C, a time-out) goes on where it stopped when it is called again.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Patches:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def __bool__(self) -> bool:
        return bool(self._undo)

    def on_undo(self, undo: Callable[[], object]) -> None:
        """Call ``undo`` at the end (a hook handle's ``remove``, say); calling it twice must do no harm."""
        self._undo.append(undo)

    def set(self, owner: Any, name: str, value: object) -> None:
        """Set an attribute; what the owner itself held (or that it held nothing) comes back."""
        before = vars(owner).get(name, _ABSENT) if hasattr(owner, "__dict__") else getattr(owner, name, _ABSENT)

        def undo() -> None:
            if before is not _ABSENT:
                setattr(owner, name, before)
            elif name in vars(owner):
                delattr(owner, name)

        setattr(owner, name, value)
        self.on_undo(undo)

    def replace_everywhere(self, original: object, replacement: object) -> None:
        """Rebind every module-level name that holds ``original``, and at the end every one that then holds ``replacement``.

        The second half covers modules that were imported, and copied the replacement, in between.
        """
        self.replace_all_everywhere([(original, replacement)])

    def replace_all_everywhere(self, pairs: Sequence[tuple[object, object]]) -> None:
        """Do that for several (original, replacement) in one go: looking through all modules is what it costs."""
        pairs = list(pairs)
        self.on_undo(lambda: _rebind([(replacement, original) for original, replacement in pairs]))
        _rebind(pairs)

    def undo(self) -> None:
        """Undo everything; the first error is raised once all is done."""
        failure: BaseException | None = None
        while self._undo:
            try:
                self._undo[-1]()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001  # all is undone first
                failure = failure or error
            self._undo.pop()
        if failure is not None:
            raise failure


def aliases(value: object) -> Iterator[tuple[types.ModuleType, str]]:
    """Every (module, name) of an imported module that is bound to this very object."""
    for module, name, _ in _bound({id(value)}):
        yield module, name


def _bound(wanted: Set[int]) -> Iterator[tuple[types.ModuleType, str, int]]:
    """Every (module, name, id) of an imported module that is bound to an object with one of these ids."""
    for module in list(sys.modules.values()):
        if isinstance(module, types.ModuleType):
            names = vars(module).copy()
            if not wanted.isdisjoint(map(id, names.values())):  # at C's speed: hundreds of thousands of names hold none of them
                yield from ((module, name, id(held)) for name, held in names.items() if id(held) in wanted)


def _rebind(pairs: Sequence[tuple[object, object]]) -> None:
    new = {id(old): replacement for old, replacement in pairs}
    for module, name, old in _bound(new.keys()):
        setattr(module, name, new[old])
