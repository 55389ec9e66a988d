"""Report an exploration of crash states, and assert on it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..core.entries import Entry, Exploration, State, Timing, without_times
from ..core.privacy import error_text, shows_values
from ..core.results import Result
from ..core.validation import FLAG, TOLERANCE, WHOLE, check_arguments, count_text, optional
from ..errors import Inconclusive, NotRecovered
from .model import WORKER, CrashOutcome, CrashState

if TYPE_CHECKING:
    from .parts import ShardPart

__all__ = ["CrashReport"]

SHOWN_GROUPS = 5
_NUMBER = re.compile(r"\d+")
_ORDER = ("failed", "hung", "restarted", "diverged")
_NEVER_RESUMES = (
    "usual reasons: it saves under one name and looks for another (last.pt, latest.pt),",
    "it runs without its option to resume, or it never loads what it saves.",
    "If it is meant to begin again each time: report.assert_recovers(from_scratch=True)",
)


class CrashReport(Result):
    """The results of a subject that was resumed from every crash state.

    Attributes:
        steps: The steps of the run without a crash.
        states: The crash states, in the order of time.
        outcomes: One result for each state that was tried.
        untried: The states that were not tried, because ``budget`` or ``max_states`` ended it.
        unseen: A lower bound for the changes of the directory whose content was not seen, because
            one call made several. No run resumed from them.
        left_out: How many states of which kinds were not tried, and why. Empty if all were tried.
        notes: Further facts, for example why the runs were made in fresh processes.
        duration: The seconds that it took.
    """

    def __init__(
        self,
        *,
        steps: int,
        writes: int,
        states: Sequence[CrashState],
        outcomes: Sequence[CrashOutcome],
        duration: float,
        notes: Sequence[str] = (),
        rejudged: Callable[[CrashOutcome, float, float], CrashOutcome] | None = None,
        test: str = "",
        root: str = "",
        untried: Sequence[CrashState] = (),
        left_out: str = "",
        inconclusive: str = "",
        unseen: Sequence[int] = (),
        traced: bool = False,
        saves: Sequence[tuple[int, str]] = (),
        part: ShardPart | None = None,
    ) -> None:
        self.steps = steps
        self.states = list(states)
        self.outcomes = list(outcomes)
        self.duration = duration
        self.notes = list(notes)
        self.writes = writes
        self._rejudged = rejudged
        self._test = test
        self._root = root
        self.untried = list(untried)
        self.left_out = left_out
        self._inconclusive = inconclusive
        self.unseen = sum(unseen)
        self._blind = len(unseen)
        self._traced = traced
        self._saves = saves
        self._part = part
        self._tolerance = 0.0, 0.0
        self._asserted: Sequence[CrashOutcome] | None = None
        self._slow: Sequence[CrashOutcome] = ()

    def _about(self) -> str:
        return f"<CrashReport of {len(self.outcomes)} crash states, {len(self.failures)} of which do not recover>"

    def __str__(self) -> str:
        return self._unseen(lambda: self.text())

    @property
    def failures(self) -> list[CrashOutcome]:
        """Return the outcomes that are not ``recovered``, in the order of time."""
        return [outcome for outcome in self.outcomes if outcome.verdict != "recovered"]

    @property
    def examples(self) -> list[CrashState]:
        """Return the earliest state of each cause."""
        return [_example(group).state for group in _group_failures(self.failures)]

    @property
    def max_lost_steps(self) -> int:
        """Return the largest number of steps that a resumed run takes again.

        This is 0 if no step of torch was seen.
        """
        return max(
            (outcome.lost_steps for outcome in self.outcomes if outcome.lost_steps is not None),
            default=0,
        )

    @property
    def recovery_time(self) -> float | None:
        """Return the median seconds from the start of a resumed run to its first step.

        This is None if no recovered run took a step.
        """
        times = sorted(
            o.recovery_time
            for o in self.outcomes
            if o.recovery_time is not None and o.verdict == "recovered"
        )
        return times[len(times) // 2] if times else None

    @check_arguments(
        "assert_recovers",
        rtol=TOLERANCE,
        atol=TOLERANCE,
        max_lost_steps=optional(WHOLE),
        from_scratch=FLAG,
    )
    def assert_recovers(
        self,
        *,
        rtol: float = 0.0,
        atol: float = 0.0,
        max_lost_steps: int | None = None,
        from_scratch: bool = False,
    ) -> None:
        """Raise ``NotRecovered`` unless the subject recovers from every crash state.

        To recover is to end as the run without a crash, with the same returned value and the same
        trained parameters.

        Args:
            rtol: The returned value may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.
            max_lost_steps: The largest number of steps that may be taken again.
            from_scratch: If true, the job is meant to do all its work again after a crash. Without
                it, a job that never resumes from what it saved fails. A job that does resume from
                some states must not lose a complete checkpoint either way.

        Raises:
            NotRecovered: A state does not recover.
            Inconclusive: All states that were tried recover, but no state of some kind was tried.
                With ``require_all``, a single state that was not tried is enough.
        """
        outcomes = self.outcomes
        self._tolerance = rtol, atol
        if (rtol or atol) and self._rejudged is not None:
            outcomes = [self._rejudged(outcome, rtol, atol) for outcome in outcomes]
        if from_scratch:
            outcomes = [_meant_to_begin_again(outcome) for outcome in outcomes]
        self._asserted = outcomes
        self._slow = slow = [
            o
            for o in outcomes
            if max_lost_steps is not None
            and o.lost_steps is not None
            and o.lost_steps > max_lost_steps
        ]
        if slow or any(outcome.verdict != "recovered" for outcome in outcomes):
            raise NotRecovered(self.text(outcomes, slow, max_lost_steps))
        if self._inconclusive:
            raise Inconclusive(f"{self.text(outcomes)}\n  {self._inconclusive}")

    def entries(self, number: int, *, interrupted: bool = False) -> Iterator[Entry]:
        """Yield the journal's entries, as the test judged the outcomes.

        Args:
            number: The number of this result in the trial.
            interrupted: True if the exploration did not end by itself.
        """
        outcomes = self.outcomes if self._asserted is None else self._asserted
        yield Exploration(
            number=number,
            states=len(self.states),
            tried=len(outcomes),
            bad=sum(outcome.verdict != "recovered" for outcome in outcomes),
            steps=self.steps,
            writes=self.writes,
            saves=tuple(self._saves),
            measured=any(outcome.lost_steps is not None for outcome in outcomes),
            max_lost_steps=self.max_lost_steps,
            left_out=self.left_out,
            notes=tuple(self.notes),
            interrupted=interrupted,
        )
        yield Timing(
            of="exploration", number=number, seconds=self.duration, restart=self.recovery_time
        )
        for outcome in outcomes:
            yield _state(outcome, number, self._root)
            if outcome.follows is None:
                name, seconds = outcome.state.id, outcome.duration
                yield Timing(of="state", number=number, name=name, seconds=seconds)
        if self._part is not None:
            yield from self._part.entries(number, self._tolerates)

    def _tolerates(self, outcome: CrashOutcome) -> bool:
        """Return True if the assertion has allowed the difference of an outcome."""
        rtol, atol = self._tolerance
        if outcome.verdict != "diverged" or self._rejudged is None or not (rtol or atol):
            return False
        return self._rejudged(outcome, rtol, atol).verdict == "recovered"

    @property
    def first_failure(self) -> CrashOutcome | None:
        """Return the failure that the reproduction line repeats."""
        outcomes = self.outcomes if self._asserted is None else self._asserted
        return _first([one for one in outcomes if one.verdict != "recovered"], self._slow)

    # -- in words ----------------------------------------------------------------------------------

    def text(
        self,
        outcomes: Sequence[CrashOutcome] | None = None,
        slow: Sequence[CrashOutcome] = (),
        max_lost_steps: int | None = None,
    ) -> str:
        """Return the report in words.

        It has one group per cause with its earliest example, the cost of a crash, and the line that
        repeats the first failure.
        """
        outcomes = self.outcomes if outcomes is None else outcomes
        failures = [outcome for outcome in outcomes if outcome.verdict != "recovered"]
        groups = _group_failures(failures)
        lines = [
            self._head(outcomes, failures),
            *([f"  {self.left_out}"] if self.left_out else []),
            *self._runs(outcomes),
            *self._not_seen(),
        ]
        for group in groups[:SHOWN_GROUPS]:
            lines += _group(group, self._root)
        if len(groups) > SHOWN_GROUPS:
            lines.append(f"  ... and {count_text(len(groups) - SHOWN_GROUPS, 'more cause')}")
        if slow:
            worst = max(slow, key=lambda outcome: outcome.lost_steps or 0)
            lines.append(
                f"  lost work {len(slow)}x  more than {count_text(max_lost_steps or 0, 'step')} "
                f"had to be done again"
            )
            lines.append(
                f"                 most: {worst.lost_steps}, with {_about(worst.state)}: it "
                f"resumed from step {worst.resumed_at}"
            )
        lines += [self._costs(), *(f"  {note}" for note in self.notes)]
        first = _first(failures, slow)
        if first is not None and self._test:
            lines.append(f'  reproduce: @chaos.crash(state="{first.state.id}")')
            replayed = f"crash(state={first.state.id!r})"
            lines.append(f'         or: pytest "{self._test}" --mlchaos-replay "{replayed}"')
        return "\n".join(lines)

    def _head(self, outcomes: Sequence[CrashOutcome], failures: Sequence[CrashOutcome]) -> str:
        if not self.states:
            return f"mlchaos: no crash state was tried; the subject ran for {self.duration:.1f} s"
        good = len(outcomes) - len(failures)
        verdict = (
            ("these recover" if self.untried else "all recover")
            if not failures
            else f"{good} recover{'s' if good == 1 else ''}, {len(failures)} do{'es' if len(failures) == 1 else ''} not"
        )
        over = (
            f"{count_text(self.steps, 'step')} ({count_text(self.writes, 'checkpoint write')})"
            if self.steps
            else count_text(self.writes, "file write")
        )
        tried = f"{len(outcomes)} of " if self.untried else ""
        states = count_text(len(self.states), "crash state")
        return f"mlchaos: {tried}{states} in {over}, checked in {self.duration:.1f} s: {verdict}"

    def _runs(self, outcomes: Sequence[CrashOutcome]) -> list[str]:
        """Return how many states were run, if not all were run to their end."""
        follow = sum(outcome.follows is not None for outcome in outcomes)
        checked = sum(outcome.verified for outcome in outcomes)
        own = [outcome for outcome in outcomes if outcome.follows is None]
        early = sum(outcome.ended_early for outcome in own)
        parts = [f"{len(own)} run"]
        if checked:
            parts.append(f"{checked} of them to check those that follow")
        if early:
            parts.append(f"{early} ended early, as the run without a crash went on")
        if follow:
            parts.append(f"{follow} follow, because no run could tell them from one of these")
        return [f"  states: {'; '.join(parts)}"] if follow or early else []

    def _not_seen(self) -> list[str]:
        if not self.unseen:
            return []
        number, verb, who = (
            ("1 change", "was", "it")
            if self.unseen == 1
            else (f"some {self.unseen} changes", "were", "they")
        )
        if self._traced:
            why = "(in a memory-mapped file, or by a system call that does not show the content)"
            return [f"  {number} {verb} not seen {why}, so no run resumed from what {who} left"]
        where = "one call" if self._blind == 1 else f"{self._blind} calls"
        return [
            f"  {number} inside {where} {verb} not seen, so no run resumed from what {who} left: "
            f"record='syscalls' sees each"
        ]

    def _costs(self) -> str:
        if not self.steps:
            return "  lost work: not measured (no optimizer step of torch was taken)"
        restart = f"; restart: {self.recovery_time:.2f} s" if self.recovery_time is not None else ""
        return f"  lost work: at most {count_text(self.max_lost_steps, 'step')}{restart}"


def _about(state: CrashState) -> str:
    return f"{state.what}, after step {state.step}" if state.step else state.what


def _state(outcome: CrashOutcome, number: int, root: str) -> State:
    """Return the journal's entry of an outcome."""
    state, found = outcome.state, outcome.divergence
    cause = outcome.detail
    if outcome.error is not None:
        cause = error_text(outcome.error)
    elif found is not None:
        cause = f"{found.component} ({found.detail})" if found.detail else found.component
    return State(
        exploration=number,
        state=state.id,
        verdict=outcome.verdict,
        path=state.path,
        what=state.what,
        step=state.step,
        until=state.until,
        torn=state.torn,
        cause=without_times(cause.replace(root, "workdir") if root else cause),
        divergence_step=None if found is None else found.step,
        component="" if found is None else found.component,
        place=outcome.place,
        resumed_at=outcome.resumed_at,
        lost_steps=outcome.lost_steps,
        follows=outcome.follows or "",
    )


