"""Keep a subject's arguments in their initial state, for restarts and for a golden run."""

from __future__ import annotations

import copy
import copyreg
import functools
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

from ..core.interrupts import uninterruptible
from ..core.privacy import error_text
from ..errors import BadArgument

__all__ = ["FRAMEWORK", "Inputs", "deep_copy", "is_filled"]


FRAMEWORK = ("_pytest", "pytest", "pytest_mlchaos")
"""Packages whose objects are not part of a subject, and refer to the whole session.

Examples are ``request`` and the fixture ``mlchaos``.
"""
_LOCKS = (type(threading.Lock()), type(threading.RLock()))


class Inputs:
    """A subject and its arguments, in the state before it ran.

    A crash destroys memory. So each restart, and the golden run, gets fresh copies of the
    arguments, and of the objects in closures, defaults, bound methods and ``functools.partial``.
    Objects that belong together (a model and its optimizer) belong together in the copies.
    """

    def __init__(self, subject: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._given = (subject, *args)
        self._kept, self._shared = deep_copy(self._given)

    def first(self) -> functools.partial[Any]:
        """Return the subject with the original arguments."""
        subject, *args = self._given
        return functools.partial(subject, *args)

    def again(self) -> functools.partial[Any]:
        """Return the subject with fresh copies.

        Raise ``BadArgument`` if an object cannot be copied.
        """
        if self._shared:
            raise BadArgument(
                f"mlchaos.run: an argument of the subject cannot be copied ({self._shared[0]}), "
                f"but a restart and the golden run "
                "need its initial state. Create it inside the subject"
            )
        (subject, *args), _ = deep_copy(self._kept)
        return functools.partial(subject, *args)


def deep_copy(values: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[str]]:
    """Return deep copies, and a description of each object that could not be copied.

    Shared objects stay shared.
    """
    failures: list[str] = []
    with _copy_locks():
        memo: dict[int, Any] = {}
        return tuple(_copy(value, memo, failures) for value in values), failures


@uninterruptible
def _copy_locks() -> Iterator[None]:
    """Copy a lock as a new one. Most objects that cannot be pickled hold a lock."""
    kept = {lock: copyreg.dispatch_table.get(lock) for lock in _LOCKS}
    copyreg.dispatch_table[_LOCKS[0]] = lambda _: (threading.Lock, ())
    copyreg.dispatch_table[_LOCKS[1]] = lambda _: (threading.RLock, ())
    try:
        yield
    finally:
        for lock, before in kept.items():
            del copyreg.dispatch_table[lock]
            if before is not None:
                copyreg.dispatch_table[lock] = before


@uninterruptible
def _finalizers_unheard() -> Iterator[None]:
    """Ignore errors of ``__del__`` in objects that were copied only in part.

    Their attributes may be missing.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _copy(value: object, memo: dict[int, Any], failures: list[str]) -> Any:
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, types.FunctionType):
        return _function(value, memo, failures)
    if isinstance(value, types.MethodType):
        return types.MethodType(
            _copy(value.__func__, memo, failures), _copy(value.__self__, memo, failures)
        )
    if type(value) is functools.partial:
        keywords = {name: _copy(held, memo, failures) for name, held in value.keywords.items()}
        return functools.partial(
            _copy(value.func, memo, failures),
            *(_copy(held, memo, failures) for held in value.args),
            **keywords,
        )
    if type(value) in (list, dict, tuple):
        return _container(value, memo, failures)
    if (
        isinstance(value, (types.ModuleType, type))
        or type(value).__module__.partition(".")[0] in FRAMEWORK
    ):
        # Modules are looked up by name, and the test's own tools (request, mlchaos) belong to no
        # process.
        return value
    before = dict(memo)
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:  # noqa: BLE001  # any __deepcopy__ may fail
        failures.append(f"{type(value).__name__}: {error_text(error)}")
        with _finalizers_unheard():
            traceback.clear_frames(error.__traceback__)
            memo.clear()
            memo.update(before)
        return value


def _container(value: Any, memo: dict[int, Any], failures: list[str]) -> Any:
    """Copy plain containers item by item, so that functions in them are copied too."""
    if isinstance(value, tuple):
        return tuple(_copy(item, memo, failures) for item in value)
    fresh = memo[id(value)] = type(value)()
    # Like copy.deepcopy: objects in the memo must stay alive.
    memo.setdefault(id(memo), []).append(value)
    if isinstance(value, list):
        fresh.extend(_copy(item, memo, failures) for item in value)
    else:
        fresh.update(
            {
                _copy(name, memo, failures): _copy(item, memo, failures)
                for name, item in value.items()
            }
        )
    return fresh


def _function(
    function: types.FunctionType, memo: dict[int, Any], failures: list[str]
) -> types.FunctionType:
    """Return a function with copies of the objects that it holds.

    Return the function itself if it holds none.
    """
    if not (function.__closure__ or function.__defaults__ or function.__kwdefaults__):
        return function
    cells = tuple(
        memo.setdefault(id(cell), types.CellType()) for cell in function.__closure__ or ()
    )
    fresh = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, None, cells
    )
    memo[id(function)] = fresh  # before its contents, because functions may hold each other
    fresh.__dict__.update(function.__dict__)
    fresh.__qualname__, fresh.__module__ = function.__qualname__, function.__module__
    fresh.__defaults__ = _copy(function.__defaults__, memo, failures)
    fresh.__kwdefaults__ = _copy(function.__kwdefaults__, memo, failures)
    for old, new in zip(function.__closure__ or (), cells, strict=True):
        if is_filled(old) and not is_filled(new):
            new.cell_contents = _copy(old.cell_contents, memo, failures)
    return fresh


def is_filled(cell: types.CellType) -> bool:
    """Return True if a closure's cell is not empty."""
    try:
        cell.cell_contents  # noqa: B018  # the access raises if it is empty
    except ValueError:
        return False
    return True
