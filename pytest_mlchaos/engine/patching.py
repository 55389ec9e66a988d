"""Patch attributes, and restore them reliably."""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

from ..core.interrupts import deferred, register_open, unregister_open
from .module_names import names

__all__ = ["Patches", "aliases", "family"]

_ABSENT = object()


class Patches:
    """The patches of one trial.

    They are undone in reverse order when the trial ends, also after an error.

    An interrupted undo (by Ctrl-C or a time-out) continues at the same step when it is called
    again.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []
        self._made: list[tuple[Any, str, object, object]] = []
        self._renamed: list[tuple[object, object]] = []
        self._wrapped: list[Callable[[], None]] = []
        self._together: list[tuple[object, object]] | None = None
        self._begun = names.moment

    def __enter__(self) -> Patches:
        register_open(self)
        return self

    def __exit__(self, *_: object) -> None:
        with deferred():
            self.undo()
            unregister_open(self)

    def __bool__(self) -> bool:
        return bool(self._undo)

    def on_undo(self, undo: Callable[[], object]) -> None:
        """Call ``undo`` at the end, for example the ``remove`` of a hook's handle.

        It must be safe to call it twice.
        """
        self._undo.append(undo)

    def set(self, owner: object, name: str, value: object) -> None:
        """Set an attribute of a module or class, and undo that at the end.

        Args:
            owner: The module or class.
            name: The name of the attribute.
            value: The new value. At the end, the old value is restored, or the attribute is
                deleted.
        """
        before = (
            vars(owner).get(name, _ABSENT)
            if hasattr(owner, "__dict__")
            else getattr(owner, name, _ABSENT)
        )

        def undo() -> None:
            if before is not _ABSENT:
                names.assign(owner, name, before)
            elif name in vars(owner):
                delattr(owner, name)

        self.on_undo(undo)
        try:
            names.assign(owner, name, value)
        except (
            AttributeError,
            TypeError,
        ):
            # For example a type written in C: there is nothing to undo.
            self._undo.pop()
            raise
        self._made.append((owner, name, value, before))

    def wrap(self, owner: type, name: str, wrapper: Any) -> None:
        """Replace a method by a wrapper.

        Args:
            owner: The class that defines the method. It is not kept alive.
            name: The name of the method.
            wrapper: A function whose ``__wrapped__`` is the method.
        """
        held, ours = weakref.ref(owner), weakref.ref(wrapper)

        def unwrap() -> None:
            cls = held()
            ending: Any = ours()
            if cls is not None and vars(cls).get(name, cls) is ending:
                setattr(cls, name, ending.__wrapped__)

        self.on_undo(unwrap)
        self._wrapped.append(unwrap)
        setattr(owner, name, wrapper)

    def replace_everywhere(self, original: object, replacement: object) -> None:
        """Rebind each module-level name of ``original`` to ``replacement``, and back at the end.

        The second step includes modules that were imported in between and copied the replacement.

        Args:
            original: The object.
            replacement: An object that was made for these patches, so no module had it before.
        """
        if self._together is not None:
            self._together.append((original, replacement))
        else:
            self._replace([(original, replacement)])

    def replace_for_others(
        self, pairs: Sequence[tuple[object, object]], ours: Container[str]
    ) -> None:
        """Do the same as ``replace_everywhere`` for pairs, except in the packages ``ours``.

        A pair is (original, replacement).
        """
        back = [(replacement, original) for original, replacement in pairs]
        self.on_undo(lambda: self._rebind_back(back))
        for at in names.find([original for original, _ in pairs]):
            if at.module.__name__.partition(".")[0] not in ours:
                self.set(at.module, at.name, pairs[at.place][1])

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Collect calls of ``replace_everywhere``, and make them in one go at the end.

        The search through all modules is the expensive part. A nested context belongs to the outer
        one.
        """
        if self._together is not None:
            yield
            return
        pairs: list[tuple[object, object]] = []
        self._together = pairs
        try:
            yield
        finally:
            self._together = None
        if pairs:
            self._replace(_compose(pairs))

    def sweep(self, *, thoroughly: bool = True) -> None:
        """Undo patches that other code has set again. Call it after ``undo``.

        Code that patches in a test's body stores our replacement, and sets it again after our
        patches are gone.

        Args:
            thoroughly: True to search the names of all modules too.
        """
        with deferred():
            made, self._made = self._made, []
            for owner, name, value, before in reversed(made):
                if before is not _ABSENT and getattr(owner, "__dict__", {}).get(name) is value:
                    names.assign(owner, name, before)
            wrapped, self._wrapped = self._wrapped, []
            for unwrap in wrapped:
                unwrap()
            renamed, self._renamed = self._renamed, []
            if renamed and thoroughly:
                self._rebind_back(renamed)

    def _replace(self, pairs: list[tuple[object, object]]) -> None:
        back = [(replacement, original) for original, replacement in pairs]
        with deferred():
            self._renamed += back
            self.on_undo(lambda: self._rebind_back(back))
            for at in names.find([original for original, _ in pairs]):
                names.assign(at.module, at.name, pairs[at.place][1])

    def _rebind_back(self, back: Sequence[tuple[object, object]]) -> None:
        replacements = [replacement for replacement, _ in back]
        for at in names.find(replacements, made_after=self._begun):
            names.assign(at.module, at.name, back[at.place][1])

    def undo(self) -> None:
        """Undo everything, then raise the first error. Signals are deferred until then."""
        failure: Exception | None = None
        with deferred():
            while self._undo:
                try:
                    self._undo[-1]()
                except Exception as error:  # noqa: BLE001
                    # undo all others first. After an interruption, the next call undoes the rest
                    failure = failure or error
                self._undo.pop()
        if failure is not None:
            raise failure


def _compose(pairs: Sequence[tuple[object, object]]) -> list[tuple[object, object]]:
    """Merge chains of replacements, so that each original gets the last one."""
    then = {id(original): replacement for original, replacement in pairs}
    between = {id(replacement) for _, replacement in pairs}
    composed = []
    for original, last in pairs:
        if id(original) not in between:
            while id(last) in then:
                last = then[id(last)]
            composed.append((original, last))
    return composed


def aliases(value: object) -> Iterator[tuple[types.ModuleType, str]]:
    """Yield the module and the name of each module-level name that is bound to this very object."""
    for at in names.find([value]):
        yield at.module, at.name


def family(base: type) -> Iterator[type]:
    """Yield a class and all its subclasses, each once."""
    seen: set[type] = set()
    pending = [base]
    while pending:
        cls = pending.pop()
        if cls not in seen:
            seen.add(cls)
            yield cls
            pending.extend(cls.__subclasses__())
