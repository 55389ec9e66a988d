"""Define the result of a supervised run, and its assertions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack

from ..core.entries import Curve, Entry
from ..core.privacy import error_text, labels_text
from ..core.recording import record as record_entry
from ..core.records import Attempt, Record, tell
from ..core.results import CallsResult
from ..core.validation import (
    CALLABLE,
    FLAG,
    TOLERANCE,
    WHOLE,
    Rule,
    check_arguments,
    format_seconds,
    format_value,
    is_real,
    optional,
    parse_duration,
)
from ..errors import (
    BadArgument,
    BatchDiffers,
    Drifted,
    FalseAlarm,
    NoEmergencySave,
    NotConverged,
    NotRecovered,
    TooSlow,
    Unfair,
    Unnoticed,
)
from ..oracles.convergence import assert_converged
from ..oracles.drift import (
    DriftOptions,
    TextDriftOptions,
    assert_no_drift,
    assert_no_text_drift,
)
from ..oracles.fairness.amplification import assert_no_bias_amplification
from ..oracles.quality.loss_curves import steps_of_attempts
from ..oracles.state import first_difference
from .effective_batch import first_other_batch
from .emergency_save import emergency_save_missing
from .finite_state import newly_not_finite
from .privacy_budget import check_privacy_budget

__all__ = ["Run"]

_POSITIVE = Rule("a positive number", lambda value: is_real(value) and value > 0)
_SHARE = Rule("between 0 and 1", lambda value: is_real(value) and 0 < value < 1)


class Run(CallsResult):
    """The result of a subject that was run, and restarted when a fault ended it.

    Attributes:
        value: The value that it returned at last.
        attempts: Its attempts, with the reason why each ended.
        faults: The strikes during the run.
        preemptions: The result of each SIGTERM of ``preempt``.
        duration: The seconds on the trial's clock.
        parameters: The parameters that its last attempt trained, as they were at the end: one list
            of tensors for each optimizer.
    """

    def __init__(
        self,
        record: Record,
        golden: Callable[[], Run] | None = None,
        look_at_golden: Callable[[Callable[[Any], Any]], Any] | None = None,
    ) -> None:
        self.value = record.value
        self.attempts = record.attempts
        self.faults = record.faults
        self.duration = record.duration
        self.parameters = record.parameters
        self._kept = record.kept
        self._gradients = record.gradients
        self._not_finite = record.not_finite
        self._private = record.private
        self._accounted = record.accounted
        self.preemptions = tuple(one for one in record.preemptions if one is not None)
        self._golden = golden
        self._look_at_golden = look_at_golden or (lambda look: look(self.golden._kept))
        self._real_time = record.real_time
        self._curves = record.losses
        self._number = 0

    def _attempted(self) -> Sequence[Attempt]:
        return self.attempts

    def _entries(self, number: int, is_virtual: bool) -> Iterator[Entry]:
        self._number = number
        yield from self._curve(number, golden=False)

    def _curve(self, number: int, *, golden: bool) -> Iterator[Entry]:
        if any(self._curves):
            yield Curve(
                result=number,
                golden=golden,
                values=tuple(loss for attempt in self._curves for loss in attempt),
                attempts=tuple(map(len, self._curves)),
            )

    def _about(self) -> str:
        return (
            f"<Run of {len(self.attempts)} attempts, {self.steps} steps, {len(self.faults)} faults>"
        )

    @property
    def restarts(self) -> int:
        """Return the number of restarts."""
        return len(self.attempts) - 1

    @property
    def steps(self) -> int:
        """Return the optimizer steps of all attempts, with those that were taken again."""
        return sum(attempt.steps for attempt in self.attempts)

    @functools.cached_property
    def golden(self) -> Run:
        """Return the golden run: the same subject and start, without faults.

        It has its own copy of the directories.
        """
        if self._golden is None:
            return self
        golden = self._golden()
        for entry in golden._curve(self._number, golden=True):
            record_entry(entry)
        return golden

    @property
    def lost_steps(self) -> int:
        """Return the number of steps that were taken again after a restart."""
        return max(0, self.steps - self.golden.steps) if self.restarts else 0

    @check_arguments("assert_recovered", rtol=TOLERANCE, atol=TOLERANCE)
    def assert_recovered(self, *, rtol: float = 0.0, atol: float = 0.0) -> None:
        """Raise ``NotRecovered`` unless the run ended in the state of the golden run.

        The returned values and the trained parameters are compared, as by ``assert_same_state``. No
        parameter, buffer or optimizer state may hold NaN or infinity unless the golden run's does.

        Args:
            rtol: Values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.

        Raises:
            NotRecovered: The states differ.
            BadArgument: The subject returns nothing and takes no torch optimizer step, so there is
                nothing to compare.
        """
        self._compare_under_faults("assert_recovered")
        difference = self._first_difference("assert_recovered", rtol, atol)
        if difference is None:
            difference = self._broken()
        if difference is not None:
            raise NotRecovered(
                f"the run did not end in the state of its golden run\n  "
                f"{difference}\n{self.story()}"
            )

    def _first_difference(self, judgement: str, rtol: float, atol: float) -> str | None:
        """Return the first difference from the golden run in words, or None."""
        golden = self.golden
        if self.steps and not golden.steps:
            raise BadArgument(
                "the golden run took no step, because it found the files of this run. Let the "
                "subject work below tmp_path"
            )
        both_trained = bool(self.parameters) and bool(golden.parameters)
        if self.value is None and golden.value is None and not both_trained:
            raise BadArgument(
                f"{judgement} has nothing to judge: the subject returned None and its last "
                "attempt took no torch optimizer step. "
                "Return the final state (model.state_dict(), the step, the metrics) from it, or "
                "let mlchaos.explore_crashes compare the "
                "files of the run"
            )
        difference = first_difference(
            self._kept,
            golden._kept,
            rtol=rtol,
            atol=atol,
            name="returned value",
            through_files=True,
        )
        if difference is None and both_trained:
            difference = first_difference(
                self.parameters, golden.parameters, rtol=rtol, atol=atol, name="trained parameters"
            )
        return difference

    @check_arguments("assert_noticed", alarm=CALLABLE, rtol=TOLERANCE, atol=TOLERANCE)
    def assert_noticed(
        self, alarm: Callable[[Any], object], *, rtol: float = 0.0, atol: float = 0.0
    ) -> None:
        """Raise ``Unnoticed`` if the faults changed the result and no alarm says so.

        The result is compared with the golden run's. If it is the same, no alarm is needed. A
        pipeline that raised has noticed the fault. ``alarm`` is also called for a golden run, as a
        control: an alarm that is always on notices nothing.

        Args:
            alarm: A function of the returned value, which returns true if an alarm, a flag or a
                quarantine is there: ``lambda value: value["alarm"]``. It may read the files of the
                run.
            rtol: Numbers that differ by at most ``atol + rtol * abs(expected)`` are the same.
            atol: See ``rtol``.

        Raises:
            Unnoticed: The result differs, and no alarm was raised.
            FalseAlarm: The alarm is on in the golden run, too.
            BadArgument: The alarm cannot be read from the golden run's value.

        Fidelity: one alarm stands for all strikes of a call. A search over single strikes asks for
        each of them.
        """
        self._compare_under_faults("assert_noticed")
        if self._has_raised():
            return
        if self._look_at_golden(_read_control(alarm)):
            raise FalseAlarm(
                "the alarm is on in the golden run, in which no fault strikes. An alarm that is "
                "always on notices nothing"
            )
        difference = self._first_difference("assert_noticed", rtol, atol)
        if difference is None:
            return
        try:
            if alarm(self.value):
                return
            why = "no alarm was raised"
        except Exception as error:  # noqa: BLE001  # the user's function may raise anything
            why = f"the alarm cannot be read from the value: {error_text(error)}"
        self._check_noise(rtol, atol)
        raise Unnoticed(
            f"the result differs from that of the golden run, and {why}\n  {difference}"
        )

    def _has_raised(self) -> bool:
        """Return True if the subject raised. An error is noticed by every caller."""
        return False

    def _check_noise(self, rtol: float, atol: float) -> None:
        """Raise ``NonDeterministicSubject`` if runs without faults differ, where that is known."""

    def assert_bounded_time(self, limit: float | str) -> None:
        """Raise ``TooSlow`` if the run took longer than a limit, on the trial's clock.

        An error in time passes: use a different assertion for the result.

        Args:
            limit: The largest duration: seconds, or ``"2m"``.

        Raises:
            TooSlow: It took longer. The message says if time became real.
            BadArgument: The golden run takes longer, too.

        Fidelity: on the virtual clock, only waiting takes time. To judge computing, use
        ``@chaos.settings(clock="real")``.
        """
        seconds = parse_duration(limit, "assert_bounded_time: limit")
        self._compare_under_faults("assert_bounded_time")
        if self.duration <= seconds:
            return
        usual = self.golden.duration
        if usual > seconds:
            raise BadArgument(
                f"assert_bounded_time: limit must be at least the duration of the golden run, "
                f"which took {format_seconds(usual)}, got {format_seconds(seconds)}"
            )
        real = f"\n  part of this is real time: {self._real_time}" if self._real_time else ""
        raise TooSlow(
            f"the run took {format_seconds(self.duration)}, more than {format_seconds(seconds)}. "
            f"The golden run took {format_seconds(usual)}{real}"
        )

    @check_arguments("assert_same_effective_batch", rtol=TOLERANCE, gradients=FLAG)
    def assert_same_effective_batch(self, *, rtol: float = 1e-2, gradients: bool = True) -> None:
        """Raise ``BatchDiffers`` unless each step received the same gradient as in the golden run.

        Retries after an out-of-memory error often get this wrong: samples count twice or not at
        all, the scale differs, or gradients of a failed attempt are left. The norms of all
        gradients are compared, step by step. A batch that was split into micro-batches gives the
        same up to rounding. A norm has no sign, so a gradient of the right length and a different
        direction shows at the next step. The first attempt is compared with the beginning of the
        golden run, and the last with its end. Attempts in between are not judged.

        Args:
            rtol: The tolerance for rounding. Half precision rounds to 0.4 %.
            gradients: False compares only the numbers of samples, for models whose batch cannot be
                split (dropout, batch norm). A wrong scale is not seen then.

        Raises:
            BatchDiffers: A step received a different gradient.
            BadArgument: The subject takes no torch optimizer step.
        """
        self._compare_under_faults("assert_same_effective_batch")
        golden = self.golden._gradients
        if not golden or not golden[0]:
            raise BadArgument(
                "assert_same_effective_batch has nothing to judge: the golden run took no torch "
                "optimizer step"
            )
        difference = first_other_batch(self._gradients, golden[0], rtol=rtol, gradients=gradients)
        if difference is not None:
            raise BatchDiffers(
                f"the effective batch is not that of the golden run\n  {difference}\n{self.story()}"
            )

    def assert_emergency_save(self) -> None:
        """Raise ``NoEmergencySave`` unless a useful save followed each ``preempt``.

        Three things must hold. Files below the work directories changed between SIGTERM and the end
        of the process. SIGKILL cut no save: no file was open for writing, or still waited to be
        moved to its place. The restart resumed from the save: it took no step again except those
        taken after it.

        A process that had nothing to lose (it takes no step again) need not save. If a different
        fault has restarted the run, too, the steps cannot be attributed, and only the files are
        judged. A run that no ``preempt`` struck passes: the trial without faults is one, and a
        fault that never strikes fails its test anyway.
        """
        self._compare_under_faults("assert_emergency_save")
        alone = len(self.preemptions) == self.restarts
        fault = emergency_save_missing(
            self.preemptions, (lambda: self.lost_steps) if alone and self.steps else None
        )
        if fault is not None:
            raise NoEmergencySave(f"{fault}\n{self.story()}")

    @check_arguments("assert_converged", recovers_within=optional(WHOLE))
    def assert_converged(
        self,
        *,
        below: float | None = None,
        by: int | None = None,
        window: int = 1,
        key: str | None = None,
        settled: float | None = None,
        max_rise: float | None = None,
        recovers_within: int | None = None,
    ) -> None:
        """Call ``assert_converged`` with the losses that the subject returned.

        The parameters and buffers of every torch model that made a forward pass, and the state of
        the optimizers, must also be finite at the end if the golden run's are.

        Args:
            below: The bound of the loss.
            by: The step by which it must be reached. Without it, the end.
            window: The number of steps whose mean is taken.
            key: The entry of the returned value that holds the losses. Without it, ``"losses"`` or
                ``"loss"``, or the value itself.
            settled: See ``assert_converged``.
            max_rise: See ``assert_converged``.
            recovers_within: The largest number of steps that it may take until the loss is back in
                the golden band, see ``steps_to_recover``.
        """
        if recovers_within is None or (below, settled, max_rise) != (None, None, None):
            losses = self._losses(key)
            assert_converged(
                losses, below=below, by=by, window=window, settled=settled, max_rise=max_rise
            )
        if (broken := self._broken()) is not None:
            raise NotConverged(
                f"the loss is finite, but the state is not\n  {broken}\n{self.story()}"
            )
        if recovers_within is None:
            return
        self._compare_under_faults("assert_converged")
        steps = self.steps_to_recover(key=key)
        if steps is None or steps > recovers_within:
            took = (
                "is not back in the golden band at the end"
                if steps is None
                else f"took {steps} steps to be back in the golden band"
            )
            raise NotConverged(
                f"the loss {took}, expected at most {recovers_within} steps\n{self.story()}"
            )

    def steps_to_recover(self, *, window: int = 5, key: str | None = None) -> int | None:
        """Return the steps that it took until the loss was back in the golden band.

        They are the steps that were taken again after a restart, and those from where the loss
        leaves the band until it stays inside. 0 if it never left it, and None if it is outside at
        the end. The band is the running median of the golden run's losses plus five standard
        deviations of its own noise, and at least 1 %.

        The losses are those of the backward passes, if each is a single number, or the returned
        ones. The last attempt is compared with the end of the golden run.

        Args:
            window: The number of steps over which medians are taken.
            key: The entry of the returned value that holds the losses.

        Raises:
            BadArgument: The losses are missing, or fewer than ``window``.
        """
        golden = self.golden
        if key is None and any(self._curves) and any(golden._curves):
            attempts, expected = list(self._curves), list(golden._curves[-1])
        else:
            attempts, expected = [list(self._losses(key))], list(golden._losses(key))
        if len(expected) < window or not attempts[-1]:
            raise BadArgument(
                f"steps_to_recover: the golden run must have {window} losses or more, got "
                f"{len(expected)}"
            )
        return steps_of_attempts(attempts, expected, window=window)

    def assert_no_drift(
        self, *, key: str | int | None = None, **options: Unpack[DriftOptions]
    ) -> None:
        """Call ``assert_no_drift`` with the returned value and that of the golden run.

        Args:
            key: The entry or attribute of the returned value. Without it, the value itself
                (predictions, a table).
            **options: The options of ``pytest_mlchaos.assert_no_drift``: ``method``, ``alpha``,
                ``threshold``, ``kind``, ``embed`` and so on.
        """
        assert_no_drift(*self._both_entries(key, "assert_no_drift"), **options)

    def assert_no_text_drift(
        self, *, key: str | int | None = None, **options: Unpack[TextDriftOptions]
    ) -> None:
        """Call ``assert_no_text_drift`` with the returned texts and those of the golden run.

        Args:
            key: The entry or attribute of the returned value. Without it, the value itself.
            **options: The options of ``pytest_mlchaos.assert_no_text_drift``.
        """
        assert_no_text_drift(*self._both_entries(key, "assert_no_text_drift"), **options)

    def _both_entries(self, key: str | int | None, oracle: str) -> tuple[Any, Any]:
        reference = self.golden._entry(key, "the golden run", oracle)
        try:
            return reference, self._entry(key, "the run", oracle)
        except BadArgument as error:
            raise Drifted(str(error)) from None

    @check_arguments("assert_no_bias_amplification", at_most=TOLERANCE)
    def assert_no_bias_amplification(
        self,
        *,
        groups: Any,
        at_most: float,
        y_true: Any = None,
        key: str | int | None = None,
        loss: Callable[[Any, Any], Any] | None = None,
        confidence: float = 0.95,
    ) -> None:
        """Call ``assert_no_bias_amplification`` with the returned predictions and the golden ones.

        It passes only if the faults are shown to harm no group much more than another. A subject
        that raised an error gave wrong predictions to no group, and passes.

        Args:
            groups: The group of each sample, or the name of the entry of the golden run's value
                that holds it. A table or a dict of columns gives intersections.
            at_most: The largest difference between the harms of two groups that would not matter:
                a share of the samples, or a difference in ``loss``.
            y_true: The true labels, or the name of an entry. Without them, a prediction that
                differs from that of the golden run counts as wrong.
            key: The entry or attribute of the returned value that holds the predictions, one for
                each sample. Without it, the value itself.
            loss: See ``assert_no_bias_amplification``.
            confidence: See ``assert_no_bias_amplification``.

        Raises:
            Unfair: The faults harm one group more than another by more than ``at_most``, or no
                predictions were returned.
            Inconclusive: The samples show neither.
        """
        name = "assert_no_bias_amplification"
        self._compare_under_faults(name)
        if self._has_raised():
            return
        groups, y_true = (
            self.golden._entry(given, "the golden run", name) if isinstance(given, str) else given
            for given in (groups, y_true)
        )
        golden = self.golden._entry(key, "the golden run", name)
        try:
            reached = self._entry(key, "the run", name)
        except BadArgument as error:
            raise Unfair(str(error)) from None
        assert_no_bias_amplification(
            golden,
            reached,
            groups,
            at_most=at_most,
            y_true=y_true,
            loss=loss,
            confidence=confidence,
        )

    def _entry(self, key: str | int | None, whose: str, judgement: str) -> Any:
        value = self._kept
        if key is not None:
            try:
                value = (
                    getattr(value, key)
                    if isinstance(key, str) and hasattr(value, key)
                    else value[key]
                )
            except (LookupError, TypeError):
                has = f" with the keys {labels_text(value)}" if isinstance(value, Mapping) else ""
                raise BadArgument(
                    f"{judgement}: {whose} returned no entry {key!r} but "
                    f"{type(value).__name__}{has}"
                ) from None
        if value is None:
            raise BadArgument(
                f"{judgement}: {whose} returned None. Return the predictions from the subject"
            )
        return value

    def _broken(self) -> str | None:
        """Describe values that are not finite at the end, although they are in the golden run."""
        return (
            newly_not_finite(self._not_finite, self.golden._not_finite)
            if self._not_finite
            else None
        )

    def _losses(self, key: str | None) -> Any:
        value = self.value
        if isinstance(value, Mapping):
            names = [key] if key is not None else ["losses", "loss"]
            value = next((value[name] for name in names if name in value), None)
        elif key is not None:
            value = getattr(value, key, None)
        if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise BadArgument(
                f"assert_converged: the subject must return its losses, one per step, or a dict "
                f"that holds them under "
                f"{key or 'losses'!r}, got {type(self.value).__name__}"
                + (
                    f" with the keys {labels_text(self.value)}"
                    if isinstance(self.value, Mapping)
                    else ""
                )
            )
        return value

    @check_arguments("assert_privacy_budget", epsilon=_POSITIVE, delta=_SHARE)
    def assert_privacy_budget(
        self,
        *,
        epsilon: float,
        delta: float,
        reported: Callable[[Any], Any] | str | None = None,
        lost_steps: str = "discarded",
    ) -> None:
        """Raise a verdict unless the run accounts for the privacy that it spent, and keeps a budget.

        Each optimizer step that adds noise is counted, in all attempts. The epsilon of these steps
        is computed by the run's own class of accountant, and compared with what the run reports and
        with the budget. The golden run is judged first.

        A private optimizer is found by its ``noise_multiplier``, or by that of the object whose
        method calls it. An accountant is an object with ``get_epsilon(delta)`` and a list
        ``history`` of (noise multiplier, sample rate, number of steps). Opacus has both.

        Args:
            epsilon: The budget.
            delta: The probability that goes with it, from 0 to 1.
            reported: The epsilon that the run reports: a function of the returned value, or its
                key. Without it, the run's accountant is asked at the end.
            lost_steps: ``"discarded"``: a step whose result a crash lost does not count, because
                it has left no trace. ``"counted"``: every step of every attempt counts, for jobs that
                publish losses or checkpoints while they train.

        Raises:
            NotAccounted: The run reports less than it spent, or took steps without noise.
            BudgetExceeded: It spent more than ``epsilon``.
            Inconclusive: No accountant was found, or an attempt begins with parameters that no
                earlier step has left.
            BadArgument: No step adds noise, or the test function does not name this assertion, so
                that nothing was recorded.

        Fidelity: the noise itself, the clipping and the sampling are not measured. A restart that
        draws the same noise again is not seen.

        Source: Abadi et al. (2016), "Deep learning with differential privacy".
        """
        if lost_steps not in ("discarded", "counted"):
            raise BadArgument(
                f"assert_privacy_budget: lost_steps must be 'discarded' or 'counted', got "
                f"{format_value(lost_steps)}"
            )
        self._compare_under_faults("assert_privacy_budget")
        golden = self.golden
        if self.steps and not any(self._private):
            raise BadArgument(
                "assert_privacy_budget: the steps were not recorded. Call it in the test function, "
                "or in a function of the same module that the test calls by its name"
            )
        check_privacy_budget(
            self._private,
            self._accounted,
            golden._private[0] if golden._private else (),
            golden._accounted,
            epsilon=epsilon,
            delta=delta,
            reported=None if reported is None else self._reported_epsilon(reported),
            count_lost=lost_steps == "counted",
        )

    def _reported_epsilon(self, reported: Callable[[Any], Any] | str) -> float:
        try:
            value = reported(self.value) if callable(reported) else self.value[reported]
            return float(value)
        except Exception as error:
            raise BadArgument(
                f"assert_privacy_budget: reported must give a number from the returned value, but "
                f"failed with {error_text(error)}"
            ) from error

    def story(self) -> str:
        """Return the end of each attempt, one line for each."""
        return tell(self.attempts)


def _read_control(alarm: Callable[[Any], object]) -> Callable[[Any], bool]:
    """Return the alarm, with an error of its own as a ``BadArgument``."""

    def read(value: object) -> bool:
        try:
            return bool(alarm(value))
        except Exception as error:
            raise BadArgument(
                f"assert_noticed: alarm failed with {error_text(error)} on the value of the golden "
                f"run. Give a function of the returned value"
            ) from error

    return read
