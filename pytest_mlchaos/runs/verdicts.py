"""A supervised run, and the judgements on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ..core.privacy import labels_text
from ..core.records import Record, tell
from ..core.results import Result
from ..core.validation import FLAG, TOLERANCE, check_arguments
from ..errors import BadArgument, BatchDiffers, Drifted, NoEmergencySave, NotConverged, NotRecovered
from ..oracles.convergence import assert_converged
from ..oracles.drift import assert_no_drift
from ..oracles.state import first_difference
from .effective_batch import first_other_batch
from .emergency_save import emergency_save_missing
from .finite_state import newly_not_finite

__all__ = ["Run"]
__tracebackhide__ = True  # a failure shows the user's code, not ours


class Run(Result):
    """What became of a subject that was run, and restarted whenever a fault ended it.

    ``value``: what it returned at last. ``attempts``: its lives, with the reason why each ended. ``faults``: what struck during the run.
    ``preemptions``: what became of each SIGTERM of ``preempt``.
    ``duration``: seconds, on the trial's clock. ``parameters``: the parameters that its last attempt trained, as they were
    at the end (one list of tensors an optimizer).
    """

    def __init__(self, record: Record, golden: Callable[[], Run] | None = None) -> None:
        self.value = record.value
        self.attempts = record.attempts
        self.faults = record.faults
        self.duration = record.duration
        self.parameters = record.parameters
        self._kept = record.kept
        self._gradients = record.gradients
        self._not_finite = record.not_finite
        self.preemptions = tuple(one for one in record.preemptions if one is not None)
        self._golden = golden

    def _about(self) -> str:
        return f"<Run of {len(self.attempts)} attempts, {self.steps} steps, {len(self.faults)} faults>"

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return len(self.attempts) - 1

    @property
    def steps(self) -> int:
        """Optimizer steps of all attempts together, those done again included."""
        return sum(attempt.steps for attempt in self.attempts)

    @functools.cached_property
    def golden(self) -> Run:
        """The same subject without faults, from the same start, in its own copy of the directories."""
        return self if self._golden is None else self._golden()

    @property
    def lost_steps(self) -> int:
        """Steps that had to be done again after a restart."""
        return max(0, self.steps - self.golden.steps) if self.restarts else 0

    @check_arguments("assert_recovered", rtol=TOLERANCE, atol=TOLERANCE)
    def assert_recovered(self, *, rtol: float = 0.0, atol: float = 0.0) -> None:
        """Raise ``NotRecovered`` unless it ended in the state of the golden run.

        Compared are the returned values and the trained parameters, as ``assert_same_state`` does; and no parameter, buffer or optimizer
        state may hold NaN or infinity that the golden run's does not hold. A subject that returns
        nothing and takes no torch optimizer step leaves nothing to judge: ``BadArgument``.
        """
        self._compare_under_faults("assert_recovered")
        golden = self.golden
        if self.steps and not golden.steps:
            raise BadArgument(
                "the golden run took no step: it found what this run had left and took it for its own; let the subject work below tmp_path"
            )
        both_trained = bool(self.parameters) and bool(golden.parameters)
        if self.value is None and golden.value is None and not both_trained:
            raise BadArgument(
                "assert_recovered has nothing to judge: the subject returned None and its last attempt took no torch optimizer step; "
                "return the final state (model.state_dict(), the step, the metrics) from it, or let mlchaos.explore_crashes compare the "
                "files that it leaves"
            )
        difference = first_difference(self._kept, golden._kept, rtol=rtol, atol=atol, name="returned value", through_files=True)
        if difference is None and both_trained:
            difference = first_difference(self.parameters, golden.parameters, rtol=rtol, atol=atol, name="trained parameters")
        if difference is None:
            difference = self._broken()
        if difference is not None:
            raise NotRecovered(f"the run did not end in the state of its golden run\n  {difference}\n{self.story()}")

    @check_arguments("assert_same_effective_batch", rtol=TOLERANCE, gradients=FLAG)
    def assert_same_effective_batch(self, *, rtol: float = 1e-2, gradients: bool = True) -> None:
        """Raise ``BatchDiffers`` unless each step was given the gradient that it has in the golden run.

        That is what retries after an out-of-memory error get wrong: samples that count twice or not at all, another scale, gradients that
        a failed attempt has left. Compared are the norms of all gradients, step by step; a batch that was split into micro-batches gives
        the same up to rounding (``rtol``; half precision rounds to 0.4 %). ``gradients=False`` judges the numbers of samples alone, for
        models in which the parts of a batch do not add up to it (dropout, batch norm): a wrong scale is not seen then. A norm has no
        sign: a gradient of the right length and another direction shows at the next step. The first attempt is held against the beginning
        of the golden run and the last against its end; attempts in between are not judged. A subject that takes no torch optimizer step:
        ``BadArgument``.
        """
        self._compare_under_faults("assert_same_effective_batch")
        golden = self.golden._gradients
        if not golden or not golden[0]:
            raise BadArgument("assert_same_effective_batch has nothing to judge: the golden run took no torch optimizer step")
        difference = first_other_batch(self._gradients, golden[0], rtol=rtol, gradients=gradients)
        if difference is not None:
            raise BatchDiffers(f"the effective batch is not that of the golden run\n  {difference}\n{self.story()}")

    def assert_emergency_save(self) -> None:
        """Raise ``NoEmergencySave`` unless each ``preempt`` was answered by a save that was of use.

        Between SIGTERM and the end of the process files below the work directories have changed, no save was cut off by SIGKILL
        (a file that was open for writing, or had not been moved to its place), and the restart went on from it: no step was done again
        but those that were taken after it. A process that had nothing to lose (no step is done again) need not save. Where another fault
        has restarted the run, too, whose steps were done again cannot be told: then the files alone are judged. A run that no ``preempt``
        struck passes (the trial without faults is one; a fault that never strikes fails its test anyway).
        """
        self._compare_under_faults("assert_emergency_save")
        alone = len(self.preemptions) == self.restarts
        fault = emergency_save_missing(self.preemptions, (lambda: self.lost_steps) if alone and self.steps else None)
        if fault is not None:
            raise NoEmergencySave(f"{fault}\n{self.story()}")

    def assert_converged(self, *, below: float, by: int | None = None, window: int = 1, key: str | None = None) -> None:
        """``assert_converged`` on the losses that the subject returned.

        They are the returned value itself, or its entry ``key`` (by default ``"losses"`` or ``"loss"``).

        Besides, the parameters and buffers of every torch model that made a forward pass, and the state of the optimizers, must be
        finite at the end where the golden run's are.
        """
        assert_converged(self._losses(key), below=below, by=by, window=window)
        if (broken := self._broken()) is not None:
            raise NotConverged(f"the loss is finite, but the state is not\n  {broken}\n{self.story()}")

    def assert_no_drift(
        self,
        *,
        key: str | int | None = None,
        method: str | Mapping[Any, str] | None = None,
        alpha: float = 0.05,
        threshold: float | None = None,
        bins: int = 10,
    ) -> None:
        """``assert_no_drift`` on what the subject returned, against what its golden run returned.

        These are the returned values themselves (predictions, a table), or their entry or attribute ``key``.
        """
        reference = self.golden._entry(key, "the golden run")
        try:
            current = self._entry(key, "the run")
        except BadArgument as error:
            raise Drifted(str(error)) from None
        assert_no_drift(reference, current, method=method, alpha=alpha, threshold=threshold, bins=bins)

    def _entry(self, key: str | int | None, whose: str) -> Any:
        value = self._kept
        if key is not None:
            try:
                value = getattr(value, key) if isinstance(key, str) and hasattr(value, key) else value[key]
            except (LookupError, TypeError):
                has = f" with the keys {labels_text(value)}" if isinstance(value, Mapping) else ""
                raise BadArgument(f"assert_no_drift: {whose} returned no entry {key!r} but {type(value).__name__}{has}") from None
        if value is None:
            raise BadArgument(f"assert_no_drift: {whose} returned None; return the predictions from the subject")
        return value

    def _broken(self) -> str | None:
        """What is not finite at the end, and is so in the golden run, in words."""
        return newly_not_finite(self._not_finite, self.golden._not_finite) if self._not_finite else None

    def _losses(self, key: str | None) -> Any:
        value = self.value
        if isinstance(value, Mapping):
            names = [key] if key is not None else ["losses", "loss"]
            value = next((value[name] for name in names if name in value), None)
        elif key is not None:
            value = getattr(value, key, None)
        if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise BadArgument(
                f"assert_converged: the subject should return its losses, one a step, or a dict that holds them under "
                f"{key or 'losses'!r}, but it returned {type(self.value).__name__}"
                + (f" with the keys {labels_text(self.value)}" if isinstance(self.value, Mapping) else "")
            )
        return value

    def story(self) -> str:
        """How each attempt ended, a line each."""
        return tell(self.attempts)
