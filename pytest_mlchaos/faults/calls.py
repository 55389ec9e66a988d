"""Faults of calls: a dependency that fails, or is slow."""

from __future__ import annotations

import ast
import builtins
import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, Literal

from ..core.faults import Fault, is_drawn, register
from ..core.sites import Key, Visit
from ..core.values import parse_duration, shown
from ..errors import BadArgument

__all__ = ["Afterwards", "CallDelay", "CallFailure", "error_name", "make_error"]
__tracebackhide__ = True  # a failure shows the user's code, not ours
LAYER = "Calls and services"


def _check_target(fault: Fault, target: Any) -> None:
    if target is not None and not is_drawn(target) and not target.strip():
        raise BadArgument(f"{fault.name}: expected target as 'pkg.mod:function' but got {shown(target)}")


@register
class CallFailure(Fault):
    """A call of ``target`` raises ``error``.

    ``target``: ``"pkg.mod:function"``, ``"pkg.mod:Class.method"`` or the same with dots only; it is wrapped under every name by
    which a module imported it. ``error``: an exception class or instance, or its name (``"TimeoutError"``,
    ``"requests.exceptions:ReadTimeout('no answer')"``). ``when="after"`` fails once the call has taken effect: the reply is lost. Where
    the calls are searched and ``when`` is not given, both are tried.

    ``at`` counts the calls of this target.

    Imitates: a dependency that refuses, drops the connection, or answers with an error.

    Fidelity: the function's own code does not run (or runs to its end): what it half-does before it fails in production
    is not simulated. Copies of the function in closures, containers and default arguments are not reached.

    Example: @chaos.call_failure(target="json:loads", error="TimeoutError", at=0)
    """

    site = "call"
    random = False
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"when": ("before", "after")}
    target: str
    error: Any = "RuntimeError"
    when: Literal["before", "after"] = "before"

    def check(self) -> None:
        """Turn ``error`` into its name, so that a schedule stays plain data."""
        _check_target(self, self.target)
        if not is_drawn(self.error):
            object.__setattr__(self, "error", error_name(self.error, self.name))

    @property
    def key(self) -> Key:
        """Each target counts for itself."""
        return (self.site, self.target)

    def apply(self, visit: Visit) -> None:
        """Fail now, or behind the call."""
        error = make_error(self.error, self.target, self.name)
        if self.when == "before":
            visit.fail(error)
        visit.enter(Afterwards(visit, error))


class Afterwards(AbstractContextManager[None]):
    """Raises once the call inside has succeeded."""

    def __init__(self, visit: Visit, error: BaseException) -> None:
        self.visit, self.error = visit, error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.visit.struck(self.error)
            raise self.error


@register
class CallDelay(Fault):
    """A call of ``target`` takes ``delay`` longer (seconds, or ``"150ms"``, ``"2s"``); coroutine functions await it.

    ``target`` as in ``call_failure``; ``at`` counts the calls of this target.

    Imitates: a slow dependency, a saturated network.

    Fidelity: a coroutine is delayed where it first waits, so that its own time-outs and clean-up see that, as they see a slow network. In
    front of a plain function the delay passes before the call: time-outs inside it do not see it.

    Example: @chaos.call_delay(target="json:loads", delay="2s", at=0)
    """

    site = "call"
    random = False
    target: str
    delay: Any = 1.0

    def check(self) -> None:
        """Turn ``delay`` into seconds."""
        _check_target(self, self.target)
        if not is_drawn(self.delay):
            object.__setattr__(self, "delay", parse_duration(self.delay, f"{self.name}: delay"))

    @property
    def key(self) -> Key:
        """Each target counts for itself."""
        return (self.site, self.target)

    def apply(self, visit: Visit) -> None:
        """Delay the call."""
        visit.sleep(self.delay)


def error_name(error: Any, owner: str) -> str:
    """An exception class or instance as text that :func:`make_error` reads back."""
    if isinstance(error, str):
        make_error(error, "", owner)
        return error
    cls = error if isinstance(error, type) else type(error)
    if not issubclass(cls, BaseException):
        raise BadArgument(f"{owner}: expected error to be an exception, its class or its name but got {shown(error)}")
    name = cls.__qualname__ if cls.__module__ == builtins.__name__ else f"{cls.__module__}:{cls.__qualname__}"
    if isinstance(error, type) or not error.args:
        return name
    return f"{name}({', '.join(repr(arg) if _is_plain(arg) else repr(str(arg)) for arg in error.args)})"


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool, bytes, type(None)))


def make_error(text: str, target: str, owner: str) -> BaseException:
    """The exception that a text names, as one out of ``target``."""
    name, bracket, arguments = text.partition("(")
    try:
        values = ast.literal_eval(f"({arguments.rstrip()[:-1]},)") if bracket and arguments.strip() != ")" else ()
    except (ValueError, SyntaxError):
        raise BadArgument(f'{owner}: expected error as "TimeoutError" or "TimeoutError(\'text\')" but got {shown(text)}') from None
    module, colon, qualified = name.strip().partition(":")
    try:
        found: Any = importlib.import_module(module) if colon else builtins
        for part in (qualified if colon else module).split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        raise BadArgument(
            f"{owner}: there is no exception {name!r}; give the class itself, or its name as 'TimeoutError' or 'pkg.mod:TheError'"
        ) from None
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise BadArgument(f"{owner}: expected error to name an exception but got {shown(text)}")
    try:
        return found(*values) if bracket else found(f"injected into {target} by mlchaos")
    except TypeError as error:
        raise BadArgument(f"{owner}: {name} cannot be made from one text ({error}); give an instance of it") from None
