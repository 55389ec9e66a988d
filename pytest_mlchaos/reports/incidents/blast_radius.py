"""Tell how far a failure reached: what was struck, and what else was harmed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ...core.entries import (
    Exploration,
    FederationRound,
    Rank,
    Requests,
    ResultEntry,
    State,
    StrikeEntry,
)
from ...core.validation import count_text
from ..journal_reader import TestLog
from .timeline import failing_trial

__all__ = ["blast_radius"]

SHOWN_THINGS = 8


def blast_radius(test: TestLog) -> Iterator[str]:
    """Yield an item of a list for each kind of thing that a fault or its effect reached."""
    trial = failing_trial(test)
    yield from _struck(test, trial)
    yield from _work(test, trial)
    yield from _requests(test, trial)
    yield from _ranks(test, trial)
    yield from _states(test, trial)


def _struck(test: TestLog, trial: int) -> Iterator[str]:
    strikes = test.all(StrikeEntry, trial)
    sites = Counter(one.site for one in strikes)
    if sites:
        yield f"- struck: {_named(sites, 'time')}"
    for name, title in (("path", "files"), ("target", "functions"), ("rank", "ranks")):
        things = Counter(str(one.details[name]) for one in strikes if name in one.details)
        if things:
            yield f"- {title} that were struck: {_named(things, 'time')}"


def _named(counts: Counter[str], noun: str) -> str:
    shown = ", ".join(
        f"`{name}` ({count_text(count, noun)})"
        for name, count in sorted(counts.items())[:SHOWN_THINGS]
    )
    more = len(counts) - SHOWN_THINGS
    return f"{shown}, and {more} more" if more > 0 else shown


def _work(test: TestLog, trial: int) -> Iterator[str]:
    for result in test.all(ResultEntry, trial):
        if len(result.attempts) > 1:
            yield f"- {result.method}: {count_text(len(result.attempts) - 1, 'restart')}"
    for one in test.all(FederationRound, trial):
        if one.failed or one.restarted:
            failed = f"{count_text(len(one.failed), 'client')} failed" if one.failed else ""
            again = "the server died and the round was repeated" if one.restarted else ""
            yield f"- round {one.number}: {' and '.join(filter(None, [failed, again]))}"


def _requests(test: TestLog, trial: int) -> Iterator[str]:
    for load in test.all(Requests, trial):
        total = len(load.starts or load.latencies)
        bystanders = len(set(load.failed) - set(load.struck))
        of_all = (
            f"{len(load.failed)} of {count_text(total, 'request')}"
            if total
            else (count_text(len(load.failed), "request"))
        )
        if load.failed:
            yield f"- requests: {of_all} failed. No fault struck {bystanders} of these"


def _ranks(test: TestLog, trial: int) -> Iterator[str]:
    ranks = Counter(one.outcome for one in test.all(Rank, trial))
    if ranks:
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(ranks.items()))
        yield f"- ranks: {told}"


def _states(test: TestLog, trial: int) -> Iterator[str]:
    for one in test.all(Exploration, trial):
        bad = [state for state in test.all(State, trial) if state.verdict != "recovered"]
        files = Counter(state.path for state in bad if state.path)
        where = f", at {_named(files, 'state')}" if files else ""
        yield f"- crash states: {one.bad} of {one.tried} do not recover{where}"
        if one.measured:
            yield f"- lost work: at most {count_text(one.max_lost_steps, 'step')}"
