"""Print what the chaos tests would inject, for ``--mlchaos-plan``. Nothing runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..core.composites import CompositeFault
from ..core.faults import EVERY, Fault, fields_of, is_drawn
from ..core.policy import Refusal, ends_real_process
from ..core.safety import refuse_production
from ..core.validation import count_text, format_seconds
from ..errors import MlchaosError
from ..reports.outputs import OUTPUTS
from ..reports.text import site_text
from .policy_decisions import Decision, Injection
from .policy_session import PolicySession, limited_settings

__all__ = ["prepare"]

WRITERS = ("lfplugin", "nfplugin", "stepwiseplugin")
"""Plugins of pytest that write to its cache when a session ends."""
MOST_VISITS = 6
"""The number of visits that the plan shows of one fault."""


def prepare(config: pytest.Config) -> None:
    """Let a session write nothing, and run nothing."""
    for name in ("mlchaos_journal", "mlchaos_live", "mlchaos_keep_state"):
        setattr(config.option, name, None)
    for output in OUTPUTS:
        setattr(config.option, f"mlchaos_{output.name.replace('-', '_')}", None)
    if hasattr(config.option, "dist"):  # xdist would collect in its workers
        config.option.dist, config.option.tx, config.option.numprocesses = "no", [], None
    config.pluginmanager.register(Plan(config), "mlchaos-plan")


class Plan:
    """Print the plan instead of running tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._items: list[pytest.Item] = []
        self._bad = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Unregister what writes when a session ends."""
        plugins = self._config.pluginmanager
        for name in (*WRITERS, "mlchaos-collector", "mlchaos-budget"):
            if plugins.has_plugin(name):
                plugins.unregister(name=name)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Print the plan, in place of running tests."""
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            raise session.Interrupted(
                f"{session.testsfailed} error{'s' if session.testsfailed != 1 else ''} during "
                f"collection"
            )
        policy = self._config.pluginmanager.get_plugin("mlchaos-policy")
        assert isinstance(policy, PolicySession)
        decisions = policy.decisions
        self._bad = any(one.refusals or one.problem for one in decisions) and not policy.off
        self._write("")
        self._write(_head(policy, len(session.items)))
        try:
            refuse_production(self._config.getini("mlchaos_production"))
        except MlchaosError as error:
            self._write(f"nothing would be injected: {error}")
        for decision in decisions:
            self._write("")
            for line in _lines(decision, policy):
                self._write(line)
        return True

    def _write(self, line: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(line)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail if the policy refuses a test, so that a script can tell."""
        if self._bad and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say again that nothing has run, next to pytest's own last line."""
        terminalreporter.write_line("mlchaos plan: no test and no fixture was run")


def _head(policy: PolicySession, tests: int) -> str:
    refused = sum(bool(one.refusals) for one in policy.decisions)
    files = ", ".join(map(str, policy.root.files)) or "none"
    off = " --mlchaos-off is set, so nothing would be injected." if policy.off else ""
    return (
        f"mlchaos plan: {count_text(len(policy.decisions), 'chaos test')} "
        f"of {tests}, {refused} refused. Policy: {files}.{off}"
    )


def _lines(decision: Decision, policy: PolicySession) -> Iterator[str]:
    yield decision.case.test
    yield f"  owner: {decision.case.owner or 'none'}"
    if decision.needs_approval:
        approval = decision.approval
        yield (
            "  approval: needed, none is valid"
            if approval is None
            else f"  approval: by {approval.by}, until {approval.until}"
        )
    if decision.problem:
        yield f"  error: {decision.problem}"
    searched = any(
        one.fault is not None and not one.fault.is_pinned
        for one in decision.injections
        if one.origin in ("decorator", "composite")
    )
    if searched:
        settings = limited_settings(decision, policy)
        budget = "" if settings.budget is None else f" within {format_seconds(settings.budget)}"
        yield (
            f"  searched: up to {settings.max_trials} schedules{budget}, with at most "
            f"{count_text(settings.max_faults, 'fault')} at a time"
        )
    if not decision.injections and not decision.problem:
        yield "  faults: none is declared or named in its code"
    for one in decision.injections:
        yield from _of_member(one) if one.origin == "composite" else _of_injection(one, decision)
    composites = {repr(one.fault) for one in decision.injections if _is_composite(one)}
    for refusal in decision.refusals:
        if refusal.subject in {"the test", *composites}:
            yield f"  refused: {_reason(refusal)}"
    yield f"  decision: {'refused' if decision.refusals else 'allowed'}"


def _is_composite(one: Injection) -> bool:
    return isinstance(one.fault, CompositeFault)


def _of_member(one: Injection) -> Iterator[str]:
    """Yield one line about a member of a composite fault, and why it is refused."""
    if one.fault is not None:
        yield f"    {one.fault!r}, site: {_site(one.fault)}"
    for refusal in one.refusals:
        yield f"      refused: {refusal.reason} (policy: {refusal.rule})"


def _of_injection(one: Injection, decision: Decision) -> Iterator[str]:
    via = "" if one.origin == "decorator" else f" ({one.via})"
    if one.fault is None:
        yield f"  {one.name}{via}: its parameters are known when the test runs"
    else:
        yield f"  {one.fault!r}{via}"
        if isinstance(one.fault, CompositeFault):
            yield "    stands for these, which a search tries one at a time:"
        else:
            yield f"    site: {_site(one.fault)}; strikes: {_when(one.fault)}"
            yield f"    touches: {', '.join(_touched(one.fault, decision))}"
    for refusal in one.refusals:
        yield f"    refused: {_reason(refusal)}"


def _reason(refusal: Refusal) -> str:
    return f"{refusal.reason} (policy: {refusal.rule}). {refusal.cure}"


def _site(fault: Fault) -> str:
    try:
        return site_text(fault.key)
    except (AttributeError, TypeError):
        return "as a search chooses"


def _when(fault: Fault) -> str:
    """Return the visits of a fault in words, and what a search draws."""
    drawn = [
        name
        for name in fields_of(type(fault))
        if is_drawn(getattr(fault, name))
        or (name in fault.searchable and getattr(fault, name) is None)
    ]
    if fault.continuous:
        when = "all the time"
    elif fault.p is not None:
        when = f"each visit with probability {fault.p!r}"
    elif fault.at is EVERY:
        when = "at every visit"
    elif fault.at is None or is_drawn(fault.at):
        when = "at visits that a search chooses"
    else:
        visits = list(fault.at[: MOST_VISITS + 1])
        shown = ", ".join(map(str, visits[:MOST_VISITS]))
        more = ", …" if len(visits) > MOST_VISITS else ""
        when = f"at visit{'' if len(visits) == 1 else 's'} {shown}{more}"
    others = [name for name in drawn if name != "at"]
    return f"{when}; searched: {', '.join(others)}" if others else when


def _touched(fault: Fault, decision: Decision) -> Iterator[str]:
    """Yield the things that a fault can touch, in words."""
    if ends_real_process(fault, isolated=decision.case.isolated):
        yield "real processes that the test starts"
    elif fault.ends_process:
        yield "the run of the subject (a real process, if the test starts it in one)"
    else:
        yield "the test's process"
    path = getattr(fault, "path", None) or getattr(fault, "file", None)
    if isinstance(path, str):
        yield f"files that match {path!r}"
    elif str(getattr(fault, "site", "")).startswith("storage"):
        yield "files below the test's own directory"
    if str(getattr(fault, "site", "")) == "network":
        yield "connections through mlchaos.proxy and of client libraries"
