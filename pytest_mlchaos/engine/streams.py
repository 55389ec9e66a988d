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

    @property
    def ended(self) -> bool:
        """Return True if the source is exhausted."""
        return self._ended and not self._ready

    @property
    def prepared(self) -> bool:
        """Return True if a fault has decided the next item."""
        return self._ended or bool(self._ready)

    def pull(self) -> Any:
        """Return the next item, without a visit."""
        if self._ready:
            return self._ready.popleft()
        try:
            if self._ended:
                raise self._error or StopIteration
            return self._pull()
        except BaseException as error:
            # Not the error itself: its traceback would keep the loader's workers alive.
            self._raised = id(error)
            raise

    def push(self, *payloads: object) -> None:
        """Insert these items before the next one, in this order."""
        self._ready.extendleft(reversed(payloads))

    def end(self, error: BaseException | None = None) -> None:
        """End the source after the items that were inserted."""
        self._ended, self._error = True, error

    def owns(self, error: BaseException) -> bool:
        """Return True if pulling has raised this exception."""
        return id(error) == self._raised

    def following(self, controller: Controller) -> Any:
        """Return the next item after its visit. Items that a fault has inserted make no visit."""
        return self.pull() if self.prepared else self.visited(controller, self._pull())

    def visited(self, controller: Controller, item: object) -> Any:
        """Pass an item through its visit, and return the result."""
        return controller.visit(self._key, item, self._attributes, self)
