"""Decide what each test has shown. A test that saw nothing has shown nothing, even if it passed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from ... import errors
from ...core.entries import BreakingPointEntry, Exploration, Judgement, State, StrikeEntry, Test
from ...core.policy_entries import Abort, PolicyDecision
from ...core.provenance import REPLAY
from ...core.validation import count_text
from ..journal_reader import SessionLog, TestLog
from ..text import describe_not_tried

__all__ = ["FAILED", "IN_PART", "PASSED", "WARNED", "TestResult", "results_of"]

PASSED = "passed"
IN_PART = "passed in part"
WARNED = (IN_PART, "nothing struck", "skipped")
"""Verdicts on tests that did not fail, and have not shown everything that they were to show."""
FAILED = (
    *("failed", "inconclusive", "vacuous", "refused", "no verdict", "interrupted"),
    "did not end",
)
_KINDS: Mapping[str, tuple[type[BaseException], ...]] = {
    "inconclusive": (errors.Inconclusive,),
    "vacuous": (errors.NeverStruck, errors.Vacuous),
    "refused": (errors.InjectionForbidden,),
}
SHOWN_FAULTS = 6


@dataclasses.dataclass(frozen=True, slots=True)
class TestResult:
    """The verdict on a test, and on what it rests.

    Attributes:
        nodeid: The test.
        verdict: ``passed``, or a verdict of ``WARNED`` or ``FAILED``.
        reason: Why it is not ``passed``, in words. Empty if the verdict says it.
        injected: What was injected, in words.
        oracles: The names of the oracles that judged it.
        limits: What the test did not cover, one sentence each.
        marks: The names of its marks.
        faults: The names of the faults that struck.
        allowed: What the policy says of it: its owner, and who approved it. Empty without a policy.
    """

    __test__ = False  # pytest must not collect it

    nodeid: str
    verdict: str
    reason: str
    injected: str
    oracles: Sequence[str]
    limits: Sequence[str]
    marks: Sequence[str]
    faults: Sequence[str]
    allowed: str = ""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}" if self.reason else self.verdict


def results_of(session: SessionLog) -> list[TestResult]:
    """Return the results of all tests, in the order of their ids."""
    return [_result(test) for test in session.tests.values()]


def _result(test: TestLog) -> TestResult:
    verdict, reason = _verdict(test)
    limits = list(_limits(test))
    if verdict == PASSED and (left := list(_left_out(test))):
        verdict, reason = IN_PART, "; ".join(left)
    source = test.provenance
    return TestResult(
        test.nodeid,
        verdict,
        reason,
        "; ".join(_injected(test)) or "nothing",
        sorted({one.oracle for one in test.all(Judgement)}),
        limits,
        () if source is None else source.marks,
        sorted(_faults(test)),
        "; ".join(_allowed(test)),
    )


def _allowed(test: TestLog) -> Iterator[str]:
    for one in test.all(PolicyDecision)[-1:]:
        yield one.decision
        if one.owner:
            yield f"owner: {one.owner}"
        if one.approved_by:
            yield f"approved by {one.approved_by} until {one.approved_until}"


def _verdict(test: TestLog) -> tuple[str, str]:
    end = test.end
    for abort in test.all(Abort):
        reason = f": {abort.reason}" if abort.reason else ""
        return "interrupted", f"{abort.condition} ended the session{reason}"
    if end is None:
        return "did not end", "the session ended before the test"
    if end.outcome == "failed":
        return _failure(end.error)
    ends = [one.outcome for one in test.all(Test)]
    if bad := sum(one == "failed" for one in ends):
        return "inconclusive", f"it failed in {bad} of {len(ends)} runs"
    if end.outcome != "passed":
        return end.outcome, end.message
    if not _saw_something(test):
        off = test.provenance is not None and test.provenance.settings == "off"
        return "nothing struck", "faults were off" if off else ""
    return PASSED, ""


def _failure(error: str) -> tuple[str, str]:
    found = getattr(errors, error, None) if error else None
    kind = found if isinstance(found, type) else Exception
    for name, kinds in _KINDS.items():
        if issubclass(kind, kinds):
            return name, error
    if issubclass(kind, errors.MlchaosError) and not issubclass(kind, errors.Verdict):
        return "no verdict", error
    return "failed", error or "an error"


def _saw_something(test: TestLog) -> bool:
    """Return True if a fault struck, or a run was resumed from a crash state."""
    end = test.end
    return bool(
        (end is not None and end.strikes)
        or test.all(State)
        or any(level[2] for one in test.all(BreakingPointEntry) for level in one.curve)
    )


def _left_out(test: TestLog) -> Iterator[str]:
    """Yield what a passed test was to try, and did not."""
    end, source = test.end, test.provenance
    if source is not None and REPLAY in source.settings:
        schedule = source.settings.partition(REPLAY)[2]
        yield f"it ran under the replayed schedule {schedule} instead of its own faults"
    if end is not None and end.untried:
        yield f"not tried: {describe_not_tried(end.untried)}"
    for one in test.all(Exploration):
        if one.tried < one.states or one.left_out:
            left = one.left_out or f"{one.states - one.tried} were left out"
            yield f"{one.tried} of {count_text(one.states, 'crash state')}: {left}"


def _limits(test: TestLog) -> Iterator[str]:
    """Yield what else a reader should know about how the test ran."""
    end, source = test.end, test.provenance
    if end is not None and end.real_clock:
        yield "a clock was real, so times depend on the machine"
    followed = [state for state in test.all(State) if state.follows]
    if followed:
        yield (
            f"{len(followed)} of {count_text(len(test.all(State)), 'crash state')} were decided by "
            f"the run of an equal state"
        )
    for one in test.all(Exploration):
        yield from one.notes
    if source is None:
        yield "the journal does not say which code ran"
    elif source.settings:
        yield f"settings: {source.settings}"


def _faults(test: TestLog) -> set[str]:
    found = {strike.fault.partition("(")[0] for strike in test.all(StrikeEntry)}
    found |= {one.fault.partition("(")[0] for one in test.all(BreakingPointEntry)}
    return found | ({"crash"} if test.all(State) else set())


def _injected(test: TestLog) -> Iterator[str]:
    counts: dict[str, int] = {}
    for strike in test.all(StrikeEntry):
        target = strike.details.get("target")
        site = f"{strike.site} {target}" if target else strike.site
        name = f"{strike.fault.partition('(')[0]} at {site}"
        counts[name] = counts.get(name, 0) + 1
    for name, count in sorted(counts.items())[:SHOWN_FAULTS]:
        yield f"{name}: {count_text(count, 'strike')}"
    if len(counts) > SHOWN_FAULTS:
        yield f"{len(counts) - SHOWN_FAULTS} more"
    states = test.all(State)
    if states:
        yield count_text(len(states), "crash state")
    for one in test.all(BreakingPointEntry):
        yield f"{one.fault.partition('(')[0]}: {count_text(len(one.curve), 'level')}"
