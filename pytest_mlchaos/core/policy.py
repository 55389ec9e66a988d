"""Define the policy of a repository: the faults that its tests may inject, within which limits.

A policy is a list of rules. Each rule that applies to a test can refuse one of its faults, or the
test. No rule permits what a different one refuses, so a policy can only be narrowed.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import PolicyRefused
from .composites import CompositeFault
from .faults import FAULTS, Fault, OneOf, fields_of, is_drawn
from .sites import Visit

__all__ = [
    "LOCAL_PROTOCOLS",
    "Case",
    "Guard",
    "Policy",
    "Radius",
    "Refusal",
    "Rule",
    "cap_seconds",
    "cap_severity",
    "cap_trials",
    "check_fault",
    "check_host",
    "check_process",
    "check_strike",
    "ends_real_process",
    "is_below",
    "matching",
    "names_of",
    "needs_approval",
    "of_composite",
    "refusal_of_fixture",
    "refusal_of_host",
    "refusal_outside",
    "refusals_by_name",
    "refusals_of_fault",
    "refusals_of_test",
    "severity_of",
    "watched_by",
]

YOURS = "yours"
"""The family of the faults that users register."""
STRONGEST = 5
REMOVE = "Remove the fault from the test"
LOCAL_PROTOCOLS = ("file", "local", "memory")
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1|0\.0\.0\.0|")
_WILDCARD = re.compile(r"[*?\[]")


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """One reason why a policy refuses a fault or a test.

    Attributes:
        rule: The file, the table, the key and the value that refuse it.
        subject: The fault, or ``"the test"``.
        reason: The reason, as the rest of a sentence about the subject.
        cure: What to do.
    """

    rule: str
    subject: str
    reason: str
    cure: str

    def text(self, test: str) -> str:
        """Return the refusal in one line."""
        return f"{test}: {self.subject} {self.reason} (policy: {self.rule}). {self.cure}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Radius:
    """The things that faults may touch. None is without a limit.

    Attributes:
        directories: The directories, besides the test's own, as absolute paths.
        hosts: Patterns of hosts and buckets, besides loopback.
        processes: False if faults must not end, stop or slow real processes.
    """

    directories: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    processes: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A part of a policy, for the tests that meet its conditions.

    Attributes:
        source: The file and the table, for messages.
        folder: The folder of the file. Patterns of paths are relative to it.
        given: The values as the file has them, by key.
        marker: Patterns of markers. The rule applies to tests with one of them.
        path: Patterns of test files.
        environment: Patterns of variables, ``NAME=pattern``.
        allow: Patterns of the only faults that are allowed, or None.
        forbid: Patterns of faults.
        max_severity: The strongest severity.
        max_trials: The largest number of trials of one test.
        max_time: The seconds of a test's search or exploration.
        session_trials: The largest number of trials of a session.
        session_time: The seconds after which no further chaos test of the session begins.
        require_owner: True if each test needs an owner.
        owners: Patterns of owners. Then each test needs one of them.
        approval: Patterns of the faults that need an approval. ``"*"`` also stands for tests
            whose faults are not known before they run.
        radius: The things that faults may touch.
        synthetic: By marker: patterns of the only fixtures that such a test may use.
    """

    source: str
    folder: Path
    given: Mapping[str, Any]
    marker: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None
    forbid: tuple[str, ...] = ()
    max_severity: int | None = None
    max_trials: int | None = None
    max_time: float | None = None
    session_trials: int | None = None
    session_time: float | None = None
    require_owner: bool = False
    owners: tuple[str, ...] = ()
    approval: tuple[str, ...] = ()
    radius: Radius = Radius()
    synthetic: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def where(self, key: str, value: object = None) -> str:
        """Return the place of a key, with its value or with one item of it."""
        shown = self.given.get(key) if value is None else value
        return f"{self.source} {key} = {_toml(shown)}"

    def applies_to(self, case: Case) -> bool:
        """Return True if a test meets all conditions of the rule."""
        return (
            (not self.marker or any(matching(self.marker, [one]) for one in case.markers))
            and (not self.path or self._has(case.path))
            and (not self.environment or any(case.is_set(one) for one in self.environment))
        )

    def _has(self, path: Path) -> bool:
        try:
            relative = path.relative_to(self.folder).as_posix()
        except ValueError:
            return False
        return any(
            fnmatch.fnmatchcase(relative, pattern) or f"{relative}/".startswith(f"{pattern}/")
            for pattern in (one.rstrip("/") for one in self.path)
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The policies of one or more files.

    Attributes:
        rules: All rules.
        approvals: The files of the approvals.
        abort: The places of the callables that may end the session, each with its file.
        min_free_memory: The bytes of memory below which the session ends.
        min_free_disk: The bytes of disk space below which the session ends.
        files: The files.
        digest: The SHA-256 digest of the policies, in hex.
    """

    rules: tuple[Rule, ...] = ()
    approvals: tuple[Path, ...] = ()
    abort: tuple[tuple[str, str], ...] = ()
    min_free_memory: int | None = None
    min_free_disk: int | None = None
    files: tuple[Path, ...] = ()
    digest: str = ""

    def rules_for(self, case: Case) -> list[Rule]:
        """Return the rules that apply to a test."""
        return [rule for rule in self.rules if rule.applies_to(case)]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The facts about a test that rules ask for.

    Attributes:
        test: The node id.
        path: The file.
        markers: The names of its markers.
        environment: The environment variables.
        owner: The owner that it names, or "".
        fixtures: The names of its fixtures that may bring data.
        isolated: True if ``mlchaos.run`` starts fresh processes by default.
    """

    test: str
    path: Path
    markers: frozenset[str] = frozenset()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    owner: str = ""
    fixtures: tuple[str, ...] = ()
    isolated: bool = False

    def is_set(self, condition: str) -> bool:
        """Return True if an environment variable matches ``NAME=pattern``, in any case."""
        name, _, pattern = condition.partition("=")
        value = self.environment.get(name.strip())
        return value is not None and fnmatch.fnmatchcase(value.lower(), pattern.strip().lower())


# -- names and severities --------------------------------------------------------------------------


def family_of(cls: type[Fault]) -> str:
    """Return the family of a fault: its layer in the catalogue, in lower case."""
    layer: str = getattr(sys.modules.get(cls.__module__), "LAYER", YOURS)
    return layer.lower()


def names_of(cls: type[Fault]) -> frozenset[str]:
    """Return what patterns can call a fault: its name, its family, and composites that try it."""
    composites = {
        one.name
        for one in FAULTS.values()
        if issubclass(one, CompositeFault)
        and not {one.name, *one.includes}.isdisjoint(cls.member_of)
    }
    return frozenset({cls.name, family_of(cls), *composites})


def matching(patterns: Iterable[str], names: Iterable[str]) -> str:
    """Return the first pattern that matches one of the names, or ""."""
    known = [name.lower() for name in names]
    for pattern in patterns:
        if any(fnmatch.fnmatchcase(name, pattern.lower()) for name in known):
            return pattern
    return ""


def severity_of(fault: Fault) -> tuple[int, str] | None:
    """Return the severity of a fault from 1 to 5, and the parameter that gives it.

    A parameter with a severity counts as the weakest severity that is at least as strong. Beyond
    the strongest, it is 6. What a strategy draws counts as 6. None is a fault without severities.
    """
    scales: Mapping[str, tuple[Any, ...]] = getattr(fault, "scales", {})
    if not scales or "severity" not in fields_of(type(fault)):
        return None
    given = getattr(fault, "severity", None)
    if given is not None:
        return max(_severities("severity", given, (1, 2, 3, 4, 5)), default=None)
    found = [
        one
        for name, values in scales.items()
        for one in _severities(name, getattr(fault, name, None), values)
    ]
    return max(found, default=None)


def _severities(name: str, value: Any, levels: tuple[Any, ...]) -> Iterator[tuple[int, str]]:
    if isinstance(value, OneOf):
        for one in value.values:
            yield from _severities(name, one, levels)
    elif is_drawn(value):
        yield STRONGEST + 1, f"{name} from a strategy"
    elif isinstance(value, (int, float)) and isinstance(levels[0], (int, float)):
        rises = levels[0] <= levels[-1]
        weaker = sum(one < value if rises else one > value for one in levels)
        yield weaker + 1, f"{name}={value!r}"
    elif value in levels:
        yield levels.index(value) + 1, f"{name}={value!r}"


def ends_real_process(fault: Fault, *, isolated: bool) -> bool:
    """Return True if a fault ends, stops or slows a real process."""
    return fault.strikes_processes or (fault.ends_process and isolated)


# -- decisions -------------------------------------------------------------------------------------


def refusals_of_fault(rule: Rule, case: Case, fault: Fault, via: str = "") -> Iterator[Refusal]:
    """Yield the reasons why a rule refuses a fault.

    Args:
        rule: The rule, which applies to the test.
        case: The test.
        fault: The fault.
        via: The composite fault that tries it, or how else it gets into the test.
    """
    shown = f"{fault!r}{f' of {via}' if via else ''}"
    yield from _by_name(rule, type(fault), shown, REMOVE)
    if rule.max_severity is not None and (found := severity_of(fault)) is not None:
        number, parameter = found
        if number > rule.max_severity:
            is_name = parameter.startswith("severity=")
            if number > STRONGEST:
                words = f"its {parameter} has no severity up to {STRONGEST}"
            else:
                words = parameter if is_name else f"its {parameter} is severity {number}"
            yield Refusal(
                rule.where("max_severity"),
                shown,
                f"is too strong: {words}",
                f"Give it severity={rule.max_severity} or less"
                + (", or chaos.one_of of such values" if number > STRONGEST else ""),
            )
    yield from _by_radius(rule, case, fault, shown)


def of_composite(
    composite: Fault, members: Iterable[tuple[Fault, Iterable[Refusal]]]
) -> Iterator[Refusal]:
    """Yield one refusal of a composite fault for each rule that refuses some of its members."""
    by_rule: dict[str, list[tuple[str, str]]] = {}
    for member, refusals in members:
        for refusal in refusals:
            by_rule.setdefault(refusal.rule, []).append((member.name, refusal.reason))
    excluded = {name: None for found in by_rule.values() for name, _ in found}
    before = getattr(composite, "exclude", ())
    cure = f"Write @chaos.{composite.name}(exclude={[*before, *excluded]!r})"
    for rule, found in by_rule.items():
        reasons = "; ".join(dict.fromkeys(f"{name} {reason}" for name, reason in found))
        yield Refusal(rule, f"{composite!r}", f"tries faults that are refused ({reasons})", cure)


def refusals_by_name(rule: Rule, cls: type[Fault], via: str) -> Iterator[Refusal]:
    """Yield the reasons why a rule refuses a fault of which only the name is known."""
    yield from _by_name(rule, cls, f"{cls.name} of {via}", REMOVE)


def _by_name(rule: Rule, cls: type[Fault], shown: str, remove: str) -> Iterator[Refusal]:
    names = names_of(cls)
    if pattern := matching(rule.forbid, names):
        yield Refusal(rule.where("forbid", pattern), shown, "is forbidden", f"{remove}")
    is_composite = issubclass(cls, CompositeFault)  # its members are checked instead
    if rule.allow is not None and not is_composite and not matching(rule.allow, names):
        family = family_of(cls)
        yield Refusal(
            rule.where("allow"),
            shown,
            "is not among the allowed faults",
            f"{remove}, or add {cls.name!r} or its family {family!r} to the policy",
        )


def _by_radius(rule: Rule, case: Case, fault: Fault, shown: str) -> Iterator[Refusal]:
    radius = rule.radius
    if not radius.processes and ends_real_process(fault, isolated=case.isolated):
        yield Refusal(
            rule.where("blast_radius.processes", False),
            shown,
            "acts on real processes",
            "Use a fault that strikes in the test's own process",
        )
    for name in ("path", "file"):
        value = getattr(fault, name, None)
        for one in value.values if isinstance(value, OneOf) else (value,):
            if isinstance(one, str):
                yield from _by_path(rule, one, shown)


def _by_path(rule: Rule, pattern: str, shown: str) -> Iterator[Refusal]:
    """Yield a refusal if a pattern of files surely means files outside of the blast radius."""
    protocol, colon, rest = pattern.partition("://")
    if colon and protocol not in LOCAL_PROTOCOLS:
        if (refusal := refusal_of_host(rule, rest.partition("/")[0], shown)) is not None:
            yield refusal
        return
    fixed = _WILDCARD.split(rest if colon else pattern)[0]
    if protocol != "memory" and os.path.isabs(fixed):
        folder = fixed if fixed == pattern else os.path.dirname(fixed)
        if not is_below(folder, rule.radius.directories):
            yield refusal_outside(rule, shown, pattern)


def refusal_outside(rule: Rule, shown: str, path: str) -> Refusal:
    """Return the refusal of a fault that acts outside of the allowed directories."""
    return Refusal(
        rule.where("blast_radius.directories"),
        shown,
        f"acts on {path}, outside of the allowed directories",
        "Let it strike below tmp_path, or narrow its path=",
    )


def refusal_of_host(rule: Rule, host: str, shown: str) -> Refusal | None:
    """Return the refusal of a host, or None if it is loopback or the rule allows it."""
    hosts = rule.radius.hosts
    name = host.rpartition("@")[2]
    bare = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if hosts is None or _LOOPBACK.fullmatch(bare) or matching(hosts, {bare, name}):
        return None
    return Refusal(
        rule.where("blast_radius.hosts"),
        shown,
        f"reaches {name}, which is not an allowed host",
        "Use a server on loopback, or a host that the policy names",
    )


def is_below(path: str, directories: Iterable[str] | None) -> bool:
    """Return True if a path is inside one of the directories. None allows all."""
    if directories is None:
        return True
    real = os.path.realpath(path)
    roots = [os.path.realpath(one) for one in directories]
    return any(real == root or real.startswith(root.rstrip(os.sep) + os.sep) for root in roots)


def refusals_of_test(rule: Rule, case: Case) -> Iterator[Refusal]:
    """Yield the reasons why a rule refuses a test, whatever its faults are."""
    mark = '@chaos.owner("team")'
    if (rule.require_owner or rule.owners) and not case.owner:
        key = "owners" if rule.owners else "require_owner"
        yield Refusal(rule.where(key), "the test", "has no owner", f"Add {mark} to it")
    elif rule.owners and not matching(rule.owners, [case.owner]):
        yield Refusal(
            rule.where("owners"),
            "the test",
            f"has the owner {case.owner!r}, whom the policy does not name",
            "Name one of its owners",
        )
    for marker, patterns in rule.synthetic.items():
        if marker in case.markers:
            for fixture in case.fixtures:
                if not matching(patterns, [fixture]):
                    yield refusal_of_fixture(rule, marker, fixture)


def refusal_of_fixture(rule: Rule, marker: str, fixture: str) -> Refusal:
    """Return the refusal of a fixture that is not named as synthetic."""
    return Refusal(
        rule.where(f"synthetic.{marker}", list(rule.synthetic[marker])),
        "the test",
        f"is marked {marker!r} and uses the fixture {fixture!r}, which is not named as synthetic",
        "Use a synthetic fixture, or add the name of a harmless one to the policy",
    )


def needs_approval(rule: Rule, faults: Iterable[str]) -> str:
    """Return the pattern by which a rule asks for an approval of one of these faults, or "".

    Faults are given by their names.
    """
    for name in faults:
        if pattern := matching(rule.approval, names_of(FAULTS[name])):
            return pattern
    return "*" if "*" in rule.approval else ""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value)


