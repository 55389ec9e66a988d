"""Run a federation under the faults of the trial, and once more without them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..engine import randomness
from ..engine.controller import Controller
from ..engine.subjects import subject_runs
from ..runs.supervisor import Supervisor
from ..runs.user_state import UserState
from .records import History

__all__ = ["Runner"]


class Runner(Supervisor):
    """One federation, with its inputs as they were at the start.

    Args:
        controller: The controller of the trial.
        loop: The loop of the federation.
        args: The user's functions and data.
        scratch: The test's temporary directory.
        workdirs: More directories that the federation works in.
    """

    def __init__(
        self,
        controller: Controller,
        loop: Callable[..., History],
        args: tuple[Any, ...],
        scratch: Path,
        workdirs: Iterable[Path],
    ) -> None:
        super().__init__(controller, loop, args, scratch, _nothing_watched, workdirs)
        with controller.without_faults():
            self._memory = UserState()
            self._left = self._memory.contents()

    def revive(self) -> None:
        """Restore the disk as a crash left it."""
        with self._controller.without_faults():
            self._disk.thaw()

    def federate(self) -> History:
        """Run the federation under the faults of the trial."""
        controller = self._controller
        with (
            randomness.preserve_state(),
            self._memory.following_imports(),
            subject_runs(controller, self._disk.roots) as begin,
            controller.on_crash(self._freeze),
        ):
            begin()
            history: History = self._inputs.first()()
        self._left = self._memory.contents()
        controller.forget.append(self._forget)
        return history

    def golden(self) -> History:  # type: ignore[override]  # its record has rounds
        """Run the federation without faults, from the same start."""
        with self._undisturbed() as subject, self._memory_at_the_start():
            history: History = subject()
        return history

    @contextlib.contextmanager
    def _memory_at_the_start(self) -> Iterator[None]:
        """Undo changes of user modules inside."""
        self._memory.adopt(self._left)
        try:
            with self._memory.as_at_the_start():
                yield
        finally:
            self._left = self._memory.contents()

    def _forget(self) -> None:
        """Drop what the federation left in memory, so that the next trial starts afresh."""
        self._memory.adopt(self._left)
        self._memory.restore()


def _nothing_watched() -> contextlib.AbstractContextManager[Callable[[], Any]]:
    return contextlib.nullcontext(tuple)
