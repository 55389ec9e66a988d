"""Decide about a test before it runs: its faults, however they get into it, and the policy."""

from __future__ import annotations

import dataclasses
import datetime
import dis
import functools
import inspect
import os
import shlex
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import faults
from ..core.approvals import Approval, digest_of, doubt, read_approvals
from ..core.composites import CompositeFault
from ..core.faults import FAULTS, Fault, create, fields_of
from ..core.policy import (
    Case,
    Policy,
    Refusal,
    Rule,
    needs_approval,
    of_composite,
    refusals_by_name,
    refusals_of_fault,
    refusals_of_test,
)
from ..core.settings import Settings
from ..errors import MlchaosError
from .counted_calls import codes_of, named_assertions
from .marks import declared_by, replayed_schedule, settings_of
from .pytest_internals import data_fixtures, source_marks

__all__ = ["Decision", "Injection", "decide"]

EXPLORERS = ("explore_crashes",)
"""Methods of the fixture that crash a subject, whatever the test declares."""
OWN_WORDS = "mlchaos.explore_crashes"


@dataclasses.dataclass(frozen=True, slots=True)
class Injection:
    """A fault that a test may inject.

    Attributes:
        fault: The fault. None if only its name is known before the test runs.
        name: Its name.
        via: The composite fault that tries it, or how else it gets into the test.
        origin: ``"decorator"``, ``"replay"``, ``"composite"`` or ``"body"``.
        refusals: The reasons why the policy refuses it.
    """

    fault: Fault | None
    name: str
    via: str
    origin: str
    refusals: tuple[Refusal, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision of a policy about one test.

    Attributes:
        case: The facts about the test.
        policy: The policy.
        rules: The rules that apply.
        injections: The faults that the test may inject.
        refusals: The reasons why the test does not run. Empty if it may.
        settings: The settings of the test, without the limits of the policy.
        approval: The approval, if one is needed and valid.
        digest: The digest of the test and its faults.
        problem: The error of the test's decorators, which the test itself reports.
    """

    case: Case
    policy: Policy
    rules: tuple[Rule, ...]
    injections: tuple[Injection, ...]
    refusals: tuple[Refusal, ...]
    settings: Settings
    approval: Approval | None = None
    digest: str = ""
    needs_approval: bool = False
    problem: str = ""

    def least(self, limit: Callable[[Rule], Any]) -> Any:
        """Return the lowest of a limit of the rules, or None without any."""
        return min((one for rule in self.rules if (one := limit(rule)) is not None), default=None)

    @property
    def directories(self) -> tuple[str, ...] | None:
        """Return the directories that all rules allow besides the test's own, or None for all."""
        given = [one.radius.directories for one in self.rules if one.radius.directories is not None]
        return given[0] if given else None


def decide(item: pytest.Item, policy: Policy, typed: str, today: datetime.date) -> Decision:
    """Return what a policy says about a test.

    Args:
        item: The test.
        policy: The policy of its folder.
        typed: The test's node id.
        today: The date, for approvals.
    """
    faults.load()
    settings, injections, problem = Settings(), [], ""
    try:
        settings = settings_of(item.config, item)
        injections = [*_declared(item), *_named(item)]
    except MlchaosError as error:
        problem = str(error)
    case = Case(
        test=typed,
        path=item.path,
        markers=frozenset(mark.name for mark in item.iter_markers()),
        environment=os.environ,
        owner=_owner(item),
        fixtures=data_fixtures(item),
        isolated=settings.isolation == "process",
    )
    rules = tuple(policy.rules_for(case))
    judged = [
        dataclasses.replace(one, refusals=tuple(_refusals(rules, case, one))) for one in injections
    ]
    of_test = [refusal for rule in rules for refusal in refusals_of_test(rule, case)]
    digest = _digest(item, injections)
    approval, wanted = None, False
    for rule in rules:
        if pattern := needs_approval(rule, [one.name for one in injections]):
            wanted = True
            approval, reason = _approval(policy, item.nodeid, digest, today)
            if approval is None:
                of_test.append(_unapproved(rule, pattern, reason, item.nodeid, typed))
                break
    return Decision(
        case=case,
        policy=policy,
        rules=rules,
        injections=tuple(judged),
        refusals=(*of_test, *_together(judged)),
        settings=settings,
        approval=approval,
        digest=digest,
        needs_approval=wanted,
        problem=problem,
    )


def _unapproved(rule: Rule, pattern: str, reason: str, test: str, typed: str) -> Refusal:
    return Refusal(
        rule.where("approval", True if pattern == "*" else pattern),
        "the test",
        f"needs an approval: {reason}",
        f"Approve it: python -m pytest_mlchaos approve {shlex.quote(typed)} --by NAME --until DATE",
    )


@functools.lru_cache(maxsize=8)
def _approvals(file: Path, modified: int) -> list[Approval]:
    """Return the approvals of a file. ``modified`` is the time of its last change."""
    return read_approvals(file)


def _approval(
    policy: Policy, test: str, digest: str, today: datetime.date
) -> tuple[Approval | None, str]:
    """Return the valid approval of a test. With several files, each must have one."""
    approval, reason = None, "it has none"
    for file in policy.approvals:
        modified = file.stat().st_mtime_ns if file.exists() else 0
        approval, reason = doubt(_approvals(file, modified), test, digest, today)
        if approval is None:
            break
    return approval, reason


def _refusals(rules: tuple[Rule, ...], case: Case, one: Injection) -> Iterator[Refusal]:
    for rule in rules:
        if one.fault is not None:
            yield from refusals_of_fault(rule, case, one.fault, one.via)
        else:
            yield from refusals_by_name(rule, FAULTS[one.name], one.via)


def _together(injections: list[Injection]) -> Iterator[Refusal]:
    """Yield the refusals of all faults. Those of a composite's members become one for each rule."""
    for one in injections:
        if one.origin != "composite":
            yield from one.refusals
        if isinstance(one.fault, CompositeFault):
            yield from of_composite(
                one.fault,
                [
                    (member.fault, member.refusals)
                    for member in injections
                    if member.via == one.name and member.fault is not None
                ],
            )


def _declared(item: pytest.Item) -> Iterator[Injection]:
    """Yield the faults of a replay, or those of the decorators with the members of composites."""
    schedule = replayed_schedule(item.config)
    if schedule is not None:
        for fault in schedule.faults:
            yield Injection(fault, fault.name, "--mlchaos-replay", "replay")
        return
    for one in declared_by(item):
        yield Injection(one.fault, one.fault.name, "", "decorator")
        if isinstance(one.fault, CompositeFault):
            for member in one.members():
                name = member.fault.name
                yield Injection(member.fault, name, one.fault.name, "composite")


def _named(item: pytest.Item) -> Iterator[Injection]:
    """Yield the faults that the code of a test names, for ``breaking_point`` and controls."""
    function = getattr(item, "function", None)
    for name in dict.fromkeys(_chaos_names(function)):
        if name in FAULTS:
            yield Injection(None, name, "the test's body", "body")
    if "mlchaos" in getattr(item, "fixturenames", ()) and named_assertions(function, EXPLORERS):
        yield Injection(create("crash", at=0), "crash", OWN_WORDS, "body")


def _chaos_names(function: object) -> Iterator[str]:
    """Yield each ``name`` of ``chaos.name`` in the code of a test and of functions that it names."""
    from ..decorators import chaos

    known, codes = codes_of(function)
    for code in codes:
        before: object = None
        for instruction in dis.get_instructions(code):
            if instruction.opname in ("CACHE", "PRECALL", "PUSH_NULL"):
                continue
            value = instruction.argval
            follows = before == "chaos" or (isinstance(before, str) and known.get(before) is chaos)
            if follows and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                yield str(value)
            before = value if instruction.opname.startswith("LOAD_") else None


def _owner(item: pytest.Item) -> str:
    mark = item.get_closest_marker("mlchaos_owner")
    if mark is None:
        return ""
    name = mark.args[0] if mark.args else mark.kwargs.get("name", "")
    return name.strip() if isinstance(name, str) else ""


def _digest(item: pytest.Item, injections: list[Injection]) -> str:
    """Return the digest of a test's source, its faults and its settings."""
    settings = [repr(sorted(one.kwargs.items())) for one in source_marks(item, "mlchaos_settings")]
    shown = [
        text
        for one in injections
        if one.origin != "composite"  # the composite stands for them
        for text in (repr(one.fault) if one.fault is not None else one.name, *_code(one.fault))
    ]
    return digest_of(_source(getattr(item, "function", None)), [*shown, *settings])


def _code(fault: Fault | None) -> Iterator[str]:
    """Yield the source of the functions among a fault's parameters, which print as names."""
    for name in fields_of(type(fault)) if fault is not None else ():
        value = getattr(fault, name)
        if isinstance(value, (types.FunctionType, functools.partial)):
            yield _source(getattr(value, "func", value))


def _source(function: object) -> str:
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(function)))  # type: ignore[arg-type]
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return "" if code is None else code.co_code.hex()


def file_names(policy: Policy, root: Path) -> tuple[str, ...]:
    """Return the files of a policy relative to a folder, for the journal."""
    return tuple(Path(os.path.relpath(one, root)).as_posix() for one in policy.files)
