"""Mark the code that is the subject of a run, and refuse nested runs."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from ..errors import BadArgument

if TYPE_CHECKING:
    from .controller import Controller

__all__ = ["SubjectOf"]


class SubjectOf:
    """Refuse nested runs: they would mix up their visits, and end each other's process.

    The error is stored as well, because a subject may catch it. This is a class because a generator
    of contextlib would show its code in the tracebacks of the subject.

    Attributes:
        outer: The entry point whose subject makes the call. Empty if the test's body makes it.
    """

    def __init__(self, controller: Controller, caller: str, within: Container[str]) -> None:
        self._controller = controller
        self._caller = caller
        self._within = within
        self.outer = controller.inside

    def __enter__(self) -> None:
        controller = self._controller
        self.outer = controller.inside
        if controller.inside and controller.inside not in self._within:
            error = BadArgument(
                f"{self._caller} was called inside the subject of {controller.inside}, or in a "
                f"thread beside it, and runs cannot be "
                "nested. Call it in the test, after the first one has returned"
            )
            controller.broken = controller.broken or error
            raise error
        controller.inside = self._caller
        controller.changed()

    def __exit__(self, *_: object) -> None:
        self._controller.inside = self.outer
        self._controller.changed()
