"""Derive the space of a search from the trial without faults."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..core.composites import CompositeFault
from ..core.faults import Fault
from ..core.settings import Settings
from ..engine.controller import Controller
from ..engine.counters import ScheduledFault
from ..search.space import Probe, Space, without_superseded
from .marks import DeclaredFault

__all__ = ["bounded_settings", "space_of", "suited_settings"]

SERVERS_BUDGET_SECONDS = 60.0
RUNS = ("mlchaos.run", "world.run")
SAME_STATE = ("assert_recovered", "assert_same_effective_batch")
"""Assertions that a run fails if it leaves out damaged data."""
SUBJECTS = (*RUNS, "mlchaos.pipeline")
"""The methods that run a subject in which faults strike, besides a service."""


def space_of(
    owners: Sequence[tuple[DeclaredFault, Fault]],
    controller: Controller,
    declared: Sequence[DeclaredFault],
    settings: Settings,
) -> Space:
    """Return the schedules that a search may try.

    Args:
        owners: Each variant that was probed, with its declaration or the member of a composite.
        controller: The controller of the trial without faults.
        declared: The declarations of the test.
        settings: The settings of the test.
    """
    probes = without_superseded(
        [
            Probe(scheduled.fault, one.given, _targets(scheduled, controller), scheduled.measures)
            for (one, _), scheduled in zip(owners, controller.scheduled, strict=True)
        ]
    )
    # One schedule cannot contain more strikes.
    strikes = sum(len(probe.visits) for probe in probes)
    return Space(
        probes,
        max(1, min(settings.max_faults, strikes)),
        settings.seed or 0,
        controller.restarts,
        covers=all(isinstance(one.fault, CompositeFault) for one in declared),
    )


def suited_settings(settings: Settings, declared: Sequence[DeclaredFault]) -> Settings:
    """Return the settings of a search. Composite faults set those that the test leaves open."""
    composites = [one.fault for one in declared if isinstance(one.fault, CompositeFault)]
    if not composites:
        return settings
    default, changes = Settings(), dict[str, Any]()
    if settings.max_trials == default.max_trials:
        changes["max_trials"] = max(composite.trials for composite in composites)
    if settings.max_faults == default.max_faults:
        changes["max_faults"] = len(declared)
    budgets = [composite.budget_seconds for composite in composites]
    if settings.budget is None and None not in budgets:
        changes["budget"] = max(filter(None, budgets))
    return dataclasses.replace(settings, **changes)


def bounded_settings(settings: Settings, controller: Controller) -> Settings:
    """Return the settings of a search after the trial without faults.

    A test that starts server processes takes seconds for each trial, so its search has a budget.
    """
    if controller.starts_servers and settings.budget is None:
        return dataclasses.replace(settings, budget=SERVERS_BUDGET_SECONDS)
    return settings


def _targets(scheduled: ScheduledFault, controller: Controller) -> tuple[int, ...]:
    """Return the visits of the trial without faults that a search may choose.

    A composite fault ends the process only if the test starts it again, or judges its end.
    """
    methods = {result.what for result in controller.results} - {"mlchaos.watch"}
    visits = scheduled.open_visits(in_subjects=_runs_a_subject(controller))
    if not scheduled.fault._composite:
        return visits
    if scheduled.fault.ends_process and controller.restarts is None:
        return visits if methods == {"mlchaos.pipeline"} else ()
    exact = any(
        result.what in RUNS and result.compared in SAME_STATE for result in controller.results
    )
    return () if exact and scheduled.fault.changes_result else visits


def _runs_a_subject(controller: Controller) -> bool:
    """Return True if the test lets the fixture run what it tests."""
    return controller.serves or any(result.what in SUBJECTS for result in controller.results)
