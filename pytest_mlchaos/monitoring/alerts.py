"""Define what an alert can be: a function, a check of what passes, a log, a warning, an exception."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..core.privacy import error_text
from ..core.sites import Key, key_of, name_of
from ..core.validation import format_value
from ..errors import BadArgument, Inconclusive, MlchaosError, Verdict

__all__ = [
    "Alert",
    "BrokenAlert",
    "Check",
    "ExceptionAlert",
    "LogAlert",
    "State",
    "WarningAlert",
    "make_alert",
]


class BrokenAlert(Exception):
    """An alert cannot be read, because it raised an error of its own."""


class Alert(Protocol):
    """An alert under test.

    Attributes:
        name: Its name in messages and tables.
        lasts: True if it stays on until it is off again. False for single events.
    """

    name: str
    lasts: bool

    def watching(self, fire: Callable[[], None]) -> Any:
        """Return a context in which ``fire`` is called for each event."""

    def state(self) -> bool | None:
        """Return True if it is on now. None if it cannot be asked."""

    def check(self, key: Key, payload: Any) -> bool | None:
        """Return True if it is on for what passes at a site. None if that is not for it."""

    def matches(self, error: BaseException) -> bool:
        """Return True if the error of a subject is this alert."""


class _Alert:
    """An alert that does nothing by itself."""

    name = ""
    lasts = False

    @contextmanager
    def watching(self, fire: Callable[[], None]) -> Iterator[None]:
        yield

    def state(self) -> bool | None:
        return None

    def check(self, key: Key, payload: Any) -> bool | None:
        return None

    def matches(self, error: BaseException) -> bool:
        return False


class State(_Alert):
    """A function without arguments that returns true while the alert is on."""

    lasts = True

    def __init__(self, function: Callable[[], object]) -> None:
        self.name = _name(function)
        self._function = function

    def state(self) -> bool:
        """Ask the function."""
        return _ask(self._function, any_error=False)


class Check(_Alert):
    """A function of what passes at a site: a validator of batches or tables, or a drift monitor.

    An error that it raises counts as the alert.
    """

    lasts = True

    def __init__(self, function: Callable[[Any], object], keys: frozenset[Key]) -> None:
        self.name = _name(function)
        self.keys = keys
        self.asked = 0
        self._function = function

    def check(self, key: Key, payload: Any) -> bool | None:
        """Ask the function, if this is its site."""
        if key not in self.keys:
            return None
        self.asked += 1
        return _ask(self._function, payload, any_error=True)


class LogAlert(_Alert):
    """A record of ``logging`` whose message matches a pattern."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.name = f"log {pattern.pattern!r}"
        self._pattern = pattern

    @contextmanager
    def watching(self, fire: Callable[[], None]) -> Iterator[None]:
        """Look at each record that a logger handles, also if it does not propagate."""
        handle = logging.Logger.handle

        def handle_and_look(logger: logging.Logger, record: logging.LogRecord) -> Any:
            try:
                found = self._pattern.search(record.getMessage())
            except Exception:  # noqa: BLE001  # a record with wrong arguments is logging's matter
                found = None
            if found:
                fire()
            return handle(logger, record)

        logging.Logger.handle = handle_and_look  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            logging.Logger.handle = handle  # type: ignore[method-assign]


class WarningAlert(_Alert):
    """A warning of a class, whose message matches a pattern."""

    def __init__(self, pattern: re.Pattern[str], category: type[Warning]) -> None:
        self.name = f"warning {pattern.pattern!r}" if pattern.pattern else category.__name__
        self._pattern, self._category = pattern, category

    @contextmanager
    def watching(self, fire: Callable[[], None]) -> Iterator[None]:
        """Look at each such warning, also if the same line has warned before."""
        with warnings.catch_warnings():
            show = warnings.showwarning
            pattern = f"(?s:.*?(?:{self._pattern.pattern}))"
            warnings.filterwarnings("always", pattern, self._category)

            def show_and_look(
                message: Any, category: type[Warning], *args: Any, **how: Any
            ) -> None:
                if issubclass(category, self._category) and self._pattern.search(str(message)):
                    fire()
                show(message, category, *args, **how)

            warnings.showwarning = show_and_look
            yield


class ExceptionAlert(_Alert):
    """An exception with which a guard ends the subject."""

    def __init__(self, kinds: type[BaseException] | tuple[type[BaseException], ...]) -> None:
        self.kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        self.name = " or ".join(kind.__name__ for kind in self.kinds)

    def matches(self, error: BaseException) -> bool:
        """Return True for one of the classes."""
        return isinstance(error, self.kinds)


