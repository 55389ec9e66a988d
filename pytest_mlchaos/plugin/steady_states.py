"""Check the steady state of a test before, during and after the faults."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .. import errors
from ..core.privacy import error_text
from ..core.recording import recorded_by
from ..core.sites import Key
from ..core.validation import format_value
from ..engine.controller import Controller
from ..errors import (
    BadArgument,
    Inconclusive,
    MlchaosError,
    NotSteady,
    SteadyStateFailed,
    Vacuous,
    Verdict,
)
from .pytest_internals import source_marks

__all__ = ["steady_state_checked"]

MARK = "mlchaos_steady_state"


class SteadyState:
    """A check of the steady state, which gets the fixtures of the test that it names."""

    def __init__(
        self, item: pytest.Function, check: Callable[..., object], *, during: bool
    ) -> None:
        self._check = check
        self._during = during
        self._item = item
        self.broken_at = ""  # where it first did not hold, with the reason
        name = getattr(check, "__name__", type(check).__name__)
        self.name = "the steady state" if name == "<lambda>" else name

    def before(self) -> None:
        """Raise ``SteadyStateFailed`` unless it holds before any fault."""
        if reason := self._reason():
            raise SteadyStateFailed(
                f"{self.name} does not hold before any fault, so the test cannot show what the "
                f"faults do: {reason}"
            )

    def after(self) -> None:
        """Raise ``NotSteady`` if it did not hold during the faults, or does not hold after them."""
        if self.broken_at:
            raise NotSteady(f"{self.name} did not hold {self.broken_at}")
        if reason := self._reason():
            raise NotSteady(f"{self.name} does not hold after the faults: {reason}")

    def watched(self, controller: Controller) -> None:
        """Check it before each visit, while the body runs."""
        if self._during:
            controller.visit_listeners.add(_Visits(self, controller))

    def look(self, controller: Controller) -> None:
        """Note the first time that it does not hold."""
        if not self.broken_at and (reason := self._reason()):
            strikes = controller.journal
            last = f"after {strikes[-1]}" if len(strikes) else "before any strike"
            self.broken_at = f"during the test, {last}: {reason}"

    def _reason(self) -> str:
        """Return why it does not hold, or an empty text."""
        names = inspect.signature(self._check).parameters
        given = {name: self._item.funcargs[name] for name in names if name in self._item.funcargs}
        made, errors.made = errors.made, None
        try:
            with recorded_by(lambda entry: None):
                found = self._check(**given)
        except (Verdict, AssertionError) as error:
            if isinstance(error, Inconclusive):
                raise
            return error_text(error)
        except MlchaosError:
            raise
        except Exception as error:  # noqa: BLE001  # the user's check may raise anything
            return error_text(error)
        finally:
            errors.made = made
        return "" if found is None or found else "it returned a false value"


class _Visits:
    """Looks at the steady state before each visit."""

    def __init__(self, state: SteadyState, controller: Controller) -> None:
        self._state, self._controller = state, controller

    def before(self) -> None:
        """Check it, except in golden runs."""
        if not self._controller._quiet:
            self._state.look(self._controller)

    def after(self, key: Key, payload: Any) -> None:
        """Ignore what passes."""


@contextlib.contextmanager
def steady_state_checked(item: pytest.Function, controller: Controller) -> Iterator[None]:
    """Check the steady states that a test declares, before, during and after the code inside."""
    states = [_declared(item, mark) for mark in source_marks(item, MARK)]
    if states and controller.idle:
        raise Vacuous(f"chaos.steady_state: {controller.idle}, so nothing disturbs it")
    for state in states:
        with controller.without_faults():
            state.before()
        state.watched(controller)
    yield
    for state in states:
        with controller.without_faults():
            state.after()


def _declared(item: pytest.Function, mark: pytest.Mark) -> SteadyState:
    if len(mark.args) != 1 or not callable(mark.args[0]) or set(mark.kwargs) - {"during"}:
        raise BadArgument(
            "chaos.steady_state takes one check, and during=, as in @chaos.steady_state(is_healthy)"
        )
    during = mark.kwargs.get("during", True)
    if not isinstance(during, bool):
        raise BadArgument(
            f"chaos.steady_state: during must be True or False, got {format_value(during)}"
        )
    check = mark.args[0]
    try:
        parameters = inspect.signature(check).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    missing = [
        one.name
        for one in parameters
        if one.name not in item.funcargs
        and one.default is one.empty
        and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if missing or inspect.iscoroutinefunction(check):
        raise BadArgument(
            f"chaos.steady_state: the check must be a plain function whose arguments are fixtures "
            f"of the test, got {', '.join(missing) or 'a coroutine function'}"
        )
    return SteadyState(item, check, during=during)
