"""Define the source of payloads, from which faults take items and into which they insert some."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any

from ..core.sites import Key
from .controller import NO_ATTRIBUTES, Controller

__all__ = ["Source"]


class Source:
    """An iterator whose items pass a site, one visit each."""

    def __init__(
        self, key: Key, pull: Callable[[], Any], attributes: Mapping[str, Any] = NO_ATTRIBUTES
    ) -> None:
        self._key = key
        self._pull = pull
        self._attributes = attributes
        self._ready: collections.deque[Any] = collections.deque()
        self._ended = False
        self._error: BaseException | None = None
        self._raised: int | None = None
        # Items that come later: when each is due, how to wait until then, and the item.
        self._late: list[tuple[Callable[[], bool], Callable[[], object], object]] = []

    @property
    def ended(self) -> bool:
        """Return True if the source is exhausted."""
        return self._ended and not self._ready and not self._late

    @property
    def prepared(self) -> bool:
        """Return True if a fault has decided the next item."""
        for late in [late for late in self._late if late[0]()]:
            self._late.remove(late)
            self._ready.append(late[2])
        return self._ended or bool(self._ready)

    def pull(self) -> Any:
        """Return the next item, without a visit."""
        if self._ready:
            return self._ready.popleft()
        try:
            if self._ended and not self._late:
                raise self._error or StopIteration
            return self._wait_for_late() if self._ended else self._taken()[0]
        except BaseException as error:
            # Not the error itself: its traceback would keep the loader's workers alive.
            self._raised = id(error)
            raise

    def postpone(
        self, payload: object, is_due: Callable[[], bool], wait: Callable[[], object]
    ) -> None:
        """Insert an item as soon as ``is_due()`` is true, or after ``wait()`` at the end."""
        self._late.append((is_due, wait, payload))

    def push(self, *payloads: object) -> None:
        """Insert these items before the next one, in this order."""
        self._ready.extendleft(reversed(payloads))

    def end(self, error: BaseException | None = None) -> None:
        """End the source after the items that were inserted or postponed."""
        self._ended, self._error = True, error

    def owns(self, error: BaseException) -> bool:
        """Return True if pulling has raised this exception."""
        return id(error) == self._raised

    def following(self, controller: Controller) -> Any:
        """Return the next item after its visit. Items that a fault has inserted make no visit."""
        if self.prepared:
            return self.pull()
        item, is_late = self._taken()
        return item if is_late else self.visited(controller, item)

    def _taken(self) -> tuple[Any, bool]:
        """Return the next item, and True if it is one that was postponed."""
        try:
            return self._pull(), False
        except StopIteration:
            if not self._late:
                raise
        return self._wait_for_late(), True

    def _wait_for_late(self) -> Any:
        """Return the first item that was postponed. Nothing else is left to wait for."""
        _, wait, late = self._late.pop(0)
        wait()
        return late

    def visited(self, controller: Controller, item: object) -> Any:
        """Pass an item through its visit, and return the result."""
        return controller.visit(self._key, item, self._attributes, self)