def make_alert(
    alert: Any, log: Any, warning: Any, raises: Any, site: str | None, keys: frozenset[Key]
) -> Alert:
    """Return the alert that ``mlchaos.watch`` was given.

    Args:
        alert: A function.
        log: A pattern of a log message.
        warning: A pattern of a warning, or its class.
        raises: An exception class, or several.
        site: The site whose payloads a function gets.
        keys: The keys of the declared faults, in place of ``site``.
    """
    given = [name for name, value in _named(alert, log, warning, raises) if value is not None]
    if len(given) != 1:
        raise BadArgument(
            f"mlchaos.watch: give exactly one of alert, log=, warning= and raises=, got "
            f"{' and '.join(given) or 'none'}"
        )
    if log is not None:
        return LogAlert(_pattern("log", log))
    if warning is not None:
        if isinstance(warning, type) and issubclass(warning, Warning):
            return WarningAlert(re.compile(""), warning)
        return WarningAlert(_pattern("warning", warning), Warning)
    if raises is not None:
        return ExceptionAlert(_exceptions(raises))
    if not callable(alert) or isinstance(alert, type):
        raise BadArgument(
            f"mlchaos.watch: alert must be a function, got {format_value(alert)}. Patterns are "
            f"given as log= or warning="
        )
    if inspect.iscoroutinefunction(alert):
        raise BadArgument("mlchaos.watch: alert must be a plain function, got a coroutine function")
    if _takes(alert, 0):
        if site is not None:
            raise BadArgument(
                "mlchaos.watch: site= must be given with a function of one argument, which gets "
                "what passes there"
            )
        return State(alert)
    if not _takes(alert, 1):
        raise BadArgument(
            "mlchaos.watch: alert must be a function without arguments, or of one argument (the "
            "batch or table that passes)"
        )
    watched = frozenset({key_of(site)}) if site is not None else keys
    if not watched:
        raise BadArgument(
            "mlchaos.watch: site must be given if the test declares no fault, as in "
            "site='data.batch'"
        )
    return Check(alert, watched)


def _named(*values: Any) -> Iterator[tuple[str, Any]]:
    yield from zip(("alert", "log=", "warning=", "raises="), values, strict=True)


def _pattern(name: str, given: Any) -> re.Pattern[str]:
    if isinstance(given, re.Pattern) and isinstance(given.pattern, str):
        return given
    if isinstance(given, str) and given:
        try:
            return re.compile(given)
        except re.error as error:
            raise BadArgument(
                f"mlchaos.watch: {name} must be a regular expression, got {format_value(given)}: "
                f"{error}"
            ) from None
    raise BadArgument(
        f"mlchaos.watch: {name} must be a regular expression, got {format_value(given)}"
    )


def _exceptions(given: Any) -> type[BaseException] | tuple[type[BaseException], ...]:
    kinds = given if isinstance(given, tuple) else (given,)
    if not kinds or not all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
    ):
        raise BadArgument(
            f"mlchaos.watch: raises must be an exception class or a tuple of them, got "
            f"{format_value(given)}"
        )
    return given  # type: ignore[no-any-return]


def _takes(function: Callable[..., Any], number: int) -> bool:
    try:
        inspect.signature(function).bind(*range(number))
    except TypeError:
        return False
    except ValueError:  # a function of C without a signature
        return number == 1
    return True


def _name(function: Any) -> str:
    """Return the name of a function or of an object that is called."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", None)
    if name is None:
        return type(function).__name__
    if owner is not None and not isinstance(owner, type) and not inspect.ismodule(owner):
        return f"{type(owner).__name__}.{name}"
    return "alert" if name == "<lambda>" else str(name)


def _ask(function: Callable[..., object], *args: Any, any_error: bool) -> bool:
    """Return True if an alert is on. Raise ``BrokenAlert`` if it cannot say.

    An assertion that fails means that it is on. With ``any_error``, so does any other exception.
    """
    try:
        found = function(*args)
    except Inconclusive:
        return False  # the evidence is too small for an alert
    except (Verdict, AssertionError):
        return True
    except MlchaosError as error:
        raise BrokenAlert(error_text(error)) from error
    except Exception as error:  # the user's function may raise anything
        if any_error:
            return True
        raise BrokenAlert(error_text(error)) from error
    if hasattr(found, "columns"):
        return False  # a validator that returns the table has found nothing
    try:
        return bool(found)
    except Exception as error:  # an array has no truth value
        raise BrokenAlert(error_text(error)) from error


def describe_site(keys: frozenset[Key]) -> str:
    """Return the names of some sites."""
    return " or ".join(sorted({name_of(key) for key in keys}))
