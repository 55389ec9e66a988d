"""Announce the start of a subject, so that faults can change its files before it reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .controller import Controller

__all__ = ["SubjectListener", "subject_runs"]


class SubjectListener(Protocol):
    """Define the functions in ``Controller.subject_listeners``."""

    def __call__(
        self, roots: Iterable[Path], *, stepwise: bool
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Return a context for a subject. It yields a function for each start of an attempt."""
        ...


@contextlib.contextmanager
def subject_runs(
    controller: Controller, roots: Iterable[Path], *, stepwise: bool = False
) -> Iterator[Callable[[], None]]:
    """Run a subject inside. Call the yielded function at the start of each attempt.

    Args:
        controller: The trial's controller.
        roots: The directories that the subject works in.
        stepwise: True if the test's body itself is the subject. Then files count as soon as they
            are complete.
    """
    with contextlib.ExitStack() as stack:
        starts = [
            stack.enter_context(listener(roots, stepwise=stepwise))
            for listener in controller.subject_listeners
        ]

        def begin() -> None:
            for start in starts:
                start()

        yield begin
