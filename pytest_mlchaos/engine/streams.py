"""What payloads come from, one after the other: faults take some out of it, and put others in."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any

from ..core.sites import Key
from .controller import NO_ATTRIBUTES, Controller

__all__ = ["Source"]


class Source:
    """An iterator whose items pass a site, one visit each."""

    def __init__(self, key: Key, pull: Callable[[], Any], attributes: Mapping[str, Any] = NO_ATTRIBUTES) -> None:
        self._key = key
        self._pull = pull
        self._attributes = attributes
        self._ready: collections.deque[Any] = collections.deque()
        self._ended = False
        self._error: BaseException | None = None
        self._raised: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing comes any more."""
        return self._ended and not self._ready

    @property
    def prepared(self) -> bool:
        """Whether a fault has decided what comes next."""
        return self._ended or bool(self._ready)

    def pull(self) -> Any:
        """The next item, without a visit."""
        if self._ready:
            return self._ready.popleft()
        try:
            if self._ended:
                raise self._error or StopIteration
            return self._pull()
        except BaseException as error:
            self._raised = id(error)  # not the error: its traceback would keep the loader's workers alive
            raise

    def push(self, *payloads: Any) -> None:
        """Hand these out next, in this order."""
        self._ready.extendleft(reversed(payloads))

    def end(self, error: BaseException | None = None) -> None:
        """Nothing else comes."""
        self._ended, self._error = True, error

    def owns(self, error: BaseException) -> bool:
        """Whether pulling has raised this."""
        return id(error) == self._raised

    def following(self, controller: Controller) -> Any:
        """The next item for who iterates, behind its visit; what a fault has put there makes none."""
        return self.pull() if self.prepared else self.visited(controller, self._pull())

    def visited(self, controller: Controller, item: Any) -> Any:
        """What becomes of an item at its visit."""
        return controller.visit(self._key, item, self._attributes, self)
