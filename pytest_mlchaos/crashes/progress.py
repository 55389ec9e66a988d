"""Track the progress of an exploration, for the message if it is interrupted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from time import perf_counter  # bound before the subject's clock is patched, so it is the real one
from typing import TYPE_CHECKING

from ..core.progress import report_step
from .model import CrashOutcome, CrashState

if TYPE_CHECKING:
    from .baseline import Baseline

__all__ = ["Progress"]


class Progress:
    """The current phase of an exploration, and the durations of the states that it has tried."""

    def __init__(self) -> None:
        self._doing: dict[int, tuple[str, float]] = {}
        self._took: list[tuple[float, str]] = []
        self._total = 0
        self._bad: set[str] = set()
        self.outcomes: dict[str, CrashOutcome] = {}
        self.states: dict[str, CrashState] = {}
        self.baseline: Baseline | None = None

    @contextlib.contextmanager
    def doing(self, phase: str, state: str = "") -> Iterator[None]:
        """Note the phase, for example ``in the golden run``. A phase that raises stays noted.

        ``state`` is the crash state that is tried in it.
        """
        thread, start = threading.get_ident(), perf_counter()
        self._doing[thread] = phase, start
        if not state:
            report_step("crash states", len(self.outcomes), self._total, len(self._bad), phase)
        yield
        del self._doing[thread]
        if state:
            self._took.append((perf_counter() - start, state))

    def begin(self, baseline: Baseline) -> None:
        """Forget the outcomes so far. Those that follow are compared with this golden run."""
        self.baseline = baseline
        self.outcomes, self.states, self._bad, self._total = {}, {}, set(), 0

    def note(self, outcome: CrashOutcome, total: int) -> None:
        """Keep the outcome of one of ``total`` states."""
        self.outcomes[outcome.state.id] = outcome
        self._total = max(total, self._total)
        (self._bad.discard if outcome.verdict == "recovered" else self._bad.add)(outcome.state.id)
        report_step("crash states", len(self.outcomes), self._total, len(self._bad))

    @property
    def tried(self) -> str:
        """Return the number of states tried, and the slowest.

        A state's time includes the comparison with the golden run.
        """
        if not self._took:
            return "no crash state was tried"
        seconds, slowest = max(self._took)
        count = len(self._took)
        return f"{count} crash state{' was' if count == 1 else 's were'} tried, the slowest of them {slowest} in {seconds:.1f} s"

    def __str__(self) -> str:
        now = perf_counter()
        phases = [f"{phase}, for {now - start:.1f} s" for phase, start in self._doing.values()]
        return f"{'; '.join(phases) or 'between two runs'}; {self.tried}"
