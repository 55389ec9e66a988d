"""Define the methods of the fixture ``mlchaos`` that judge more than one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ..core.faults import Fault
from ..core.validation import NAME, check_arguments, format_value, optional
from ..errors import BadArgument
from ..monitoring.api import watch
from ..monitoring.verdicts import Watch
from .fixture_base import FixtureBase
from .marks import fault_of
from .part import Part

__all__ = ["JudgingMethods"]


class JudgingMethods(FixtureBase):
    """Judge alerts under faults."""

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
