"""Find the distinct causes of the failures in a session: what a reviewer has to look at."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from ... import errors
from ...core.entries import State, StrikeEntry, Trial
from ...core.help import DOCS
from ..journal_reader import SessionLog, TestLog
from ..text import quote

__all__ = [
    "Finding",
    "Rule",
    "Spot",
    "fault_name",
    "findings",
    "findings_of",
    "first_line",
    "name_of",
    "spot_of_test",
]

_NUMBER = re.compile(r"\d+")
_PLACE = re.compile(r"(?P<file>[^:]+\.py):(?P<line>\d+)")
_STATES = {
    "failed": "A run that resumed from a crash state raised an error.",
    "hung": "A run that resumed from a crash state did not end.",
    "restarted": "A run began from scratch, although a checkpoint was complete.",
    "diverged": "A run that resumed from a crash state ended in a different state.",
}
"""The verdicts on crash states, the worst first, as in the terminal."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One kind of failure.

    Attributes:
        id: The name of an error of this plugin, of a verdict on a crash state, or of a fault.
        text: What it means, in one sentence.
        help: The address of its documentation.
        kind: ``verdict``, ``crash state`` or ``fault``.
    """

    id: str
    text: str
    help: str
    kind: str


@dataclasses.dataclass(frozen=True, slots=True)
class Spot:
    """A line of a file. The path is relative to the root directory of pytest."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One cause of a test's failure.

    Attributes:
        test: The test.
        rule: Its kind.
        title: The cause in one line.
        text: The report on it in words.
        spot: The user's line that is nearest to the cause.
        fingerprint: A hash that stays the same from run to run, also if lines move.
        reproduce: The decorators that repeat it, as text to paste, or "".
        replay: The value of ``--mlchaos-replay`` that repeats it, or "".
        faults: The names of the faults that struck.
    """

    test: TestLog
    rule: Rule
    title: str
    text: str
    spot: Spot
    fingerprint: str
    reproduce: str = ""
    replay: str = ""
    faults: tuple[str, ...] = ()

    def how_to_repeat(self) -> Iterator[str]:
        """Yield the lines to paste, unless the text has them already."""
        if self.reproduce and self.reproduce.partition("\n")[0] not in self.text:
            yield f"Reproduce: {self.reproduce}"
        if self.replay and "--mlchaos-replay" not in self.text:
            nodeid, replay = (quote(one, always=True) for one in (self.test.nodeid, self.replay))
            yield f"Or: pytest {nodeid} --mlchaos-replay {replay}"


def findings(session: SessionLog) -> list[Finding]:
    """Return all causes of the failures in a session, in the order of the tests."""
    return [one for test in session.tests.values() for one in findings_of(test)]


def findings_of(test: TestLog) -> list[Finding]:
    """Return the causes of a test's failure, as the terminal orders them.

    An interrupted test has those that were found until then.
    """
    return list(_distinct(_of_test(test)))


def fault_name(text: str) -> str:
    """Return the name of a fault without its arguments."""
    return text.partition("(")[0]


def first_line(text: str) -> str:
    """Return the first line of a text that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def name_of(test: TestLog) -> str:
    """Return the name of a test with its parameters, without its file and class."""
    path, bracket, parameters = test.nodeid.partition("[")
    return f"{path.rpartition('::')[2]}{bracket}{parameters}"


def spot_of_test(test: TestLog) -> Spot:
    """Return the line at which a test is defined. A killed session knows only its file."""
    file = test.nodeid.partition("::")[0]
    if test.end is None:
        return Spot(file, 1)
    return Spot(test.end.file or file, max(test.end.line, 1))


def _of_test(test: TestLog) -> Iterator[Finding]:
    if test.outcome not in ("failed", "interrupted"):
        return
    found = [*_from_states(test), *_from_trials(test)]
    if not found and test.outcome == "failed":
        found.append(_from_end(test))
    yield from found


