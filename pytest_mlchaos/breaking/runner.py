"""Run a subject at a level of a fault, each time from the same start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .. import errors
from ..core.privacy import error_text
from ..core.recording import recorded_by
from ..core.schedule import Schedule
from ..engine import randomness
from ..engine.controller import Controller
from ..engine.nested_schedules import under_schedule
from ..engine.process_state import ProcessState
from ..errors import (
    GoldenRunFailed,
    Inconclusive,
    MlchaosError,
    NeverStruck,
    TrialTimeout,
    Verdict,
)
from ..runs.api import supervise
from ..runs.inputs import Inputs
from ..runs.supervisor import check_subject
from ..runs.verdicts import Run
from ..runs.workdirs import WorkDirs
from .levels import Levels

__all__ = ["LevelRunner"]

Oracle = Callable[[Run], object]
MAX_RESTARTS = 8


class LevelRunner:
    """Runs a subject at any level, and asks the oracle if it has survived."""

    def __init__(
        self,
        controller: Controller,
        subject: Callable[..., Any],
        args: tuple[Any, ...],
        levels: Levels,
        oracle: Oracle,
        scratch: Path,
        workdirs: Iterable[Path],
    ) -> None:
        check_subject(subject, "mlchaos.breaking_point")
        self._controller = controller
        self._levels = levels
        self._oracle = oracle
        self._scratch, self._workdirs = scratch, list(workdirs)
        self.why = ""  # why the last trial did not survive
        with controller.without_faults():
            self._inputs = Inputs(subject, args)
            self._process_state = ProcessState()
            self._disk = WorkDirs.of(subject, args, scratch, self._workdirs)

    def check_golden(self) -> None:
        """Raise ``GoldenRunFailed`` unless the subject survives without any fault."""
        if not self._survives(Schedule(), 0):
            raise GoldenRunFailed(
                f"mlchaos.breaking_point: the subject does not pass the oracle without any fault: "
                f"{self.why}"
            )

    def survives(self, level: int, seed: int) -> bool:
        """Return True if the subject survives a level, with random numbers of this seed."""
        fault = self._levels.fault(self._levels.values[level])
        return self._survives(Schedule((fault,), seed), seed)

    def _survives(self, schedule: Schedule, seed: int) -> bool:
        controller = self._controller
        with (
            randomness.preserve_state(),
            ProcessState(),
            self._disk.as_at_the_start(),
            under_schedule(controller, schedule) as journal,
        ):
            self._process_state.restore()
            randomness.seed_all("breaking point", seed)
            made, errors.made = errors.made, None
            try:
                with recorded_by(lambda entry: None):
                    survived = self._judged()
            finally:
                errors.made = made
            if schedule.faults and not len(journal):
                raise NeverStruck(
                    f"{schedule.faults[0]!r} never struck, so it says nothing about the subject. "
                    f"The sites that were passed: "
                    f"{', '.join(sorted(map(str, controller.passed()))) or 'none'}"
                )
        return survived

    def _judged(self) -> bool:
        """Return True if the subject ends, and the oracle neither raises nor returns False."""
        try:
            run = supervise(
                self._controller,
                self._inputs.again(),
                (),
                self._scratch,
                self._workdirs,
                max_restarts=MAX_RESTARTS,
                isolated=False,
            )
            found = self._oracle(run)
        except (Inconclusive, TrialTimeout):
            raise
        except MlchaosError as error:
            if not isinstance(error, Verdict):
                raise
            self.why = error_text(error)
            return False
        except Exception as error:  # the subject's own error: it did not survive
            if self._controller.broken is not None:
                raise
            self.why = error_text(error)
            return False
        if found is not None and not found:
            self.why = "the oracle returned a false value"
            return False
        return True
