"""Define the methods of the fixture ``mlchaos`` that judge more than one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import pytest

from ..breaking.api import SearchOptions, find_breaking_point
from ..breaking.verdicts import BreakingPoint
from ..comparing.api import compare
from ..comparing.seeds import Metric
from ..comparing.verdicts import Comparison
from ..core.faults import Fault
from ..core.policy import cap_seconds, cap_trials, check_fault
from ..core.validation import (
    CALLABLE,
    COUNT,
    FLAG,
    NAME,
    WHOLE,
    check_arguments,
    format_value,
    is_real,
    optional,
    parse_positive_duration,
)
from ..errors import BadArgument
from ..monitoring.api import watch
from ..monitoring.verdicts import Watch
from ..runs.verdicts import Run
from .fixture_base import FixtureBase
from .marks import fault_of
from .part import Part
from .training_methods import MAX_RESTARTS

__all__ = ["JudgingMethods"]


class JudgingMethods(FixtureBase):
    """Judge alerts, a metric over several seeds, and how much of a fault a subject survives."""

    @check_arguments("mlchaos.compare", max_restarts=WHOLE)
    def compare(
        self,
        subject: Callable[..., Any],
        *args: Any,
        seeds: Iterable[int] = range(8),
        metric: Metric = None,
        max_restarts: int = MAX_RESTARTS,
        isolation: str | None = None,
        jobs: int | Literal["auto"] = "auto",
    ) -> Comparison:
        """Run ``subject(seed, *args)`` for several seeds, with the test's faults and without them.

        Each run starts from the same files and arguments. The global random generators are seeded
        from the seed, too, and the golden run of a seed starts from the same state. The faults
        count visits from the start of each run, so a fault ``at=7`` strikes visit 7 of each seed.
        If a fault does not strike in a seed, that is an error: such a run is not evidence.

        In a search, the first trial (without faults) compares two golden runs of each seed. In
        each further one, all seeds meet the same schedule. A seed that has too few visits for it is
        left out.

        Args:
            subject: The function to run. Its first argument is the seed.
            *args: Its further arguments.
            seeds: The seeds. An assertion stops as soon as the result is clear, so give as many
                as you can afford.
            metric: A function of the returned value, a key or an attribute of it. Without it, the
                returned value is the metric.
            max_restarts: The largest number of restarts of each run, see ``mlchaos.run``.
            isolation: See ``mlchaos.run``.
            jobs: The number of runs at one time, in processes (``isolation="process"``). The
                results are the same. A seed has two runs, under faults and without them.
                ``"auto"``: one for each processor if the first seed takes 2 seconds or more in
                processes, and if the runs share no directory.

        Returns:
            A ``Comparison``.

        Raises:
            NeverStruck: A fault did not strike in one of the seeds.
            GoldenRunFailed: The subject fails without faults.
            BadArgument: The metric is not a number, or not finite without faults.
            Exception: The subject's own error under faults. A note names the seed.

        Fidelity: random choices inside a fault (which bit, which rows) are those of the schedule,
        so they are the same for each seed. The journal holds the strikes of the first seed. In this
        process, a module's globals outlive each run, and the golden run of a seed comes second: use
        ``isolation="process"`` if that matters.
        """
        settings = self._settings()
        if isolation not in (None, "in-process", "process"):
            raise BadArgument(
                f"mlchaos.compare: isolation must be 'in-process' or 'process', got "
                f"{format_value(isolation)}"
            )
        name = "mlchaos.compare"
        in_processes = isolation is None and jobs not in (1, "auto")
        isolated = in_processes or (isolation or settings.isolation) == "process"
        check_fault(*self._controller.schedule.faults if isolated else (), isolated=True)
        with self._running(name, subject) as part:
            return part.hand_over(
                compare(
                    self._controller,
                    subject,
                    args,
                    self._scratch,
                    self._workdirs(),
                    seeds=seeds,
                    metric=metric,
                    max_restarts=max_restarts,
                    isolated=isolated,
                    jobs=jobs,
                    allow_quiet=settings.allow_quiet,
                    running=lambda: self._controller.subject_of(name),
                )
            )

    @check_arguments(
        "mlchaos.breaking_point",
        oracle=CALLABLE,
        max_trials=COUNT,
        staged=FLAG,
        repeat=optional(FLAG),
        name=optional(NAME),
    )
    def breaking_point(
        self,
        subject: Callable[..., Any],
        fault: pytest.MarkDecorator,
        oracle: Callable[[Run], object],
        *args: Any,
        confidence: float = 0.95,
        max_trials: int = 60,
        repeat: bool | None = None,
        staged: bool = False,
        budget: float | str | None = None,
        name: str | None = None,
    ) -> BreakingPoint:
        """Find out how much of a fault ``subject(*args)`` survives.

        Each trial runs the subject from the same start, as ``mlchaos.run`` does, and asks the
        oracle. The test itself declares no fault.

        Args:
            subject: The function or script to run.
            fault: A fault with one parameter as a range from weak to strong, for example
                ``chaos.corrupt_batch(fraction=chaos.scale(0, 1))``, or
                ``severity=chaos.scale(1, 5)``. Without ``at`` and ``p``, it strikes at every visit.
            oracle: A function of the ``Run``. If it raises a verdict, or returns False, the subject
                has not survived: ``lambda run: run.assert_converged(below=0.3)``. An error of the
                subject, and too many restarts, count as well.
            *args: The arguments of the subject.
            confidence: The confidence of the interval.
            max_trials: The largest number of trials.
            repeat: False if one trial decides a level, for subjects that are deterministic.
                Without it, a fault without random numbers is tried once for each level, and both
                sides of the result once more.
            staged: If true, try the levels in order and stop at the first one that breaks it.
            budget: The time limit: seconds, or ``"5m"``. Then the interval is as known so far.
            name: The name in messages and in the baseline. Without it, that of the subject.

        Returns:
            A ``BreakingPoint``.

        Raises:
            GoldenRunFailed: The subject does not pass the oracle without any fault.
            NeverStruck: At some level, the fault never struck.
            Inconclusive: It survives strong levels and not weaker ones.
            BadArgument: An argument is wrong.

        Fidelity: the interval holds if stronger levels are survived less often. All trials are in
        this process.
        """
        if not isinstance(fault, pytest.MarkDecorator) or "fault" not in fault.kwargs:
            raise BadArgument(
                f"mlchaos.breaking_point: fault must be a fault with a range, such as "
                f"chaos.corrupt_batch(fraction=chaos.scale(0, 1)), got {format_value(fault)}"
            )
        if not is_real(confidence) or not 0.5 <= confidence < 1:
            raise BadArgument(
                f"mlchaos.breaking_point: confidence must be from 0.5 to below 1, got "
                f"{format_value(confidence)}"
            )
        options = SearchOptions(
            confidence=confidence,
            max_trials=cap_trials(max_trials),
            repeat=repeat,
            staged=staged,
            budget=cap_seconds(
                None
                if budget is None
                else parse_positive_duration(budget, "mlchaos.breaking_point: budget")
            ),
            name=name or "",
        )
        keywords = {key: value for key, value in fault.kwargs.items() if key != "fault"}
        with self._running("mlchaos.breaking_point", subject) as part:
            found = part.hand_over(
                find_breaking_point(
                    self._controller,
                    subject,
                    args,
                    str(fault.kwargs["fault"]),
                    keywords,
                    oracle,
                    self._scratch,
                    self._workdirs(),
                    options,
                    self._baselines(),
                )
            )
        assert found._handed is not None
        found._handed.quiet = ""  # its faults are its own
        self._controller.late_results.append(found)
        return found

    @check_arguments("mlchaos.watch", site=optional(NAME))
    def watch(
        self,
        alert: Callable[..., object] | None = None,
        *,
        log: Any = None,
        warning: Any = None,
        raises: type[BaseException] | tuple[type[BaseException], ...] | None = None,
        site: str | None = None,
        control: pytest.MarkDecorator | None = None,
    ) -> Watch:
        """Watch an alert or a guard, from now until it is judged, or as a context.

        Call it before ``mlchaos.run``, ``serve`` or ``pipeline``. It notes when faults strike and
        when the alert fires. Give exactly one of ``alert``, ``log``, ``warning`` and ``raises``.

        Args:
            alert: A function without arguments that returns true while the alert is on. It is asked
                before each visit, step and request, and at the end. Or a function of one argument,
                which gets each batch or table as your code gets it: a validator, or a drift
                monitor. An assertion that fails in it counts as the alert, and so does any error
                of a function of one argument.
            log: A regular expression. A record of ``logging`` whose message has a match is an
                alert.
            warning: A regular expression for the message of a warning, or a warning class.
            raises: An exception class, or several. The alert is an exception that leaves the
                subject. As a context (``with mlchaos.watch(raises=...)``) it catches it.
            site: The site whose payloads a function of one argument gets. Without it, those of the
                declared faults.
            control: The fault of the positive control of ``assert_quiet``, for example
                ``chaos.corrupt_batch(kind="nan", at=chaos.EVERY)``. Without it, the declared
                faults at full strength.

        Fidelity: alerts in different processes (``isolation="process"``, ranks, servers) are not
        seen. Times are those of the trial's clock, so the duration of the monitoring itself does
        not count on the virtual clock.
        """
        controller = self._controller
        part = Part(controller, "mlchaos.watch", each=True)
        is_off = not controller.scheduled and not controller.idle and not self._may_crash()
        found = watch(
            controller,
            alert,
            log=log,
            warning=warning,
            raises=raises,
            site=site,
            control=_control(control),
            is_off=is_off,
        )
        controller.late_results.append(found)
        return part.hand_over(found)


def _control(given: object) -> Fault | None:
    """Return the fault of a positive control, which must say by itself where it strikes."""
    if given is None:
        return None
    if not isinstance(given, pytest.MarkDecorator):
        raise BadArgument(
            f"mlchaos.watch: control must be a fault such as "
            f"chaos.corrupt_batch(at=chaos.EVERY), got {format_value(given)}"
        )
    fault = fault_of(given)
    if not fault.is_pinned:
        raise BadArgument(
            f"mlchaos.watch: control must say where it strikes, as with at=chaos.EVERY, got {fault}"
        )
    return fault
