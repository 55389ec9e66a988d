"""Hold the policy of a session: decide about its chaos tests, refuse them, and watch the others."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from time import monotonic  # by name, so that a virtual clock does not reach it
from typing import Any

import pytest

from ..core.entries import Line, parse_line
from ..core.faults import FAULTS, Fault
from ..core.policy import (
    LOCAL_PROTOCOLS,
    Policy,
    Refusal,
    Rule,
    is_below,
    matching,
    names_of,
    needs_approval,
    refusal_of_fixture,
    refusal_of_host,
    refusal_outside,
    refusals_by_name,
    refusals_of_fault,
    watched_by,
)
from ..core.policy_entries import PolicyDecision
from ..core.policy_file import combined, find_policies
from ..core.settings import Settings
from ..core.sites import Visit
from ..core.validation import did_you_mean, format_seconds
from ..errors import BadArgument, PolicyRefused
from .abort import AbortWatch, Verdicts, conditions_of
from .marks import DeclaredFault, within_policy
from .policy_decisions import Decision, decide, file_names
from .pytest_internals import is_built_in, own_directories
from .search_space import suited_settings
from .trial_runner import as_typed

__all__ = ["PolicySession", "TestGuard"]

DECISION: pytest.StashKey[Decision] = pytest.StashKey()


class PolicySession:
    """The policy of one session, as a plugin of pytest."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._known: dict[Path, Policy | None] = {}
        self.root = self.policy_of(config.rootpath)
        self.off = bool(config.getoption("mlchaos_off"))
        self.decisions: list[Decision] = []
        self.refused: list[str] = []
        self.problem = ""  # the mistake in a policy, in a worker of xdist
        self.trials = 0
        self._start = monotonic()
        for rule in self.root.rules:
            for marker in rule.synthetic:
                text = f"{marker}: a data class: such a test may use only synthetic fixtures"
                config.addinivalue_line("markers", text)
        self._abort = AbortWatch(config, conditions_of(config, self.root))
        config.pluginmanager.register(self._abort, "mlchaos-abort")
        config.pluginmanager.register(Verdicts(self._abort), "mlchaos-abort-verdicts")

    def policy_of(self, folder: Path) -> Policy:
        """Return the policy that holds in a folder: those of this folder, of the root directory
        and of the current one, and of all folders above them.
        """
        return combined(find_policies([folder, self._config.rootpath, Path.cwd()], self._known))

    def decide(self, items: Iterable[pytest.Item]) -> None:
        """Decide about the chaos tests."""
        today = datetime.date.today()  # an approval ends at midnight, local time
        for item in items:
            policy = self.policy_of(item.path.parent)
            item.stash[DECISION] = decision = decide(item, policy, as_typed(item), today)
            self.decisions.append(decision)
        policies = (one for one in self._known.values() if one is not None)
        check_patterns(rule for policy in policies for rule in policy.rules)

    # -- what the guard of a test asks -------------------------------------------------------------

    def over_budget(self, decision: Decision) -> Refusal | None:
        """Return the reason why no further chaos test may begin in this session, or None."""
        seconds = monotonic() - self._start
        for rule in decision.rules:
            if rule.session_time is not None and seconds >= rule.session_time:
                said = f"{format_seconds(seconds)} have passed"
                return _used_up(rule, "session_time", said)
            limit = self.session_trials(rule)
            if limit is not None and self.trials >= limit:
                return _used_up(rule, "session_trials", f"{self.trials} trials were run")
        return None

    def session_trials(self, rule: Rule) -> int | None:
        """Return the trials that this process may run. The workers of xdist share them."""
        if rule.session_trials is None:
            return None
        workers = int(getattr(self._config, "workerinput", {}).get("workercount", 1))
        return max(1, rule.session_trials // workers)

    def seconds_left(self, rule: Rule) -> float | None:
        """Return the seconds that are left for the session, at least one millisecond."""
        if rule.session_time is None:
            return None
        return max(0.001, rule.session_time - (monotonic() - self._start))

    # -- pytest's hooks ----------------------------------------------------------------------------

    def pytest_report_header(self) -> str | None:
        """Name the policy."""
        if not self.root.files:
            return None
        files = ", ".join(file_names(self.root, self._config.rootpath))
        return f"mlchaos policy: {files} (sha256 {self.root.digest[:12]})"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, Any, Any]:
        """Watch the conditions that end the session while tests run."""
        with self._abort:
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Let the guard watch over a test and its fixtures."""
        self._abort.check(item)
        decision = item.stash.get(DECISION, None)
        guard = None
        if decision is not None and not self.off:
            guard = TestGuard(self, decision, own_directories(item.config))
        with watched_by(guard), self._abort.watching(item):
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Refuse a test before its fixtures are set up."""
        if self.problem and item.get_closest_marker("mlchaos") is not None:
            raise BadArgument(self.problem)
        decision = item.stash.get(DECISION, None)
        if decision is None or self.off:
            return
        refusals = list(decision.refusals)
        if not refusals and (used_up := self.over_budget(decision)) is not None:
            refusals.append(used_up)
        if refusals:
            self._refuse(item, decision, refusals)

    def _refuse(self, item: pytest.Item, decision: Decision, refusals: list[Refusal]) -> None:
        texts = [one.text(decision.case.test) for one in refusals]
        raise PolicyRefused("\n".join(texts))

    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> None:
        """Refuse a fixture that a test of a data class asks for while it runs."""
        item = getattr(request, "_pyfuncitem", None)
        decision = None if item is None else item.stash.get(DECISION, None)
        if item is None or decision is None or self.off or is_built_in(fixturedef):
            return
        name = fixturedef.argname
        if name in item.fixturenames:  # the decision at collection knows it
            return
        for rule in decision.rules:
            for marker, patterns in rule.synthetic.items():
                if marker in decision.case.markers and not matching(patterns, [name]):
                    self._refuse(item, decision, [refusal_of_fixture(rule, marker, name)])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        """Add the decision to the entries of the test, for the journal."""
        report = yield
        decision = item.stash.get(DECISION, None)
        if decision is None or self.off:
            return report
        error = call.excinfo.value if call.excinfo is not None else None
        refusals = str(error).splitlines() if isinstance(error, PolicyRefused) else []
        if refusals:
            report.mlchaos_refused = refusals
        if lines := getattr(report, "mlchaos_lines", None):
            entry = self._entry(decision, refusals)
            report.mlchaos_lines = _before_end(lines, Line(item.nodeid, 0, entry).text())
        return report

    def _entry(self, decision: Decision, refusals: list[str]) -> PolicyDecision:
        approval = decision.approval
        return PolicyDecision(
            decision="refused" if refusals else "allowed",
            digest=decision.policy.digest,
            files=file_names(decision.policy, self._config.rootpath),
            refusals=tuple(refusals),
            owner=decision.case.owner,
            approved_by="" if approval is None else approval.by,
            approved_until="" if approval is None else approval.until.isoformat(),
            approval_digest=decision.digest if decision.needs_approval else "",
        )

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count the refused tests, also those of the workers of xdist."""
        if getattr(report, "mlchaos_refused", None):
            self.refused.append(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how many tests the policy has refused."""
        if self.refused:
            number = len(self.refused)
            terminalreporter.write_line(
                f"mlchaos policy: {number} {'test was' if number == 1 else 'tests were'} refused. "
                f"--mlchaos-plan shows what each test would inject",
                red=True,
            )


