"""Define the methods of the fixture ``mlchaos`` that judge more than one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ..comparing.api import compare
from ..comparing.seeds import Metric
from ..comparing.verdicts import Comparison
from ..core.faults import Fault
from ..core.validation import NAME, WHOLE, check_arguments, format_value, optional
from ..errors import BadArgument
from ..monitoring.api import watch
from ..monitoring.verdicts import Watch
from .fixture_base import FixtureBase
from .marks import fault_of
from .part import Part
from .training_methods import MAX_RESTARTS

__all__ = ["JudgingMethods"]


class JudgingMethods(FixtureBase):
    """Judge alerts under faults, and a metric over several seeds."""

    @check_arguments("mlchaos.compare", max_restarts=WHOLE)
    def compare(
        self,
        subject: Callable[..., Any],
        *args: Any,
        seeds: Iterable[int] = range(8),
        metric: Metric = None,
        max_restarts: int = MAX_RESTARTS,
        isolation: str | None = None,
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

        Returns:
            A ``Comparison``.

        Raises:
            NeverStruck: A fault did not strike in one of the seeds.
            GoldenRunFailed: The subject fails without faults.
            BadArgument: The metric is not a number, or not finite without faults.
            Exception: The subject's own error under faults. A note names the seed.

        Fidelity: random choices inside a fault (which bit, which rows) are those of the schedule,
        so they are the same for each seed. The journal holds the strikes of the first seed.
        """
        settings = self._settings()
        if isolation not in (None, "in-process", "process"):
            raise BadArgument(
                f"mlchaos.compare: isolation must be 'in-process' or 'process', got "
                f"{format_value(isolation)}"
            )
        name = "mlchaos.compare"
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
                    isolated=(isolation or settings.isolation) == "process",
                    allow_quiet=settings.allow_quiet,
                    running=lambda: self._controller.subject_of(name),
                )
            )

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
        part = Part(self._controller, "mlchaos.watch", each=True)
        found = watch(
            self._controller,
            alert,
            log=log,
            warning=warning,
            raises=raises,
            site=site,
            control=_control(control),
        )
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
