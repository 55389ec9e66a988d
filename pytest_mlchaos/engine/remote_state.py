"""Collect the messages of a different process in the trial, and merge them into the controller."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..core.journal import Strike
from ..core.privacy import error_text, remember_text
from ..core.records import Accounted, Gradients, Preemption, PrivateStep
from ..core.sites import Key
from ..errors import FaultError, MlchaosError
from .counters import ProcessCounts

if TYPE_CHECKING:
    from .controller import Controller

__all__ = ["RemoteState", "merge_into", "pack_error"]


class RemoteState:
    """The messages of one process so far.

    Attributes:
        crash: The text of the crash that ended the process, or None.
    """

    def __init__(self) -> None:
        self.strikes: list[tuple[int, Strike]] = []
        self.eligible: dict[int, list[int]] = {}
        self.measures: dict[int, dict[str, int]] = {}
        self.passed: dict[Key, int] = {}
        self.failures: dict[Key, int] = {}
        self.names: dict[str, dict[str, None]] = {}
        self.broken: MlchaosError | None = None
        self.injected: list[tuple[str, str]] = []
        self.preempted: Preemption | None = None
        self.gradients: Sequence[Gradients] = ()
        self.losses: Sequence[float] = ()
        self.private: list[PrivateStep] = []
        self.accounted: Accounted | None = None
        self.points: list[tuple[str, bool, str, int, int]] = []
        self.crash: str | None = None
        self.unusable: str | None = None
        self.halted: float | None = None
        self.delayed_until = 0.0

    def take(self, kind: str, *content: object) -> None:
        """Process one message."""
        getattr(self, f"_on_{kind}")(*content)

    def _on_visit(self, key: Key, number: int) -> None:
        self.passed[key] = number

    def _on_strike(self, index: int, strike: Strike) -> None:
        self.strikes.append((index, strike))

    def _on_failed(self, key: Key, rank: int | None = None) -> None:
        self.failures[key] = self.failures.get(key, 0) + 1

    def _on_injected(self, kind: str, text: str) -> None:
        self.injected.append((kind, text))

    def _on_crash(self, text: str) -> None:
        self.crash = text

    def _on_eligible(self, index: int, visit: int) -> None:
        self.eligible.setdefault(index, []).append(visit)

    def _on_measured(self, measures: dict[int, dict[str, int]]) -> None:
        for index, sizes in measures.items():
            self.measures.setdefault(index, {}).update(sizes)

    def _on_passed(
        self,
        passed: dict[Key, int],
        measures: dict[int, dict[str, int]],
        failed: dict[Key, int],
        names: dict[str, dict[str, None]],
    ) -> None:
        self.passed.update(passed)
        self.measures.update(measures)
        self.failures, self.names = failed, names

    def _on_broken(self, text: str, data: bytes | None) -> None:
        error = pickle.loads(data) if data else None
        self.broken = error if isinstance(error, MlchaosError) else FaultError(text)

    def _on_preempted(self, told: Preemption) -> None:
        self.preempted = told

    def _on_gradients(self, gradients: Sequence[Gradients]) -> None:
        self.gradients = gradients

    def _on_losses(self, losses: Sequence[float]) -> None:
        self.losses = losses

    def _on_private_step(self, step: PrivateStep) -> None:
        self.private.append(step)

    def _on_accounted(self, accounted: bytes) -> None:
        self.accounted = pickle.loads(accounted)

    def _on_unusable(self, text: str) -> None:
        self.unusable = text

    def _on_hangs(self, when: float) -> None:
        self.halted = when

    def _on_delays(self, until: float) -> None:
        self.delayed_until = until

    def _on_point(self, name: str, is_condition: bool, place: str, reached: int, held: int) -> None:
        self.points.append((name, is_condition, place, reached, held))

    def counts(self) -> ProcessCounts:
        """Return the counts of visits and strikes."""
        struck: dict[int, int] = {}
        for index, _ in self.strikes:
            struck[index] = struck.get(index, 0) + 1
        return ProcessCounts(dict(self.passed), struck)


def merge_into(
    controller: Controller, state: RemoteState, rank: int | None = None, *, ended: bool = True
) -> None:
    """Merge the events of a process into the controller. The next process continues its counts.

    Args:
        controller: The controller of the trial.
        state: The messages of the process.
        rank: The rank of the process, in a world.
        ended: True if the process has ended.
    """
    for index, strike in state.strikes:
        scheduled = controller.scheduled[index]
        scheduled.total += 1
        scheduled.strikes.append((strike.details.get("rank", rank), strike.visit))
        controller.journal.append(strike if rank is None else strike.of_rank(rank))
    if ended:
        controller.journal.end_process()
    for index, visits in state.eligible.items():
        controller.scheduled[index].eligible = sorted(
            {*controller.scheduled[index].eligible, *visits}
        )
        controller.scheduled[index].outside.difference_update(visits)
    for index, measures in state.measures.items():
        for name, size in measures.items():
            known = controller.scheduled[index].measures
            known[name] = max(size, known.get(name, 0))
    for point in state.points:
        controller.points.add(*point)
    for site, names in state.names.items():
        controller.names.setdefault(site, {}).update(names)
    if state.broken is not None:
        controller.broken = controller.broken or state.broken


def pack_error(
    error: BaseException, dumps: Callable[[BaseException], bytes] = pickle.dumps
) -> tuple[str, bytes | None]:
    """Return an exception as text, and pickled if it can be unpickled.

    Keep the text that may be shown with it.
    """
    text = error_text(error)
    remember_text(error)
    try:
        data = dumps(error)
        pickle.loads(data)
    except Exception:  # noqa: BLE001  # fall back to the text
        return text, None
    return text, data
