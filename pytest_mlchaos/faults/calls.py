"""Define faults of calls: a dependency that fails, or is slow."""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, Literal

from ..core.faults import Fault, Opaque, is_drawn, register
from ..core.sites import Key, Visit
from ..core.validation import format_value, parse_duration
from ..errors import BadArgument

__all__ = ["CallDelay", "CallFailure", "GivenError", "RaiseAfterwards", "error_name", "make_error"]
LAYER = "Calls and services"


def _check_target(fault: Fault, target: Any) -> None:
    if target is not None and not is_drawn(target) and not target.strip():
        raise BadArgument(
            f"{fault.name}: target must be 'pkg.mod:function', got {format_value(target)}"
        )


@register
class CallFailure(Fault):
    """A call of ``target`` raises ``error``.

    Each strike raises a copy of an instance. An instance that its arguments and keywords do not
    make again has no line to paste. ``at`` counts the calls of this target, in all threads and in
    all processes that the subject forks: ``at=0`` is one call.

    Args:
        target: ``"pkg.mod:function"``, ``"pkg.mod:Class.method"``, or the same with dots only. It
            is wrapped under every name by which a module imported it.
        error: An exception class or instance, or its name (``"TimeoutError"``,
            ``"requests.exceptions:ReadTimeout('no answer')"``).
        when: ``"before"``, or ``"after"``: the call takes effect and then fails, so the reply is
            lost. If the calls are searched and ``when`` is not given, both are tried.

    Imitates: a dependency that refuses, drops the connection, or answers with an error.

    Fidelity: the function's own code does not run (or runs to its end). The part of its work that
    it does before it fails in production is not simulated. Copies of the function in closures,
    containers and default arguments are not reached. Nor are other programs (``subprocess``).

    Example: @chaos.call_failure(target="json:loads", error="TimeoutError", at=0)
    """

    site = "call"
    random = False
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"when": ("before", "after")}
    target: str
    error: Any = "RuntimeError"
    when: Literal["before", "after"] = "before"

    def check(self) -> None:
        """Store ``error`` by its name, so that a schedule stays plain data."""
        _check_target(self, self.target)
        if not is_drawn(self.error):
            object.__setattr__(self, "error", error_name(self.error, self.name))

    @property
    def key(self) -> Key:
        """Count the visits of each target separately."""
        return (self.site, self.target)

    @property
    def called(self) -> str:
        """Return the name of what is called, for the text of the error."""
        return self.target

    def apply(self, visit: Visit) -> None:
        """Raise the error now, or after the call."""
        error = make_error(self.error, self.called, self.name)
        if self.when == "before":
            visit.fail(error)
        visit.keep_open(RaiseAfterwards(visit, error))


class RaiseAfterwards(AbstractContextManager[None]):
    """Raise an error once the call inside has succeeded."""

    def __init__(self, visit: Visit, error: BaseException) -> None:
        self.visit, self.error = visit, error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.visit.record_injection(self.error)
            raise self.error


@register
class CallDelay(Fault):
    """A call of ``target`` takes longer. Coroutine functions await the delay.

    ``at`` counts the calls of this target.

    Args:
        target: The function, as for ``call_failure``.
        delay: Seconds, or ``"150ms"``, ``"2s"``.

    Imitates: a slow dependency, a saturated network.

    Fidelity: a coroutine is delayed at its first wait, so its own timeouts and clean-up see the
    delay, as they see a slow network. A plain function is delayed before the call, so timeouts
    inside it do not see it.

    Example: @chaos.call_delay(target="json:loads", delay="2s", at=0)
    """

    site = "call"
    random = False
    gradual: ClassVar = {"delay": 0.0}
    target: str
    delay: Any = 1.0

    def check(self) -> None:
        """Convert ``delay`` to seconds."""
        _check_target(self, self.target)
        if not is_drawn(self.delay):
            object.__setattr__(self, "delay", parse_duration(self.delay, f"{self.name}: delay"))

    @property
    def key(self) -> Key:
        """Count the visits of each target separately."""
        return (self.site, self.target)

    def apply(self, visit: Visit) -> None:
        """Delay the call."""
        visit.sleep(self.delay)


class GivenError(Opaque):
    """An exception object that a test made and no text can recreate. Each strike raises a copy."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"an instance of {_name_of(type(error))}")
        self.error = error

    def copy(self) -> BaseException:
        """Return an exception with the same arguments and attributes, and without a traceback."""
        with contextlib.suppress(Exception):  # a constructor may need any arguments
            made: BaseException = copy.copy(self.error)
            made.__dict__.update(_attributes(self.error))
            if _alike(made, self.error):
                return made
        return _made(
            type(self.error),
            self.error.args,
            _attributes(self.error),
            _members(self.error),
            self.error.__cause__,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GivenError) and (
            self.error is other.error or _alike(self.error, other.error)
        )

    def __hash__(self) -> int:
        return hash(type(self.error))

    def __reduce__(self) -> Any:
        state = (
            type(self.error),
            self.error.args,
            _attributes(self.error),
            _members(self.error),
            self.error.__cause__,
        )
        return _given, state


def _given(*state: Any) -> GivenError:
    return GivenError(_made(*state))


def _made(
    cls: type[BaseException],
    args: tuple[Any, ...],
    attributes: Mapping[str, Any],
    members: Mapping[str, Any],
    cause: BaseException | None,
) -> BaseException:
    """Return an exception with this state, without a call of its constructor."""
    made = cls.__new__(cls, *args)
    made.args = args
    for name, value in members.items():
        with contextlib.suppress(AttributeError, TypeError):  # a few attributes are read-only
            setattr(made, name, value)
    made.__dict__.update(attributes)
    if cause is not None:
        made.__cause__ = cause
    return made


def _attributes(error: BaseException) -> dict[str, Any]:
    """Return the content of the exception's ``__dict__``, with its own list of notes."""
    kept = {name: value for name, value in vars(error).items() if not name.startswith("_mlchaos_")}
    return {name: list(value) if name == "__notes__" else value for name, value in kept.items()}