def _used_up(rule: Rule, key: str, said: str) -> Refusal:
    return Refusal(
        rule.where(key),
        "the test",
        f"did not run: the session's budget is used up, because {said}",
        "Run it in a session of its own, or run fewer tests",
    )


def _before_end(lines: list[str], new: str) -> list[str]:
    """Return lines with a new one before the entry that ends a test."""
    for place, text in enumerate(lines):
        line = parse_line(text)
        if line is not None and line.entry.kind == "test":
            return [*lines[:place], new, *lines[place:]]
    return [*lines, new]


def check_patterns(rules: Iterable[Rule]) -> None:
    """Raise ``BadArgument`` for a pattern that is probably a misspelled fault.

    A name that is close to none may be a fault of tests that are not part of this session.
    """
    known = sorted({name for cls in FAULTS.values() for name in names_of(cls)})
    for rule in rules:
        for key in ("allow", "forbid", "approval"):
            for pattern in getattr(rule, key) or ():
                if matching([pattern], known):
                    continue
                if nearest := did_you_mean(pattern, known):
                    raise BadArgument(
                        f"{rule.where(key, pattern)} is neither a fault nor a family of faults"
                        f"{nearest}"
                    )


class TestGuard:
    """The policy at run time, for one test."""

    __test__ = False  # pytest must not collect it

    def __init__(self, session: PolicySession, decision: Decision, own: Iterable[Path]) -> None:
        self._session = session
        self._decision = decision
        self._own = tuple(map(str, own))
        self._names: dict[type[Fault], Refusal | None] = {}
        self._process = os.getpid()
        self.test = decision.case.test

    @property
    def max_trials(self) -> int | None:
        """Return the largest number of trials of the test."""
        rules, session = self._decision.rules, self._session
        left = [
            max(1, limit - session.trials)
            for rule in rules
            if (limit := session.session_trials(rule)) is not None
        ]
        found: int | None = _least([self._decision.least(lambda rule: rule.max_trials), *left])
        return found

    @property
    def max_seconds(self) -> float | None:
        """Return the seconds for the test's search or exploration."""
        left = [self._session.seconds_left(rule) for rule in self._decision.rules]
        found: float | None = _least([self._decision.least(lambda rule: rule.max_time), *left])
        return found

    @property
    def max_severity(self) -> int | None:
        """Return the strongest severity."""
        found: int | None = self._decision.least(lambda rule: rule.max_severity)
        return found

    def fault(self, fault: Fault, *, isolated: bool = False, via: str = "") -> Refusal | None:
        """Return the reason why a fault must not be scheduled, or None."""
        case = self._decision.case
        if isolated:
            case = dataclasses.replace(case, isolated=True)
        for rule in self._decision.rules:
            for refusal in refusals_of_fault(rule, case, fault, via):
                return refusal
            if pattern := self._lacks_approval(rule, fault):
                return Refusal(
                    rule.where("approval", pattern),
                    repr(fault),
                    "needs an approval, and pytest could not know it when it collected the test",
                    "Declare it as a decorator, or name it as chaos.name in the test",
                )
        return None

    def _lacks_approval(self, rule: Rule, fault: Fault) -> str:
        """Return the pattern by which a fault needs an approval that the test does not have."""
        known = {one.name for one in self._decision.injections}
        if fault.name in known and self._decision.approval is not None:
            return ""
        return needs_approval(rule, [fault.name])

    def began(self) -> None:
        """Count a trial with faults."""
        self._session.trials += 1

    def strike(self, fault: Fault, visit: Visit | None) -> Refusal | None:
        """Return the reason why a fault must not strike here, or None."""
        if (refusal := self._by_name(type(fault))) is not None:
            return refusal
        if os.getpid() != self._process and fault.ends_process:  # in a process of the subject
            refusal = self.fault(fault, isolated=True)
        return refusal or (None if visit is None else self._at(fault, visit.payload))

    def _by_name(self, cls: type[Fault]) -> Refusal | None:
        if cls not in self._names:
            found = (one for rule in self._decision.rules for one in _named(rule, cls))
            self._names[cls] = next(found, None)
        return self._names[cls]

    def _at(self, fault: Fault, payload: object) -> Refusal | None:
        """Return the reason why a fault must not strike this file or host, or None."""
        file = getattr(payload, "file", None) or getattr(payload, "location", None)
        if isinstance(file, str):
            for rule in self._decision.rules:
                allowed = rule.radius.directories
                if allowed is not None and not is_below(file, (*self._own, *allowed)):
                    return refusal_outside(rule, repr(fault), f"a file {Path(file).name!r}")
        protocols = getattr(payload, "protocols", ())
        if protocols and not set(protocols) & set(LOCAL_PROTOCOLS):
            return self.host(repr(fault), str(getattr(payload, "path", "")).partition("/")[0])
        url, protocol = getattr(payload, "url", ""), getattr(payload, "protocol", "")
        if isinstance(url, str) and url and protocol in ("tcp", "http"):
            return self.host(repr(fault), url.rpartition("://")[2].partition("/")[0])
        return None

    def process(self, what: str) -> Refusal | None:
        """Return the reason why a server process must not start, or None."""
        for rule in self._decision.rules:
            if not rule.radius.processes:
                return Refusal(
                    rule.where("blast_radius.processes", False),
                    what,
                    "starts a server process",
                    "Serve the app in the test's own process: mlchaos.serve(app)",
                )
        return None

    def host(self, what: str, host: str) -> Refusal | None:
        """Return the reason why a host must not be reached, or None."""
        for rule in self._decision.rules:
            if (refusal := refusal_of_host(rule, host, what)) is not None:
                return refusal
        return None


def _named(rule: Rule, cls: type[Fault]) -> list[Refusal]:
    return list(refusals_by_name(rule, cls, "this trial"))


def _least(values: Iterable[Any]) -> Any:
    return min((one for one in values if one is not None), default=None)


def limited_settings(decision: Decision, session: PolicySession) -> Settings:
    """Return the settings of a test's search within the limits of its policy, for the plan."""
    declared = [
        DeclaredFault(one.fault, frozenset())
        for one in decision.injections
        if one.fault is not None and one.origin == "decorator"
    ]
    with watched_by(TestGuard(session, decision, ())):
        return within_policy(suited_settings(decision.settings, declared))
