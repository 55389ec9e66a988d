"""Read the faults and settings of a test from marks, ini options and the command line."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from typing import Any

import pytest

from .. import faults
from ..core.composites import CompositeFault
from ..core.faults import FAULTS, Fault, create, find
from ..core.policy import cap_seconds, cap_trials
from ..core.schedule import Schedule
from ..core.settings import Settings, parse_settings
from ..core.validation import format_value
from ..errors import BadArgument, MissingExtra
from . import USES_FIXTURE
from .pytest_internals import source_marks

__all__ = [
    "DeclaredFault",
    "declared_by",
    "declares_composite",
    "fault_of",
    "settings_of",
    "within_policy",
]


@dataclasses.dataclass(frozen=True)
class DeclaredFault:
    """A fault as the user declared it. ``given`` holds the keywords that the user wrote."""

    fault: Fault
    given: frozenset[str]

    def members(self) -> list[DeclaredFault]:
        """Return the faults that a composite fault stands for, or this one."""
        if not isinstance(self.fault, CompositeFault):
            return [self]
        return [DeclaredFault(member, given) for member, given in self.fault.members()]


def declared_by(item: pytest.Item) -> list[DeclaredFault]:
    """Return the faults that an item's marks declare. Raise ``BadArgument`` at the first wrong one."""
    faults.load()
    return [_from_mark(mark, origin) for origin, mark in enumerate(fault_marks(item))]


def declares_composite(item: pytest.Item) -> bool:
    """Return True if a mark declares a composite fault."""
    faults.load()
    known = (FAULTS.get(str(mark.kwargs.get("fault"))) for mark in fault_marks(item))
    return any(cls is not None and issubclass(cls, CompositeFault) for cls in known)


def fault_marks(item: pytest.Item) -> list[pytest.Mark]:
    """Return the marks that declare a fault, in source order."""
    return [mark for mark in source_marks(item, "mlchaos") if mark is not USES_FIXTURE.mark]


def fault_of(decorator: pytest.MarkDecorator) -> Fault:
    """Return the fault of a decorator such as ``chaos.gpu_oom(at=7)``."""
    faults.load()
    return _from_mark(decorator.mark, 0).fault


def _from_mark(mark: pytest.Mark, origin: int) -> DeclaredFault:
    keywords = dict(mark.kwargs)
    name = keywords.pop("fault", None)
    if mark.args:
        raise BadArgument(
            f"faults take keywords only, as in @chaos.gpu_oom(at=7), got "
            f"{format_value(mark.args[0])}"
        )
    if not isinstance(name, str):
        raise BadArgument(
            "pytest.mark.mlchaos needs fault=. Write a decorator such as @chaos.gpu_oom(...) "
            "instead"
        )
    needs = find(name).needs
    if needs is not None and importlib.util.find_spec(needs[0]) is None:
        raise MissingExtra(f"chaos.{name}", *needs)
    return DeclaredFault(
        dataclasses.replace(create(name, **keywords), _origin=origin), frozenset(keywords)
    )


def settings_of(config: pytest.Config, item: pytest.Item | None = None) -> Settings:
    """Return the settings: defaults, then ini options, then marks, then the command line.

    The closest mark wins over marks on the class and the module. ``budget`` of the command line is
    for the whole session, so it is left out for an item (``session_budget.py``).
    """
    table = Settings.table()
    ini = {
        name: value
        for name in table
        if (value := config.getini(f"mlchaos_{name}")) not in (None, "")
    }
    settings = parse_settings(ini, Settings(), lambda name: f"mlchaos_{name}")
    for mark in source_marks(item, "mlchaos_settings") if item is not None else ():
        if mark.args:
            raise BadArgument(
                f"chaos.settings takes keywords only, got {format_value(mark.args[0])}"
            )
        settings = parse_settings(mark.kwargs, settings, lambda name: f"chaos.settings: {name}")
    options: dict[str, Any] = {
        name: value for name in table if (value := config.getoption(f"mlchaos_{name}")) is not None
    }
    if item is not None:
        options.pop("budget", None)
    settings = parse_settings(options, settings, lambda name: f"--mlchaos-{name.replace('_', '-')}")
    return within_policy(settings)


def within_policy(settings: Settings) -> Settings:
    """Return the settings, within the limits that the policy sets for the running test."""
    states = settings.max_states
    most_states = cap_trials(sys.maxsize if states is None else states)
    return dataclasses.replace(
        settings,
        max_trials=cap_trials(settings.max_trials),
        budget=cap_seconds(settings.budget),
        max_states=most_states if most_states < sys.maxsize else None,
    )


def replayed_schedule(config: pytest.Config) -> Schedule | None:
    """Return the schedule of ``--mlchaos-replay``, or None."""
    text = config.getoption("mlchaos_replay")
    if text is None:
        return None
    faults.load()
    return Schedule.parse(text)