def _first(failures: Sequence[CrashOutcome], slow: Sequence[CrashOutcome]) -> CrashOutcome | None:
    """Return the outcome that a report shows first: a failure, or else the most lost work."""
    if failures:
        return _example(_group_failures(failures)[0])
    return max(slow, key=lambda outcome: outcome.lost_steps or 0) if slow else None


def _group_failures(failures: Sequence[CrashOutcome]) -> list[list[CrashOutcome]]:
    """Group failures by cause.

    The worst kind comes first, and within a group the earliest state.
    """
    groups: dict[tuple[str, ...], list[CrashOutcome]] = {}
    for outcome in failures:
        groups.setdefault(_cause(outcome), []).append(outcome)
    return sorted(groups.values(), key=lambda group: _ORDER.index(group[0].verdict))


def _example(group: Sequence[CrashOutcome]) -> CrashOutcome:
    """Return the earliest failure of a group.

    If all runs began from scratch, return the last, whose state had the most saved work.
    """
    return group[-1] if group[0].from_scratch else group[0]


def _meant_to_begin_again(outcome: CrashOutcome) -> CrashOutcome:
    """Return its verdict for a job that may always begin from scratch."""
    if not outcome.from_scratch:
        return outcome
    return dataclasses.replace(
        outcome,
        verdict="recovered" if outcome.divergence is None else "diverged",
        detail="",
        from_scratch=False,
    )


