"""Defer signals, so that no signal handler interrupts a set-up or its reversal.

Python calls signal handlers between two instructions of the main thread. A handler that raises
there (``KeyboardInterrupt``, pytest-timeout's ``Failed``) would leave a set-up half done. So each
set-up and its reversal replace all handlers by one that only notes the signal. The real handler
runs right afterwards.

One gap remains: an exception can leave ``__exit__`` at its very first instruction. Contexts are
therefore registered while they are open, and ``leave`` closes those whose ``__exit__`` was skipped.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # it has no stub
import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

__all__ = [
    "Uninterruptible",
    "catch_up",
    "count_open",
    "deferred",
    "forget",
    "handle",
    "handler",
    "leave",
    "register_open",
    "uninterruptible",
    "unregister_open",
]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# The C functions are faster: those of ``signal`` convert each number to an enum member, which takes
# longer than all else here.
_get, _set = _signal.getsignal, _signal.signal
_NUMBERS = tuple(sorted(map(int, signal.valid_signals())))


class _Exits(Protocol):
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> Any: ...


class _Signals:
    """The deferred handlers, and the signals that arrived while they were deferred.

    Only the main thread uses this.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.handlers: dict[int, Any] = {}
        self.pending: dict[int, FrameType | None] = {}

    def note(self, number: int, frame: FrameType | None) -> None:
        """Replace each handler, and note its signal."""
        if self.depth:
            self.pending[number] = frame
        # ``release`` is restoring the handlers, one after the other.
        else:
            waiting = self.handlers.get(number)
            if callable(waiting):
                waiting(number, frame)

    def hold(self) -> BaseException | None:
        """Start to defer, and return the exception that a handler raised while this began."""
        late: BaseException | None = None
        if self.depth:
            self.depth += 1
            return None
        while True:
            try:
                self.depth = 1
                for number in _NUMBERS:
                    found = _get(number)
                    if callable(found) and found is not _note:
                        self.handlers[number] = found
                        _set(number, _note)
                return late
            except BaseException as error:  # noqa: BLE001
                # a handler raised it: it is deferred, too
                late = error

    def in_child(self) -> None:
        """Restore the handlers in a forked process, which is not in a set-up."""
        self.depth = 0
        self.pending.clear()
        while self.handlers:
            number, waiting = self.handlers.popitem()
            if _get(number) is _note:
                _set(number, waiting)

    def release(self) -> None:
        """End ``hold``.

        The outermost call restores the handlers, and calls those whose signals arrived.
        """
        if self.depth > 1:
            self.depth -= 1
            return
        raised: BaseException | None = None
        while True:
            try:
                while self.handlers:
                    number, waiting = next(iter(self.handlers.items()))
                    if _get(number) is _note:
                        _set(number, waiting)
                    del self.handlers[number]
                self.depth = 0
                # SIGINT last: a KeyboardInterrupt must not be hidden by a different exception.
                while self.pending:
                    number = max(self.pending, key=lambda number: number != signal.SIGINT)
                    frame = self.pending.pop(number)
                    waiting = _get(number)
                    if callable(waiting):
                        waiting(number, frame)
                    elif waiting == signal.SIG_DFL:
                        signal.raise_signal(number)
                break
            except BaseException as error:  # noqa: BLE001  # restore all handlers before raising
                raised = error
        if raised is not None:
            raise raised


_signals = _Signals()
_note = _signals.note
_open: list[_Exits] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_signals.in_child)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


class deferred:  # noqa: N801  # read as a function: ``with deferred():``
    """Defer signals inside this context.

    It can be nested. Outside of the main thread it does nothing.
    """

    __slots__ = ("_holds",)

    def __enter__(self) -> deferred:
        self._holds = _is_main()
        if self._holds:
            late = _signals.hold()
            if late is not None:
                _signals.release()
                raise late
        return self

    def __exit__(self, *_: object) -> None:
        if self._holds:
            _signals.release()


class Uninterruptible(Generic[T_co]):
    """A context manager whose entry and exit no signal handler interrupts."""

    __slots__ = ("_context",)

    def __init__(self, context: contextlib.AbstractContextManager[T_co]) -> None:
        self._context = context

    def __enter__(self) -> T_co:
        if not _is_main():
            return self._context.__enter__()
        entered = False
        try:
            with deferred():
                value = self._context.__enter__()
                register_open(self)
                entered = True
            return value
        except BaseException as error:
            if entered:
                self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if not _is_main():
            return self._context.__exit__(kind, error, trace)
        late = _signals.hold()
        try:
            if late is None:
                return self._context.__exit__(kind, error, trace)
            # A handler raised it after the last instruction of the body.
            late.__context__ = late.__context__ or error
            if not self._context.__exit__(type(late), late, late.__traceback__):
                raise late
            return True
        finally:
            unregister_open(self)
            _signals.release()


def uninterruptible(function: Callable[P, Iterator[T]]) -> Callable[P, Uninterruptible[T]]:
    """Make an ``Uninterruptible`` context manager from a generator function.

    Use it like ``contextlib.contextmanager``.
    """
    make = contextlib.contextmanager(function)

    @functools.wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> Uninterruptible[T]:
        return Uninterruptible(make(*args, **kwargs))

    return made


def register_open(context: _Exits) -> None:
    """Register an open context. ``leave`` closes it unless ``unregister_open`` is called first."""
    if _is_main():
        _open.append(context)


def unregister_open(context: _Exits) -> None:
    """Remove a context from the register, if it is there."""
    for place in reversed(range(len(_open))):
        if _open[place] is context:
            del _open[place]
            return


def count_open() -> int:
    """Return the number of open contexts, to pass it to ``leave``."""
    return len(_open)


def leave(mark: int, *undo: Callable[[], object]) -> None:
    """Close the contexts that an interruption skipped, then call each ``undo``.

    These are the contexts that were opened after ``mark``.

    Raise the last of their exceptions at the end.
    """
    failure: BaseException | None = _signals.hold() if _is_main() else None
    try:
        while len(_open) > mark and _is_main():
            context = _open[-1]
            try:
                context.__exit__(None, None, None)
            except BaseException as error:  # noqa: BLE001  # close the others first
                failure = error
            unregister_open(context)
        for call in undo:
            try:
                call()
            except BaseException as error:  # noqa: BLE001  # call the others first
                failure = error
                call()  # an undo continues at the step that failed
    finally:
        if _is_main():
            _signals.release()
    if failure is not None:
        raise failure


def handler(number: int) -> Any:
    """Return the handler of a signal, even if it is deferred."""
    return _signals.handlers.get(number) if _get(number) is _note else signal.getsignal(number)


def handle(number: int, new: Any) -> Any:
    """Set the handler of a signal, and return the previous one.

    A new handler is deferred like the others.
    """
    before = handler(number)
    if _signals.depth and _is_main() and callable(new):
        _set(number, _note)
        _signals.handlers[number] = new
    else:
        signal.signal(number, new)
        _signals.handlers.pop(number, None)
    return before


def catch_up(number: int) -> None:
    """Call the handler of a pending signal now, and let it raise: the calling code expects that."""
    if _is_main() and number in _signals.pending:
        frame, waiting = _signals.pending.pop(number), handler(number)
        if callable(waiting):
            waiting(number, frame)


def forget(number: int) -> None:
    """Drop a pending signal whose reason no longer exists."""
    if _is_main():
        _signals.pending.pop(number, None)
