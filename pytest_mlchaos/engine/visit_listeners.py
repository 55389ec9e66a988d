"""Let a listener look at the visits of a trial, without making visits of its own."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..core.sites import Key, Stream
from .counters import VisitCounter

if TYPE_CHECKING:
    from .controller import Controller

__all__ = ["VisitListener", "VisitListeners"]

NO_ATTRIBUTES: Mapping[str, Any] = {}


class VisitListener(Protocol):
    """Receives the visits of this process."""

    def before(self) -> None:
        """Look at the program, before a visit of any site."""

    def after(self, key: Key, payload: Any) -> None:
        """Look at what a visit returns, after the faults."""


class VisitListeners:
    """The listeners of one trial.

    What a listener does makes no visits, so a fault cannot strike it, and it moves no fault.

    Attributes:
        strikes: The number of strikes in this process.
        watches: The alerts under test.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.strikes = 0
        self.watches: list[Any] = []
        self._listeners: list[VisitListener] = []
        self._looking = threading.local()
        self._process = os.getpid()

    def add(self, listener: VisitListener) -> None:
        """Add a listener until the end of the trial."""
        if not self._listeners:
            # Code that has kept a bound method is still seen before its visits.
            self._controller.visit = self._visit  # type: ignore[method-assign]
        self._listeners.append(listener)
        if len(self._listeners) == 1:
            for counter in list(self._controller._counters.values()):
                self.attach(counter)

    def attach(self, counter: VisitCounter) -> None:
        """Look before each visit that a counter counts."""
        if not self._listeners:
            return
        count = counter.counting()

        def advance() -> int:
            if getattr(self._looking, "on", False):
                return counter.passed  # not a visit
            self._look(lambda listener: listener.before())
            return count()

        counter.advance = advance

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Run code inside that makes no visits in this thread."""
        before = getattr(self._looking, "on", False)
        applying = self._controller._applying
        was_applying = getattr(applying, "on", False)
        self._looking.on = applying.on = True
        try:
            yield
        finally:
            self._looking.on, applying.on = before, was_applying

    def _visit(
        self,
        key: Key,
        payload: object = None,
        attributes: Mapping[str, Any] = NO_ATTRIBUTES,
        source: Stream | None = None,
    ) -> Any:
        visit = type(self._controller).visit
        found = visit(self._controller, key, payload, attributes, source)
        if not getattr(self._looking, "on", False):
            self._look(lambda listener: listener.after(key, found))
        return found

    def _look(self, how: Callable[[VisitListener], None]) -> None:
        if os.getpid() != self._process:
            return  # a forked child: what it sees does not reach the test
        with self.aside():
            for listener in self._listeners:
                how(listener)