def _cause(outcome: CrashOutcome) -> tuple[str, ...]:
    """Return a key that is equal for failures of one cause.

    Numbers in a divergence's text are ignored.
    """
    finished = "finished" if outcome.finished else ""
    if outcome.error is not None:
        mixed = "of several saves" if outcome.verdict == "failed" and outcome.detail else ""
        return outcome.verdict, finished, type(outcome.error).__name__, outcome.place, mixed
    if outcome.divergence is None:
        return outcome.verdict, finished
    return (
        outcome.verdict,
        finished,
        outcome.divergence.component,
        _NUMBER.sub("", outcome.divergence.detail),
    )


def _in_rank(outcome: CrashOutcome) -> str:
    return "" if outcome.rank is None else f", in rank {outcome.rank}"


def _last_words(output: str, root: str) -> str:
    """Return the error that ended a thread of the run, or its last output.

    The output appears only if the report may show values.
    """
    lines = [
        line.strip().replace(root, "workdir") if root else line.strip()
        for line in output.splitlines()
        if line.strip()
    ]
    ended = [line for line in lines if line.startswith(WORKER)]
    if ended:
        return f"(its {ended[-1].removeprefix(WORKER)})"
    if not lines:
        return ""
    text = lines[-1] if len(lines[-1]) <= 160 else lines[-1][:157] + "..."
    return (
        f"(its last output: {text})"
        if shows_values()
        else f"(it printed {count_text(len(lines), 'line')}, see outcome.output)"
    )


