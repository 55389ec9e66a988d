"""What a subject is given, kept as it was at the start: for restarts, and for a golden run."""

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
"""Packages whose objects (``request``, the fixture ``mlchaos``) are no part of a subject, and lead to the whole session."""
_LOCKS = (type(threading.Lock()), type(threading.RLock()))


class Inputs:
    """A subject and its arguments, as they were before it ran.

    A crash destroys memory: each restart, and the golden run, gets fresh copies of the objects that were passed, and of what
    closures, defaults, bound methods and ``functools.partial`` hold. What belongs together (a model and its optimizer)
    belongs together in the copies.
    """

    def __init__(self, subject: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._given = (subject, *args)
        self._kept, self._shared = deep_copy(self._given)

    def first(self) -> Callable[[], Any]:
        """The subject with the very objects that were passed."""
        subject, *args = self._given
        return functools.partial(subject, *args)

    def again(self) -> Callable[[], Any]:
        """The subject with fresh copies. Raises ``BadArgument`` for what cannot be copied."""
        if self._shared:
            raise BadArgument(
                f"mlchaos.run: what the subject is given cannot be copied ({self._shared[0]}), but a restart and the golden run need "
                "it as it was at the start; make it inside the subject"
            )
        (subject, *args), _ = deep_copy(self._kept)
        return functools.partial(subject, *args)


def deep_copy(values: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[str]]:
    """Deep copies that keep what is shared among the values shared, and what could not be copied, in words."""
    failures: list[str] = []
    with _copy_locks():
        memo: dict[int, Any] = {}
        return tuple(_copy(value, memo, failures) for value in values), failures


@uninterruptible
def _copy_locks() -> Iterator[None]:
    """A lock is copied as a new one: of what objects hold, locks are mostly what pickle refuses."""
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
    """Objects that were copied in part go: their ``__del__`` may miss attributes, which is no mistake of the class."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _copy(value: Any, memo: dict[int, Any], failures: list[str]) -> Any:
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, types.FunctionType):
        return _function(value, memo, failures)
    if isinstance(value, types.MethodType):
        return types.MethodType(_copy(value.__func__, memo, failures), _copy(value.__self__, memo, failures))
    if type(value) is functools.partial:
        keywords = {name: _copy(held, memo, failures) for name, held in value.keywords.items()}
        return functools.partial(_copy(value.func, memo, failures), *(_copy(held, memo, failures) for held in value.args), **keywords)
    if type(value) in (list, dict, tuple):
        return _container(value, memo, failures)
    if isinstance(value, (types.ModuleType, type)) or type(value).__module__.partition(".")[0] in FRAMEWORK:
        return value  # modules are looked up by name; the test's own tools (request, mlchaos) belong to no process
    before = dict(memo)
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:  # noqa: BLE001  # whatever a foreign __deepcopy__ raises
        failures.append(f"{type(value).__name__}: {error_text(error)}")
        with _finalizers_unheard():
            traceback.clear_frames(error.__traceback__)
            memo.clear()
            memo.update(before)
        return value


def _container(value: Any, memo: dict[int, Any], failures: list[str]) -> Any:
    """Plain containers, item by item: functions in them are copied too."""
    if isinstance(value, tuple):
        return tuple(_copy(item, memo, failures) for item in value)
    fresh = memo[id(value)] = type(value)()
    memo.setdefault(id(memo), []).append(value)  # as copy.deepcopy does: what the memo names must stay alive
    if isinstance(value, list):
        fresh.extend(_copy(item, memo, failures) for item in value)
    else:
        fresh.update({_copy(name, memo, failures): _copy(item, memo, failures) for name, item in value.items()})
    return fresh


def _function(function: types.FunctionType, memo: dict[int, Any], failures: list[str]) -> types.FunctionType:
    """A function with what it holds copied; one that holds nothing is itself."""
    if not (function.__closure__ or function.__defaults__ or function.__kwdefaults__):
        return function
    cells = tuple(memo.setdefault(id(cell), types.CellType()) for cell in function.__closure__ or ())
    fresh = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, cells)
    memo[id(function)] = fresh  # before its contents: functions may hold each other
    fresh.__dict__.update(function.__dict__)
    fresh.__qualname__, fresh.__module__ = function.__qualname__, function.__module__
    fresh.__defaults__ = _copy(function.__defaults__, memo, failures)
    fresh.__kwdefaults__ = _copy(function.__kwdefaults__, memo, failures)
    for old, new in zip(function.__closure__ or (), cells, strict=True):
        if is_filled(old) and not is_filled(new):
            new.cell_contents = _copy(old.cell_contents, memo, failures)
    return fresh


def is_filled(cell: types.CellType) -> bool:
    """Whether a closure's cell holds something yet."""
    try:
        cell.cell_contents  # noqa: B018  # asking is the point
    except ValueError:
        return False
    return True
