"""Decide if an exception from a fault is its strike, or a bug in its code."""

from __future__ import annotations

import dis
import sys
from collections.abc import Collection, Sequence
from dataclasses import FrozenInstanceError
from types import TracebackType

from ..core.faults import Fault
from ..core.privacy import error_text, remember_text
from ..core.sites import Visit
from ..errors import FaultError, MlchaosError, SimulatedCrash
from .user_code import is_users

__all__ = ["comes_from", "describe_swallower", "fault_error", "is_meant", "is_own", "mark"]

_MARK = "_mlchaos_injected"


def fault_error(fault: Fault, error: Exception, what: str) -> FaultError:
    """Return the error for a fault with a bug in its code.

    Args:
        fault: The fault.
        error: The exception that its code raised.
        what: The part of the fault that raised it, for example ``"apply()"``.
    """
    trace = _innermost(error)
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    mistake = FaultError(
        f"the fault {type(fault).__name__} has a bug: {what} of {fault!r} raised "
        f"{error_text(error)}{where}. "
        "This says nothing about the subject."
    )
    mistake.__cause__ = error
    return mistake


def is_meant(error: BaseException, visit: Visit, fault: Fault) -> bool:
    """Return True if an exception from ``apply`` is the strike, and not a bug in the fault.

    It is a strike if the fault passed it to ``visit.fail``, or if a ``raise`` statement in the
    fault's own module raised it. An ``assert``, an operator or a library that fails inside
    ``apply`` means that the fault has a bug.
    """
    if error is visit.error or isinstance(error, SimulatedCrash):
        return True
    trace = _innermost(error)
    if trace is None or isinstance(
        error, (AssertionError, NotImplementedError, FrozenInstanceError, MlchaosError)
    ):
        return False
    module = sys.modules.get(type(fault).__module__)
    return trace.tb_frame.f_globals is getattr(module, "__dict__", None) and _is_stated(error)


def comes_from(
    error: BaseException | None,
    origins: Sequence[BaseException],
    elsewhere: Collection[tuple[str, str]] = (),
) -> bool:
    """Return True if an exception is one of ``origins``, or a consequence of one.

    It is a consequence if it was raised ``from`` one, or if a library raised it while it handled
    one. If user code raises an exception while it handles one, it may be a bug in the handler, so
    it counts only with ``from``. A real Ctrl-C does not count.

    Args:
        error: The exception.
        origins: Exceptions that are known to be injected.
        elsewhere: The types and texts of injected exceptions in other processes. A library may send
            back a copy with a longer text.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if (
            any(error is origin for origin in origins)
            or getattr(error, _MARK, False)
            or _is_copy(error, elsewhere)
        ):
            return True
        seen.add(id(error))
        own = _is_users(error) or (isinstance(error, KeyboardInterrupt) and not _is_stated(error))
        error = error.__cause__ or (None if own else error.__context__)
    return False


def _is_copy(error: BaseException, elsewhere: Collection[tuple[str, str]]) -> bool:
    text = str(error) if elsewhere else ""
    return any(
        kind == type(error).__qualname__ and (text == words or (words and words in text))
        for kind, words in elsewhere
    )


def mark(error: BaseException, *, own_words: bool = False) -> None:
    """Mark an exception as injected without storing it.

    ``own_words`` says that its message may be shown.
    """
    setattr(error, _MARK, True)
    if own_words:
        remember_text(error, str(error))


def is_own(fault: Fault) -> bool:
    """Return True for a built-in fault, whose texts may be shown.

    The texts of a user's own fault may contain data.
    """
    return type(fault).__module__.partition(".")[0] == __name__.partition(".")[0]


def describe_swallower(crash: SimulatedCrash) -> str | None:
    """Describe the code that caught a crash and continued.

    Return None if the crash ended a thread of its own.
    """
    trace = crash.__traceback__
    if trace is None or not getattr(crash, "in_main_thread", True):
        return None
    catcher = _outermost_user_frame(trace)
    code = catcher.tb_frame.f_code
    return (
        f"{crash}, but {code.co_name}() swallowed it at {code.co_filename}:{catcher.tb_lineno} and "
        f"continued. "
        "No process survives SIGKILL, and code like this swallows Ctrl-C too: catch Exception "
        "instead of everything, "
        "and do not return from finally"
    )


def _outermost_user_frame(trace: TracebackType) -> TracebackType:
    package = __name__.partition(".")[0]
    found: TracebackType | None = trace
    while (
        found is not None
        and str(found.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == package
    ):
        found = found.tb_next
    return found or trace


def _innermost(error: BaseException) -> TracebackType | None:
    """Return the traceback entry where the exception was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _is_stated(error: BaseException) -> bool:
    """Return True if a ``raise`` statement raised the exception, and not a signal."""
    trace = _innermost(error)
    return trace is not None and dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] in (
        "RAISE_VARARGS",
        "RERAISE",
    )


def _is_users(error: BaseException) -> bool:
    trace = _innermost(error)
    return trace is None or is_users(trace.tb_frame.f_code.co_filename)
