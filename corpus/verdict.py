"""Compare the report on a program with its ``expected.toml``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from program import LOST_WORK, VERDICTS, Program

__all__ = ["Facts", "differences", "problems", "unpaired"]


@dataclasses.dataclass(frozen=True)
class Facts:
    """The report of one exploration as plain data, or ``error`` if there is not a report."""

    outcomes: tuple[dict[str, Any], ...] = ()
    """Each with ``state`` (text), ``verdict``, and ``step``, ``component``, ``detail``, ``error``, None where there is none.

    ``follows`` is the state whose run decided it, None if this state was run itself; ``verified`` and ``ended_early`` tell of its own run.
    """
    groups: tuple[tuple[str, str], ...] = ()
    """The verdict and the first cause of each group of the report."""
    states: int = 0
    steps: int = 0
    max_lost_steps: int | None = None
    not_recovered: str | None = None
    """What ``assert_recovers(max_lost_steps=...)`` raised."""
    seconds: float = 0.0
    """Of the exploration alone; imports are not in it."""
    report: str = ""
    error: str | None = None

    @property
    def counts(self) -> Counter[str]:
        """How many states got each verdict."""
        return Counter(outcome["verdict"] for outcome in self.outcomes)

    @property
    def cause(self) -> str | None:
        """The component of the first divergence, in the order of states."""
        return next(
            (outcome["component"] for outcome in self.outcomes if outcome["component"] is not None),
            None,
        )

    @property
    def skipped(self) -> int:
        """Return how many states were not run, because their outcomes follow from others."""
        return sum(outcome.get("follows") is not None for outcome in self.outcomes)

    @property
    def run(self) -> int:
        """Return how many states were run."""
        return len(self.outcomes) - self.skipped

    @property
    def verified(self) -> int:
        """Return how many states were run to check that their outcomes follow from others."""
        return sum(bool(outcome.get("verified")) for outcome in self.outcomes)

    @property
    def ended_early(self) -> int:
        """Return how many runs ended at the horizon."""
        return sum(
            bool(outcome.get("ended_early"))
            for outcome in self.outcomes
            if outcome.get("follows") is None
        )

    def __str__(self) -> str:
        counts = self.counts
        return ", ".join(
            f"{counts[verdict]} {verdict}"
            for verdict in (*VERDICTS, *(counts.keys() - set(VERDICTS)))
            if counts[verdict]
        )


def problems(program: Program, facts: Facts) -> list[str]:
    """In words, what is not as expected; nothing if all is."""
    if facts.error is not None:
        return [facts.error]
    if not facts.outcomes:
        return ["no crash state was explored"]
    if program.sound:
        return _of_a_sound_one(facts)
    if program.find == (LOST_WORK,):
        return _of_lost_work(facts)
    return _of_an_unsound_one(program, facts)


def _flagged(facts: Facts) -> list[str]:
    """The states that did not recover; three at most, and how many more."""
    bad = [outcome for outcome in facts.outcomes if outcome["verdict"] != "recovered"]
    lines = [
        f"{outcome['state']}: {outcome['verdict']}: {outcome['error'] or (outcome['step'], outcome['component'], outcome['detail'])}"
        for outcome in bad[:3]
    ]
    return lines + (
        [f"and {len(bad) - 3} more states that did not recover"] if len(bad) > 3 else []
    )


def _of_a_sound_one(facts: Facts) -> list[str]:
    """A false alarm is the worst that can be."""
    return _flagged(facts) or ([facts.not_recovered] if facts.not_recovered else [])


def _of_lost_work(facts: Facts) -> list[str]:
    """It recovers from everywhere, but not within so many steps."""
    if flagged := _flagged(facts):
        return flagged
    return (
        []
        if facts.not_recovered
        else [
            f"assert_recovers(max_lost_steps=...) passes: at most {facts.max_lost_steps} steps are lost"
        ]
    )


def _of_an_unsound_one(program: Program, facts: Facts) -> list[str]:
    """The bug is found, assert_recovers() fails, and the first divergence names the cause."""
    wrong = []
    if not any(facts.counts[verdict] for verdict in program.find):
        wrong.append(f"no state is {' or '.join(program.find)}: {facts}")
    if not facts.not_recovered:
        wrong.append("assert_recovers() passes")
    if program.cause and facts.cause not in program.cause:
        wrong.append(f"the first divergence is {facts.cause}, not {' or '.join(program.cause)}")
    return wrong


def differences(facts: Facts, exhaustive: Facts) -> list[str]:
    """In words, what differs if each state is run to its end; nothing if the two reports agree."""
    if facts.error is not None or exhaustive.error is not None:
        return [] if exhaustive.error is None else [f"exhaustive: {exhaustive.error}"]
    lines = [
        f"{mine['state']}: {_in_words(mine)}, but {theirs['verdict']} if all are run"
        for mine, theirs in _pairs(facts, exhaustive)
        if mine["verdict"] != theirs["verdict"]
    ]
    if len(facts.outcomes) < facts.states:
        lines.append(f"{facts.states - len(facts.outcomes)} states were not tried")
    if facts.groups != exhaustive.groups:
        lines.append(f"the causes are {_causes(facts)}, but {_causes(exhaustive)} if all are run")
    if bool(facts.not_recovered) != bool(exhaustive.not_recovered):
        lines.append(
            f"assert_recovers() {'raises' if facts.not_recovered else 'passes'}, but not if all are run"
        )
    return lines


def unpaired(facts: Facts, exhaustive: Facts) -> int:
    """Return how many states occurred in one of two explorations alone, as the runs without a crash differ."""
    return len(facts.outcomes) + len(exhaustive.outcomes) - 2 * len(_pairs(facts, exhaustive))


def _pairs(facts: Facts, exhaustive: Facts) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The outcomes of the same states. Those with random names are paired in order, if they are equally many."""
    theirs = {outcome["state"]: outcome for outcome in exhaustive.outcomes}
    pairs = [
        (outcome, theirs.pop(outcome["state"]))
        for outcome in facts.outcomes
        if outcome["state"] in theirs
    ]
    named = {outcome["state"] for outcome, _ in pairs}
    rest = [outcome for outcome in facts.outcomes if outcome["state"] not in named]
    if len(rest) == len(theirs):
        pairs += zip(rest, theirs.values(), strict=True)
    return pairs


def _in_words(outcome: dict[str, Any]) -> str:
    """An outcome, and how it was found."""
    if outcome.get("follows") is not None:
        return f"{outcome['verdict']} (not run, as {outcome['follows']})"
    return f"{outcome['verdict']}{' (ended early)' if outcome.get('ended_early') else ''}"


def _causes(facts: Facts) -> str:
    """The groups of a report."""
    return ", ".join(f"{verdict} ({cause})" for verdict, cause in facts.groups) or "none"
