"""Run a subject for one seed, under the test's faults and without them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

# The real clock: virtual time does not replace the names in this package.
from time import monotonic
from typing import Any, Literal, TypeAlias

from ..core.privacy import error_text, labels_text
from ..core.sites import SITES, name_of
from ..core.validation import format_value, is_real
from ..engine import randomness
from ..engine.controller import Controller
from ..engine.repetition import repeated
from ..errors import BadArgument, NeverStruck
from ..processes.processors import processors
from ..runs.api import run_of, supervisor_of
from ..runs.inputs import Inputs
from ..runs.isolated import IsolatedSupervisor
from ..runs.supervisor import Supervisor, check_subject
from ..runs.verdicts import Run
from ..runs.workdirs import WorkDirs
from .pairs import SeedPair

__all__ = ["Metric", "SeedRuns", "reader_of"]

RUNS_OF_A_SEED = 2
"""A seed has a run under faults and a golden one."""
WORTHWHILE_SECONDS = 2.0
"""With ``jobs="auto"``, runs take place at one time only if the first seed took this long."""

Metric: TypeAlias = Callable[[Any], Any] | str | int | None


class SeedRuns:
    """Run pairs of runs, each from the same start but for its seed.

    The faults of the test count visits from the start of each run, so they strike in each of them.
    """

    def __init__(
        self,
        controller: Controller,
        subject: Callable[..., Any],
        args: tuple[Any, ...],
        scratch: Path,
        workdirs: Iterable[Path],
        *,
        read: Callable[[Any], Any],
        max_restarts: int,
        isolated: bool,
        jobs: int | Literal["auto"],
        must_strike: bool,
    ) -> None:
        check_subject(subject, "mlchaos.compare")
        self._controller = controller
        self._read = read
        self._max_restarts, self._isolated = max_restarts, isolated
        self._must_strike = must_strike
        self._ahead: dict[int, IsolatedSupervisor] = {}
        self._scratch, self._workdirs = scratch, tuple(workdirs)
        with controller.without_faults():
            self._inputs = Inputs(subject, args)
            self._disk = WorkDirs.of(subject, args, scratch, self._workdirs)
        self._counts = controller.counts()
        self._is_first = True
        self._jobs: int | Literal["auto"] = jobs
        reason = self._why_in_turn()
        if reason:
            if jobs not in (1, "auto"):
                raise BadArgument(f"mlchaos.compare: jobs must be 1, got {jobs}, because {reason}")
            self._jobs = 1

    def _why_in_turn(self) -> str:
        """Return the reason why runs cannot take place at one time, or an empty text."""
        controller = self._controller
        if not self._isolated:
            return "the runs take place in this process (isolation='in-process')"
        if self._disk.roots:
            return f"the runs share {self._disk.roots[0]}"
        if controller.subject_listeners:
            return "a fault changes files before each run"
        beside = [
            one.text
            for one in controller.scheduled
            if (found := SITES.get(name_of(one.fault.key))) is not None and found.beside
        ]
        return f"{beside[0]} strikes in the test's process" if beside else ""

    def start_ahead(self, seeds: Sequence[int]) -> None:
        """Start the runs of the first of these seeds, as many as may run at one time.

        Their order decides nothing: each starts from the same counts, and results are taken in the
        order of the seeds.
        """
        if self._jobs == "auto" or self._jobs < RUNS_OF_A_SEED:
            return
        for seed in seeds[: self._jobs // RUNS_OF_A_SEED]:
            if seed in self._ahead:
                continue
            context = (
                contextlib.nullcontext()
                if self._is_first
                else repeated(self._controller, self._counts)
            )
            with context, randomness.preserve_state():
                supervisor = self._supervisor(seed)
                assert isinstance(supervisor, IsolatedSupervisor)
                self._ahead[seed] = supervisor
                supervisor.start_ahead()

    def end_ahead(self) -> None:
        """End the runs that nothing has waited for."""
        while self._ahead:
            self._ahead.popitem()[1].end_ahead()

    def pair(self, seed: int) -> SeedPair:
        """Run one seed with and without faults, and return both metrics.

        The strikes of the first seed are those of the trial. The faults strike once more for each
        later one.

        Raises:
            NeverStruck: A fault of the test did not strike in this seed.
            Exception: The subject's own error. A note names the seed.
        """
        controller, first = self._controller, self._is_first
        self._is_first = False
        context = contextlib.nullcontext() if first else repeated(controller, self._counts)
        with context, randomness.preserve_state(), self._disk.as_at_the_start():
            try:
                start = monotonic()
                pair = self._pair(seed)
                if self._jobs == "auto":
                    is_long = monotonic() - start >= WORTHWHILE_SECONDS
                    self._jobs = processors() if is_long else 1
                return pair
            except BaseException as error:
                error.add_note(f"mlchaos: this was seed {seed} of mlchaos.compare")
                raise

    def _pair(self, seed: int) -> SeedPair:
        supervisor = self._ahead.pop(seed, None) or self._supervisor(seed)
        try:
            run = run_of(supervisor, self._max_restarts)
            return self._judged(run, seed)
        finally:
            if isinstance(supervisor, IsolatedSupervisor):
                supervisor.end_ahead()

    def _supervisor(self, seed: int) -> Supervisor | IsolatedSupervisor:
        with self._controller.without_faults():
            given = self._inputs.again()
            randomness.seed_all("seed", seed)
        return supervisor_of(
            self._controller,
            given.func,
            (seed, *given.args),
            self._scratch,
            self._workdirs,
            isolated=self._isolated,
        )

    def _judged(self, run: Run, seed: int) -> SeedPair:
        controller = self._controller
        missed = self._missed()
        if missed and self._must_strike and not controller.drawn:
            raise NeverStruck(
                f"mlchaos.compare: {' and '.join(missed)} did not strike in the run of seed {seed}, "
                f"so it is not evidence. Choose visits that each seed has, or leave out this seed"
            )
        return SeedPair(
            seed,
            self._metric(run.golden, seed, "the golden run"),
            self._metric(run, seed, "the run"),
            missed,
        )

    def _missed(self) -> tuple[str, ...]:
        """Return the faults that did not strike in the last run. None does in a probing trial."""
        if self._controller.probing:
            return ()
        self._controller.hear()
        return tuple(
            scheduled.text
            for scheduled in self._controller.scheduled
            if scheduled.struck <= self._counts.struck.get(scheduled.index, 0)
        )

    def _metric(self, run: Run, seed: int, whose: str) -> float:
        try:
            value = self._read(run.value)
        except BadArgument:
            raise
        except Exception as error:
            raise BadArgument(
                f"mlchaos.compare: metric failed on the value of {whose} of seed {seed}: "
                f"{error_text(error)}"
            ) from error
        if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
            raise BadArgument(
                f"mlchaos.compare: the metric of {whose} of seed {seed} must be a number, got "
                f"{type(value).__name__}. Give metric= a function of the returned value, or a key"
            )
        number = float(value)
        if whose == "the golden run" and not math.isfinite(number):
            raise BadArgument(
                f"mlchaos.compare: the metric of the golden run of seed {seed} is {number}. It must "
                f"be finite without faults"
            )
        return number


def reader_of(metric: Metric) -> Callable[[Any], Any]:
    """Return a function that reads the metric from a returned value."""
    if metric is None:
        return _plain
    if callable(metric):
        return metric
    if not isinstance(metric, (str, int)) or isinstance(metric, bool):
        raise BadArgument(
            f"mlchaos.compare: metric must be a function of the returned value, or a key of it, got "
            f"{format_value(metric)}"
        )

    def read(value: Any) -> Any:
        if isinstance(metric, str) and hasattr(value, metric):
            return getattr(value, metric)
        try:
            return value[metric]
        except (LookupError, TypeError):
            has = f" with the keys {labels_text(value)}" if isinstance(value, Mapping) else ""
            raise BadArgument(
                f"mlchaos.compare: metric={metric!r} is not an entry of the returned value, which is "
                f"{type(value).__name__}{has}"
            ) from None

    return read


def _plain(value: Any) -> Any:
    if is_real(value) or isinstance(value, float):
        return value
    raise BadArgument(
        f"mlchaos.compare: the subject must return its metric, a number, got "
        f"{type(value).__name__}. Or give metric= a function of the returned value, or a key"
    )
