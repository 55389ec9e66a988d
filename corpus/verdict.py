"""Compare the report on a program with its ``expected.toml``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from program import LOST_WORK, VERDICTS, Program

__all__ = ["Facts", "problems"]


@dataclasses.dataclass(frozen=True)
class Facts:
    """The report of one exploration as plain data, or ``error`` if there is not a report."""

    outcomes: tuple[dict[str, Any], ...] = ()
    """Each with ``state`` (text), ``verdict``, and ``step``, ``component``, ``detail``, ``error``, None where there is none."""
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
