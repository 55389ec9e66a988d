"""Where runs take place: in this process, one after the other, in the subject's own work directory."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ...core.crashes import Change, Ran, Trace, Tree
from ...errors import BadArgument
from .. import randomness
from ..controller import Controller
from ..scopes import OURS, within
from ..surroundings import Surroundings
from ..watchdog import no_time_limit
from .contents import Contents
from .disk import Disk
from .leftovers import Leftovers
from .recorder import Recorder
from .runs import Subject, Terms, collected, recorded, resumed

__all__ = ["Golden", "Host", "InProcess", "OnStep"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

OnStep = Callable[[Trace], None]


@dataclasses.dataclass(frozen=True)
class Golden:
    """The run without a crash, and what it did to its directory. ``unclean``: what it left behind in its process, in words."""

    ran: Ran
    start: Tree | None
    changes: Sequence[Change]
    end: Tree | None
    unclean: tuple[str, ...] = ()


class Host(Protocol):
    """Runs a subject, from any content of its directory."""

    contents: Contents

    def golden(self, start: Tree | None) -> Golden:
        """The recorded run, from that content (None: from what is there)."""
        ...

    def resume(self, tree: Tree, number: int, on_step: OnStep) -> Ran:
        """A run from that content, as the ``number``-th process."""
        ...


class InProcess:
    """Runs in this process. What a run leaves in user modules' globals, and in the directory, is undone before the next."""

    def __init__(self, subject: Subject, terms: Terms, contents: Contents) -> None:
        self.contents = contents
        self._subject = subject
        self._terms = terms
        self._disk = Disk(terms.root, contents)
        self._surroundings = Surroundings()
        self._before = Leftovers()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, controller: Controller, subject: Subject, terms: Terms, store: Path) -> Iterator[InProcess]:
        """No fault strikes meanwhile, no time of the trial's passes, and afterwards the process is as it was."""
        contents = Contents(store)
        try:
            with controller.without_faults(), randomness.restored(), Surroundings(), no_time_limit():
                yield cls(subject, terms, contents)
        finally:
            contents.close()

    def limit(self, seconds: float) -> None:
        """So long may a run take from now on."""
        self._terms = dataclasses.replace(self._terms, timeout=seconds)

    def golden(self, start: Tree | None) -> Golden:
        """The recorded run."""
        with within(OURS):
            if start is not None:
                self._disk.hold(start)
            recorder = Recorder(self._terms.root, self.contents)
        try:
            ran = recorded(self._subject.fresh(), self._terms, recorder)
            running = self._before.running()
            with within(OURS):
                recorder.drain()
            directory = self._before.directory()
            if directory is not None:
                raise BadArgument(
                    f"mlchaos.explore_crashes: the subject has changed the current directory, to {directory}, and left it so: the next "
                    "process begins in the old one. Use absolute paths, or contextlib.chdir"
                )
            unclean = (*(f"{what} still runs" for what in running), *(f"it has changed {name}" for name in self._before.in_globals()))
            return Golden(ran, recorder.start, recorder.changes, recorder.tree(), unclean)
        finally:
            recorder.close()

    def resume(self, tree: Tree, number: int, on_step: OnStep) -> Ran:
        """A run from that content."""
        with within(OURS):
            self._disk.hold(tree)
            self._surroundings.restore()
            self._before.restore()
        return resumed(self._subject.fresh(), self._terms, number, on_step)

    def again(self, tree: Tree) -> Golden:
        """A recorded run from that content: what a second crash, in the middle of the recovery, would leave."""
        self._before.restore()
        self._surroundings.restore()
        return self.golden(tree)

    def leave(self, tree: Tree | None) -> None:
        """At the end: the directory holds what the golden run has left there."""
        collected()
        with within(OURS):
            self._surroundings.restore()
            self._before.restore()
            if tree is not None:
                self._disk.hold(tree)
