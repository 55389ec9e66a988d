"""Run a subject for one seed, under the test's faults and without them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ..core.privacy import error_text, labels_text
from ..core.validation import format_value, is_real
from ..engine import randomness
from ..engine.controller import Controller
from ..engine.repetition import repeated
from ..errors import BadArgument, NeverStruck
from ..runs.api import supervise
from ..runs.inputs import Inputs
from ..runs.supervisor import check_subject
from ..runs.verdicts import Run
from ..runs.workdirs import WorkDirs
from .pairs import SeedPair

__all__ = ["Metric", "SeedRuns", "reader_of"]

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
        must_strike: bool,
    ) -> None:
        check_subject(subject, "mlchaos.compare")
        self._controller = controller
        self._read = read
        self._how = {"max_restarts": max_restarts, "isolated": isolated}
        self._must_strike = must_strike
        self._scratch, self._workdirs = scratch, tuple(workdirs)
        with controller.without_faults():
            self._inputs = Inputs(subject, args)
            self._disk = WorkDirs.of(subject, args, scratch, self._workdirs)
        self._counts = controller.counts()
        self._is_first = True

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
                return self._pair(seed)
            except BaseException as error:
                error.add_note(f"mlchaos: this was seed {seed} of mlchaos.compare")
                raise

    def _pair(self, seed: int) -> SeedPair:
        controller = self._controller
        with controller.without_faults():
            given = self._inputs.again()
            randomness.seed_all("seed", seed)
        run = supervise(
            controller,
            given.func,
            (seed, *given.args),
            self._scratch,
            self._workdirs,
            **self._how,  # type: ignore[arg-type]
        )
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