# -- the second check, at run time -----------------------------------------------------------------


class Guard(Protocol):
    """The policy at run time, for the test that is running."""

    test: str

    @property
    def max_trials(self) -> int | None:
        """Return the largest number of trials of the test."""
        ...

    @property
    def max_seconds(self) -> float | None:
        """Return the seconds for the test's search or exploration."""
        ...

    @property
    def max_severity(self) -> int | None:
        """Return the strongest severity."""
        ...

    def fault(self, fault: Fault, *, isolated: bool = False, via: str = "") -> Refusal | None:
        """Return the reason why a fault must not be scheduled, or None."""
        ...

    def strike(self, fault: Fault, visit: Visit | None) -> Refusal | None:
        """Return the reason why a fault must not strike here, or None."""
        ...

    def process(self, what: str) -> Refusal | None:
        """Return the reason why a server process must not start, or None."""
        ...

    def host(self, what: str, host: str) -> Refusal | None:
        """Return the reason why a host must not be reached, or None."""
        ...

    def began(self) -> None:
        """Note that faults are about to be scheduled."""
        ...


_guard: Guard | None = None


class watched_by:  # noqa: N801  # it is used as a function
    """Let a guard check each fault, strike, server process and host inside. None checks nothing."""

    def __init__(self, guard: Guard | None) -> None:
        self._guard = guard

    def __enter__(self) -> None:
        global _guard
        self._before, _guard = _guard, self._guard

    def __exit__(self, *_: object) -> None:
        global _guard
        _guard = self._before