def _distinct(found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings with distinct fingerprints. Some differ in nothing but the line."""
    seen: Counter[str] = Counter()
    for one in found:
        number = seen[one.fingerprint]
        seen[one.fingerprint] += 1
        again = _fingerprint(one.fingerprint, str(number)) if number else one.fingerprint
        yield dataclasses.replace(one, fingerprint=again)


def _from_states(test: TestLog) -> Iterator[Finding]:
    """Yield one finding for each distinct cause among the crash states that do not recover."""
    groups: dict[tuple[str, str, str, str], list[State]] = {}
    states = test.all(State)
    for state in states:
        if state.verdict != "recovered":
            groups.setdefault(_cause(state), []).append(state)
    order = list(_STATES)
    for (verdict, component, cause, place), group in sorted(
        groups.items(), key=lambda item: order.index(item[0][0]) if item[0][0] in order else 9
    ):
        # If a run began from scratch, the last state had the most saved work.
        first = group[-1] if verdict == "restarted" else group[0]
        where = f" at step {first.divergence_step}" if first.divergence_step is not None else ""
        reason = first.cause or component
        title = f"crash state {verdict}{where}" + (f": {reason}" if reason else "")
        about = f"{first.what}, after step {first.step}" if first.step else first.what
        yield Finding(
            test,
            _rule_of_state(verdict),
            title,
            f"{title}\n{len(group)} of {len(states)} crash states. First: {about}",
            _spot(first.place, test),
            _fingerprint(test.nodeid, verdict, component, cause, _file_of(place)),
            f'@chaos.crash(state="{first.state}")',
            f"crash(state={first.state!r})",
            ("crash",),
        )


def _cause(state: State) -> tuple[str, str, str, str]:
    """Return a key that is equal for states with one cause."""
    cause = state.cause if state.component else state.cause.partition(":")[0]
    return state.verdict, state.component, _NUMBER.sub("#", cause), state.place


def _from_trials(test: TestLog) -> Iterator[Finding]:
    """Yield one finding for each distinct cause among the failed trials."""
    groups: dict[tuple[str, str], list[tuple[int, Trial]]] = {}
    states = {line.trial for line in test.lines if isinstance(line.entry, State)}
    for number, trial in test.trials.items():
        # The states of an exploration are the causes of this error.
        if trial.outcome == "failed" and not (number in states and trial.error == "NotRecovered"):
            groups.setdefault((trial.error, trial.place), []).append((number, trial))
    end = test.end
    for (error, place), group in groups.items():
        # The search shrinks, so the last of the smallest schedules is the one that it reports.
        number, smallest = min(reversed(group), key=lambda one: _size(one[1].schedule))
        faults = _faults_of(test, number)
        is_reported = end is not None and end.error == error and end.place == place
        text = end.message if is_reported and end is not None else smallest.cause
        reproduce, replay = _decorators(smallest.schedule), smallest.schedule
        if is_reported and end is not None and end.reproduce:
            reproduce, replay = end.reproduce, end.replay
        yield Finding(
            test,
            _rule_of_error(error, faults),
            first_line(smallest.cause) or error,
            text or error,
            _spot(place, test),
            _fingerprint(test.nodeid, error, *faults, _file_of(place)),
            reproduce,
            replay,
            faults,
        )


def _from_end(test: TestLog) -> Finding:
    """Return the finding of a failure that is not in a trial, for example a fault that never struck."""
    end = test.end
    assert end is not None  # a test without an end has not failed
    faults = _faults_of(test)
    return Finding(
        test,
        _rule_of_error(end.error, faults),
        first_line(end.message) or end.error or "the test failed",
        end.message or end.error or "the test failed",
        _spot(end.place, test),
        _fingerprint(test.nodeid, end.error, *faults, _file_of(end.place)),
        end.reproduce,
        end.replay,
        faults,
    )


def _faults_of(test: TestLog, trial: int | None = None) -> tuple[str, ...]:
    """Return the names of the faults that struck in a trial, or in all."""
    return tuple(sorted({fault_name(strike.fault) for strike in test.all(StrikeEntry, trial)}))


def _decorators(schedule: str) -> str:
    """Return a schedule as decorators to paste."""
    return "\n".join(f"@chaos.{one}" for one in schedule.split("; ")) if schedule else ""


def _size(schedule: str) -> tuple[int, int]:
    return schedule.count("; "), len(schedule)


# -- kinds -----------------------------------------------------------------------------------------


def _rule_of_state(verdict: str) -> Rule:
    text = _STATES.get(verdict, "A run that resumed from a crash state did not recover.")
    return Rule(f"crash-{verdict}", text, f"{DOCS}/howto/crashes/#read-the-report", "crash state")


def _rule_of_error(error: str, faults: Sequence[str]) -> Rule:
    """Return the kind of an error: its own name if this plugin raised it, or else the fault."""
    known = getattr(errors, error, None)
    if isinstance(known, type) and issubclass(known, errors.MlchaosError):
        text = first_line(known.__doc__ or error)
        return Rule(error, text, f"{DOCS}/failures/#{error.lower()}", "verdict")
    if faults:
        name = faults[0]
        text = f"The code under test raised an error after the fault {name} struck."
        return Rule(name, text, f"{DOCS}/faults/#chaos{name}", "fault")
    text = "The code under test raised an error of its own."
    return Rule("own-error", text, f"{DOCS}/failures/#an-error-of-your-own-code", "verdict")


# -- places ----------------------------------------------------------------------------------------


def _spot(place: str, test: TestLog) -> Spot:
    """Return the line that a place names, or that of the test if it names none."""
    found = _PLACE.match(place)
    if found is None:
        return spot_of_test(test)
    path = PurePosixPath(found["file"].replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:  # not in the project
        return spot_of_test(test)
    return Spot(str(path), max(int(found["line"]), 1))


def _file_of(place: str) -> str:
    found = _PLACE.match(place)
    return found["file"] if found else ""


def _fingerprint(*parts: str) -> str:
    """Return a hash of what stays the same if lines move and numbers differ."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
