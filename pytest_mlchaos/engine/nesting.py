"""Mark the code that is the subject of a run, and refuse nested runs."""

from __future__ import annotations

from collections.abc import Callable, Container

from ..errors import BadArgument, MlchaosError
from .declarations import Declarations
from .other_servers import note_servers

__all__ = ["SubjectOf", "SubjectState"]


class SubjectOf:
    """Refuse nested runs: they would mix up their visits, and end each other's process.

    The error is stored as well, because a subject may catch it. This is a class because a generator
    of contextlib would show its code in the tracebacks of the subject.

    Attributes:
        outer: The entry point whose subject makes the call. Empty if the test's body makes it.
    """

    def __init__(self, controller: SubjectState, caller: str, within: Container[str]) -> None:
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
        if not controller.inside:
            note_servers()
        controller.inside = self._caller
        controller.changed()

    def __exit__(self, *_: object) -> None:
        self._controller.inside = self.outer
        self._controller.changed()


class SubjectState(Declarations):
    """Keep what a trial knows about the subject that is running.

    Attributes:
        inside: The entry point whose subject is running. Empty in the test's own body.
        supervised: The number of open attempts. A crash closes only contexts that were opened
            inside one.
        starts_servers: True once the test starts a server process. A trial then takes seconds.
        serves: True once the test serves an app. Then each later visit may belong to a request.
        on_change: Functions that are called when the subject starts or stops running.
        broken: The first mistake of a fault or of the test.
        judgements: The oracles that were called, each with True if it had something to judge.
    """

    inside = ""
    supervised = 0
    serves = False
    starts_servers = False
    _quiet = 0  # the number of open golden runs
    on_change: list[Callable[[], None]]
    broken: MlchaosError | None
    judgements: dict[str, bool]

    @property
    def is_running(self) -> bool:
        """Return True while code runs in which faults may strike: the test's body, or the subject
        of a run.
        """
        return not self._quiet and (not self.inside or self.supervised > 0)

    @property
    def in_golden_run(self) -> bool:
        """Return True while code runs in which no fault may strike, such as a golden run."""
        return self._quiet > 0

    @property
    def in_set_up(self) -> bool:
        """Return True while the test's own body runs, outside of any subject."""
        return not self.inside and not self.supervised and not self.serves

    def judged(self, oracle: str, judges: bool) -> None:
        """Record that an oracle was called.

        ``judges`` is True if a fault had struck its subject.
        """
        self.judgements[oracle] = self.judgements.get(oracle, False) or judges

    def changed(self) -> None:
        """Announce that the subject has started or stopped running."""
        for call in self.on_change:
            call()

    def subject_of(self, caller: str, *, within: Container[str] = ()) -> SubjectOf:
        """Return a context manager that refuses another run while the subject of this one runs.

        Args:
            caller: The entry point that starts this run.
            within: The entry points whose subjects may start such a run, because no fault strikes
                in them.
        """
        return SubjectOf(self, caller, within)