def _refuse(ask: Callable[[Guard], Refusal | None]) -> None:
    if _guard is not None and (refusal := ask(_guard)) is not None:
        raise PolicyRefused(refusal.text(_guard.test))


def check_fault(*faults: Fault, isolated: bool = False, via: str = "") -> None:
    """Raise ``PolicyRefused`` if the policy refuses one of these faults in the running test.

    Args:
        *faults: The faults of a schedule.
        isolated: True if they are about to strike in real processes.
        via: How they get into the test, if it does not declare them.
    """
    if _guard is not None:
        if faults:
            _guard.began()
        for fault in faults:
            if (refusal := _guard.fault(fault, isolated=isolated, via=via)) is not None:
                raise PolicyRefused(refusal.text(_guard.test))


def check_strike(fault: Fault, visit: Visit | None = None) -> None:
    """Raise ``PolicyRefused`` if a fault must not strike at this visit."""
    if _guard is not None:
        _refuse(lambda guard: guard.strike(fault, visit))


def check_process(what: str) -> None:
    """Raise ``PolicyRefused`` if a test must not start a server process."""
    _refuse(lambda guard: guard.process(what))


def check_host(what: str, url: str) -> None:
    """Raise ``PolicyRefused`` if a test must not reach the host of a URL."""
    protocol, colon, rest = url.partition("://")
    if not colon or protocol not in LOCAL_PROTOCOLS:
        host = (rest if colon else protocol).partition("/")[0]
        _refuse(lambda guard: guard.host(what, host))


def cap_trials(trials: int) -> int:
    """Return a number of trials, at most that of the policy."""
    limit = None if _guard is None else _guard.max_trials
    return trials if limit is None else min(trials, limit)


def cap_seconds(seconds: float | None) -> float | None:
    """Return a time limit in seconds, at most that of the policy."""
    limit = None if _guard is None else _guard.max_seconds
    return min((one for one in (seconds, limit) if one is not None), default=None)


def cap_severity(severity: int) -> int:
    """Return a severity, at most that of the policy."""
    limit = None if _guard is None else _guard.max_severity
    return severity if limit is None else min(severity, limit)