def _members(error: BaseException) -> dict[str, Any]:
    """Return the attributes in slots of Python or C, for example ``errno`` or ``start``."""
    found = {}
    for cls in type(error).__mro__:
        for name, held in vars(cls).items():
            if inspect.ismemberdescriptor(held) and not name.startswith("__"):
                with contextlib.suppress(AttributeError):
                    found[name] = getattr(error, name)
    return found


def _alike(one: BaseException, other: BaseException) -> bool:
    """Return True if two exceptions hold the same values."""
    with contextlib.suppress(Exception):  # the values may define any comparison
        same = (one.args, _attributes(one), _members(one), str(one)) == (
            other.args,
            _attributes(other),
            _members(other),
            str(other),
        )
        return type(one) is type(other) and bool(same) and one.__cause__ is other.__cause__
    return False


def _name_of(cls: type) -> str:
    return (
        cls.__qualname__
        if cls.__module__ == builtins.__name__
        else f"{cls.__module__}:{cls.__qualname__}"
    )


def error_name(error: Any, owner: str) -> str | GivenError:
    """Return an exception class or instance as text that ``make_error`` can read.

    Return the instance itself if no text recreates it.
    """
    if isinstance(error, GivenError):
        return error
    if isinstance(error, str):
        make_error(error, "", owner)
        return error
    cls = error if isinstance(error, type) else type(error)
    if not issubclass(cls, BaseException):
        raise BadArgument(
            f"{owner}: error must be an exception, its class or its name, got {format_value(error)}"
        )
    name = _name_of(cls)
    if isinstance(error, type):
        return name
    for text in _texts(name, error):
        with contextlib.suppress(BadArgument):
            made = make_error(text, "", owner)
            if type(made) is cls and (text == name or _alike(made, error)):
                return text
    return GivenError(error)


def _texts(name: str, error: BaseException) -> Iterator[str]:
    """Yield texts that may recreate an exception, from its arguments and its attributes."""
    if not error.args and not vars(error) and error.__cause__ is None:
        yield name  # this text says that the error was injected
    tried: list[Any] = [error.args]
    with contextlib.suppress(Exception):  # a __reduce__ may raise anything
        tried.append(error.__reduce__()[1])  # that of an OSError includes its path
    for values in tried:
        if all(map(_is_plain, values)):
            arguments = [*map(repr, values)]
            yield f"{name}({', '.join(arguments)})"
            yield f"{name}({', '.join([*arguments, *_keywords(error)])})"


def _keywords(error: BaseException) -> Iterator[str]:
    with contextlib.suppress(TypeError, ValueError):  # some constructors have no signature
        for parameter in inspect.signature(type(error)).parameters.values():
            value = getattr(error, parameter.name, None)
            if parameter.kind is parameter.KEYWORD_ONLY and _is_plain(value):
                yield f"{parameter.name}={value!r}"


def _is_plain(value: object) -> bool:
    """Return True for a value that is equal after it was written as text and read back."""
    with contextlib.suppress(Exception):  # a repr may return anything
        read = ast.literal_eval(repr(value))
        return type(read) is type(value) and bool(read == value)
    return False


def _arguments(text: str, owner: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        call = ast.parse(f"_({text}", mode="eval").body
        if isinstance(call, ast.Call) and all(keyword.arg for keyword in call.keywords):
            keywords = {
                str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords
            }
            return [ast.literal_eval(argument) for argument in call.args], keywords
    except (ValueError, SyntaxError):
        pass
    raise BadArgument(
        f'{owner}: error must be "TimeoutError" or "TimeoutError(\'text\')", got '
        f"{format_value(text)}"
    )


def make_error(text: str | GivenError, target: str, owner: str) -> BaseException:
    """Return the exception that a text names, as if ``target`` had raised it. Copy a given
    instance.
    """
    if isinstance(text, GivenError):
        return text.copy()
    name, bracket, arguments = text.partition("(")
    values, keywords = _arguments(arguments, owner) if bracket else ([], {})
    module, colon, qualified = name.strip().partition(":")
    try:
        found: Any = importlib.import_module(module) if colon else builtins
        for part in (qualified if colon else module).split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        raise BadArgument(
            f"{owner}: found no exception {name!r}. Give the class itself, or a name such as "
            f"'TimeoutError' or 'pkg.mod:TheError'"
        ) from None
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise BadArgument(f"{owner}: error must name an exception, got {format_value(text)}")
    try:
        made: BaseException = (
            found(*values, **keywords) if bracket else found(f"injected into {target} by mlchaos")
        )
    except Exception as error:  # noqa: BLE001  # a constructor may raise anything
        raise BadArgument(
            f"{owner}: {name} cannot be made from one text ({error}). Give an instance of it"
        ) from None
    return made