def _group(group: Sequence[CrashOutcome], root: str) -> list[str]:
    first = group[0]
    head = f"  {first.verdict:<9} {len(group):>3}x  "
    pad = " " * 17
    if first.verdict == "failed" and first.error is not None:
        lines = [
            f"{head}resume raised {error_text(first.error, root=root)}{_in_rank(first)}",
            *([f"{pad}at {first.place}"] if first.place else []),
        ]
    elif first.verdict == "hung":
        lines = [f"{head}resume did not end: {first.error}"]
        early = [outcome for outcome in group if outcome.detail]
        lines += [f"{pad}({len(early)} of them {early[-1].detail})"] if early else []
        lines += [f"{pad}{words}" for words in [_last_words(first.output, root)] if words]
    elif first.from_scratch:
        lines = [
            f"{head}no run resumed: each began from scratch, even after the job had finished",
            f"{pad}({first.detail})",
        ]
        lines += [f"{pad}{line}" for line in _NEVER_RESUMES]
    elif first.verdict == "restarted":
        lines = [f"{head}resume began from scratch", f"{pad}({first.detail})"]
    else:
        divergence = first.divergence
        assert divergence is not None
        steps = {outcome.divergence.step for outcome in group if outcome.divergence is not None}
        place = (
            f"first divergence at step {min(steps)}: "
            if divergence.component not in ("returned value", "files")
            else "different result: "
        )
        lines = [
            f"{head}{place}{divergence.component}",
            *([f"{pad}({divergence.detail})"] if divergence.detail else []),
        ]
    if first.finished:
        lines.append(f"{pad}(the job had finished, and was started again)")
    if first.verdict == "failed" and first.detail:
        lines.append(f"{pad}({first.detail})")
    return [
        *lines,
        f"{pad}{'last' if first.from_scratch else 'first'}: {_about(_example(group).state)}",
    ]
