"""Make visits for a process of the subject, in threads of this process that serve it.

While such a process runs, the plugin's own calls make no visits here. A proxy is different: it
serves the subject, so its connections count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..core.sites import Key
from .counters import VisitCounter

if TYPE_CHECKING:
    from .controller import Controller

__all__ = ["BesideProcess", "beside_process", "is_quiet", "visit_beside"]


class BesideProcess:
    """The counters and faults of a trial, kept while a process of its subject runs."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._counters = controller._counters
        self._scheduled = controller.scheduled

    def visit(self, key: Key, payload: object, attributes: Mapping[str, Any]) -> Any:
        """Pass a site, as ``Controller.visit`` does."""
        controller = self._controller
        with controller.lock:
            counter = self._counters.get(key)
            if counter is None:
                counter = self._counters[key] = VisitCounter()
                counter.scheduled = [one for one in self._scheduled if one.fault.key == key]
                controller._schedule(counter)
        counter.passed = passed = counter.advance()
        if passed <= counter.next_due:
            return payload
        visit = controller._strike(key, counter, passed - 1, payload, attributes, None)
        return payload if visit is None else visit.payload


@contextlib.contextmanager
def beside_process(controller: Controller) -> Iterator[None]:
    """Let ``visit_beside`` count while a process of the subject runs inside."""
    kept = controller.beside
    controller.beside = BesideProcess(controller) if controller.scheduled else None
    try:
        yield
    finally:
        controller.beside = kept


def visit_beside(
    controller: Controller, key: Key, payload: object, attributes: Mapping[str, Any]
) -> Any:
    """Pass a site for the subject, in any process. Return the payload."""
    if controller.beside is None:
        return controller.visit(key, payload, attributes)
    return controller.beside.visit(key, payload, attributes)


def is_quiet(controller: Controller) -> bool:
    """Return True if no fault can strike now, as in a golden run."""
    return not controller.scheduled and controller.beside is None
