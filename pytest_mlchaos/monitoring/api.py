"""``mlchaos.watch``: does an alert see the faults, and how soon?

1. ``alerts.py`` reads what the test gave: a function, a pattern, an exception.
2. ``observer.py`` looks at it at each visit, and notes strikes and changes in a ``timeline.py``.
3. ``verdicts.py`` judges the timeline.
4. The plugin (``plugin/alert_controls.py``) runs the test without faults, because an alert must be
   quiet there. If the alert must be quiet under a fault, it also runs it with stronger faults.
"""

from __future__ import annotations

from typing import Any

from ..core.faults import Fault
from ..engine.controller import Controller
from .alerts import make_alert
from .observer import AlertObserver
from .verdicts import Watch

__all__ = ["watch"]

NOWHERE = "mlchaos.off"
"""A site that nothing passes: without the faults, it is not known what a check is for."""


def watch(
    controller: Controller,
    alert: Any,
    *,
    log: Any,
    warning: Any,
    raises: Any,
    site: str | None,
    control: Fault | None,
    is_off: bool = False,
) -> Watch:
    """Watch an alert from now on.

    Args:
        controller: The controller of the trial.
        alert: A function.
        log: A pattern of a log message.
        warning: A pattern of a warning, or its class.
        raises: An exception class, or several.
        site: The site whose payloads a function of one argument gets.
        control: The fault of the positive control.
        is_off: True if the test declares faults that are switched off.
    """
    keys = frozenset(one.fault.key for one in controller.scheduled)
    if is_off:
        keys = frozenset({NOWHERE})
    observer = AlertObserver(controller, make_alert(alert, log, warning, raises, site, keys))
    observer.begin()
    watched = Watch(observer, control)
    controller.visit_listeners.watches.append(watched)
    return watched
