"""Derive the content of a test's section: plain data for the templates."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence

from ...core.entries import (
    Curve,
    Exploration,
    Judgement,
    Point,
    Rank,
    Requests,
    ResultEntry,
    State,
    StrikeEntry,
    Trial,
)
from ...core.validation import count_text
from ..journal_reader import TestLog
from .figures import (
    Figure,
    Strip,
    crash_figure,
    fault_name,
    rank_figure,
    request_kinds,
    strip_of,
    timeline,
    visit_map,
)
from .limits import latency_bounds

__all__ = ["OUTCOMES", "Group", "Judged", "Load", "Losses", "TestView", "seconds_text"]

OUTCOMES = ("failed", "inconclusive", "interrupted", "running", "passed", "skipped")
"""All outcomes, in the order of the page."""
VERDICTS = ("failed", "inconclusive", "passed")
SHOWN_UNTRIED = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Failures with one cause.

    Attributes:
        verdict: ``failed`` for trials, or the verdict of crash states.
        cause: The error or the divergence in words.
        place: The user's line.
        first: The first of them, or the smallest schedule.
        members: All of them.
    """

    verdict: str
    cause: str
    place: str
    first: str
    members: Sequence[str]

    @property
    def rest(self) -> int:
        """Return the number of failures beside the first."""
        return len(self.members) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """Equal judgements: their verdict, oracle, limits and error as texts, and their number."""

    verdict: str
    oracle: str
    limits: str
    error: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """The requests of one load.

    Attributes:
        requests: The entry, with its times.
        bounds: The limits that judgements named for it.
        rows: The facts, as pairs.
        summary: The load in words.
    """

    requests: Requests
    bounds: Mapping[str, object]
    rows: Sequence[tuple[str, str]]
    summary: str


@dataclasses.dataclass(frozen=True, slots=True)
class Losses:
    """The losses of one run and of its golden run."""

    golden: Curve | None
    run: Curve | None

    @property
    def summary(self) -> str:
        """Return the curves in words."""
        told = [_curve_text(name, curve) for name, curve in self._named() if curve is not None]
        restarts = len(self.run.attempts) - 1 if self.run is not None else 0
        if restarts > 0:
            told.append(f"{count_text(restarts, 'restart')} (dotted)")
        return f"{'. '.join(told)}."

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Return a few values of each curve, evenly spaced."""
        return [
            (name, *(_loss_text(curve.values[x]) for x in _five(len(curve.values))))
            for name, curve in self._named()
            if curve is not None and curve.values
        ]

    def _named(self) -> tuple[tuple[str, Curve | None], ...]:
        return ("Golden run", self.golden), ("This run", self.run)


@dataclasses.dataclass(frozen=True)
class TestView:
    """One test."""

    log: TestLog

    @functools.cached_property
    def id(self) -> str:
        """Return an id for links."""
        return f"t{hashlib.sha256(self.log.nodeid.encode()).hexdigest()[:10]}"

    @property
    def name(self) -> str:
        """Return its name without the file."""
        return self.log.nodeid.partition("::")[2] or self.log.nodeid

    @property
    def folder(self) -> str:
        """Return the file in which it is."""
        return self.log.nodeid.partition("::")[0] if "::" in self.log.nodeid else ""

    @functools.cached_property
    def outcome(self) -> str:
        """Return its outcome. A test whose last verdict is inconclusive has an outcome of its own."""
        if self.log.outcome == "failed" and any(
            one.verdict == "inconclusive" for one in self.log.all(Judgement)
        ):
            return "inconclusive"
        return self.log.outcome if self.log.outcome in OUTCOMES else "failed"

    @functools.cached_property
    def failing(self) -> Mapping[int, Trial]:
        """Return the trials that failed."""
        return {
            number: trial for number, trial in self.log.trials.items() if trial.outcome == "failed"
        }

    @functools.cached_property
    def strikes(self) -> int:
        """Return the number of strikes in all trials."""
        return len(self.log.all(StrikeEntry))

    @functools.cached_property
    def states(self) -> Mapping[tuple[int, int], list[State]]:
        """Return the crash states by trial and exploration."""
        found: dict[tuple[int, int], list[State]] = {}
        for line in self.log.lines:
            if isinstance(line.entry, State):
                found.setdefault((line.trial, line.entry.exploration), []).append(line.entry)
        return found

    @functools.cached_property
    def headline(self) -> str:
        """Return the result in one sentence or two."""
        return " ".join(
            [*(_exploration_text(*one) for one in self.explorations), *self._other_headlines()]
        )

    def _other_headlines(self) -> list[str]:
        progress = self.log.progress
        if self.outcome == "running" and progress is not None:
            total = f" of {progress.total}" if progress.total else ""
            note = f", {progress.note}" if progress.note else ""
            return [f"{progress.done}{total} {progress.what} tried, {progress.bad} bad{note}."]
        if self.explorations:
            return []
        trials = len(self.log.trials)
        if trials > 1 and self.failing:
            return [f"{len(self.failing)} of {trials} schedules fail."]
        if trials > 1:
            return [
                f"Passes under {count_text(trials, 'schedule')}, {count_text(self.strikes, 'strike')}."
            ]
        if self.failing:
            trial = next(iter(self.failing.values()))
            return [f"{_cause_of(trial) or 'The trial failed'}."]
        ends = {
            "skipped": "Skipped.",
            "interrupted": "Interrupted.",
            "running": "No trial has ended.",
        }
        if self.outcome in ends:
            return [ends[self.outcome]]
        if self.log.end is not None and self.log.end.error:
            return [f"{self.log.end.error}."]
        return [f"Passes with {count_text(self.strikes, 'strike')}." if self.strikes else "Passes."]

    @functools.cached_property
    def explorations(self) -> list[tuple[Exploration, list[State]]]:
        """Return each exploration with its states. One that never ended is made up from them."""
        ended = {
            (line.trial, line.entry.number): line.entry
            for line in self.log.lines
            if isinstance(line.entry, Exploration)
        }
        found = []
        for trial, number in sorted({*ended, *self.states}):
            states = self.states.get((trial, number), [])
            whole = ended.get((trial, number)) or Exploration(
                number=number,
                states=0,
                tried=len(states),
                bad=sum(state.verdict != "recovered" for state in states),
                interrupted=True,
            )
            found.append((whole, states))
        return found

    @functools.cached_property
    def seconds(self) -> float | None:
        """Return how long the test took."""
        return self.log.seconds("test")

    @property
    def strip(self) -> Strip | None:
        """Return everything that was tried, as cells."""
        kinds = [state.verdict for states in self.states.values() for state in states]
        if len(kinds) < 2 and len(self.log.trials) > 1:
            kinds = [trial.outcome for _, trial in sorted(self.log.trials.items())]
        loads = self.loads
        if len(kinds) < 2 and loads:
            limits = latency_bounds(loads[0].bounds).values()
            kinds = request_kinds(loads[0].requests, min(limits, default=math.inf))
        ranks = self.log.all(Rank)
        if len(kinds) < 2 and ranks:
            kinds = [rank.outcome for rank in ranks]
        return strip_of(
            [{"recovered": "passed", "finished": "passed"}.get(one, one) for one in kinds]
        )

    @property
    def faults(self) -> list[str]:
        """Return the names of its faults, declared or struck."""
        declared = self.log.end.faults if self.log.end is not None else ()
        return sorted(
            {fault_name(fault) for fault in declared}
            | {fault_name(strike.fault) for strike in self.log.all(StrikeEntry)}
        )

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Return the facts of the test, as pairs."""
        end = self.log.end
        rows: list[tuple[str, str]] = []
        if end is not None and end.faults:
            rows.append(
                ("Declared faults", ", ".join(one.removesuffix("()") for one in end.faults))
            )
        if self.log.trials:
            rows.append(("Trials", f"{len(self.log.trials):,}, {len(self.failing):,} failed"))
        if self.strikes:
            rows.append(("Strikes", f"{self.strikes:,}"))
        if self.seconds is not None:
            rows.append(("Duration", seconds_text(self.seconds)))
        if end is not None and end.file:
            rows.append(("Test", f"{end.file}:{end.line}"))
        if end is not None and end.place:
            rows.append(("First cause at", end.place))
        if end is not None and end.real_clock:
            rows.append(("Clock", "real, because threads or processes run beside the test"))
        if end is not None and end.untried:
            more = (
                f" and {len(end.untried) - SHOWN_UNTRIED} more"
                if len(end.untried) > SHOWN_UNTRIED
                else ""
            )
            rows.append(("Not tried", ", ".join(end.untried[:SHOWN_UNTRIED]) + more))
        for exploration, _ in self.explorations:
            rows += [("Left out", exploration.left_out)] if exploration.left_out else []
            rows += [("Note", note) for note in exploration.notes]
        return rows

    @property
    def judgements(self) -> list[Judged]:
        """Return the distinct judgements with their counts. Failures come first."""
        counts: dict[str, tuple[Judgement, int]] = {}
        for one in self.log.all(Judgement):
            key = repr(dataclasses.replace(one, result=None))
            counts[key] = (one, counts.get(key, (one, 0))[1] + 1)
        return sorted(
            (
                Judged(
                    one.verdict,
                    one.oracle,
                    ", ".join(f"{name}={value}" for name, value in sorted(one.arguments.items())),
                    one.error,
                    count,
                )
                for one, count in counts.values()
            ),
            key=lambda one: (
                VERDICTS.index(one.verdict) if one.verdict in VERDICTS else 0,
                one.oracle,
                one.limits,
                one.error,
            ),
        )

    @functools.cached_property
    def divergence(self) -> str:
        """Return the first divergence in words, or an empty text."""
        named = [
            (state.divergence_step, state.component)
            for states in self.states.values()
            for state in states
            if state.component or state.divergence_step is not None
        ]
        if not named:
            return ""
        step, component = min(named, key=lambda one: (one[0] is None, one[0] or 0, one[1]))
        where = f"step {step}" if step is not None else "an unknown step"
        return f"{where}: {component}" if component else where

    @property
    def groups(self) -> list[Group]:
        """Return the failing trials and crash states, grouped by cause. None is left out.

        The failure of a single trial is in the report of the test.
        """
        found: dict[tuple[str, str, str], list[tuple[tuple[int, int, str], str]]] = {}
        for states in self.states.values():
            for state in states:
                if state.verdict != "recovered":
                    key = (state.verdict, state.cause or state.component, state.place)
                    text = f"{state.state}  {state.what}" if state.what else state.state
                    found.setdefault(key, []).append(((0, state.step, ""), text))
        if not self.states and len(self.log.trials) > 1:
            for number, trial in sorted(self.failing.items()):
                key = ("failed", _cause_of(trial), trial.place)
                size = (trial.schedule.count("("), len(trial.schedule), trial.schedule)
                text = trial.schedule or "without faults"
                found.setdefault(key, []).append((size, f"{text}  (trial {number})"))
        groups = [
            Group(
                verdict,
                cause or "no cause was recorded",
                place,
                min(members)[1],
                [text for _, text in members],
            )
            for (verdict, cause, place), members in found.items()
        ]
        return sorted(
            groups, key=lambda one: (-len(one.members), one.verdict, one.cause, one.place)
        )

    @functools.cached_property
    def shown_trial(self) -> int:
        """Return the number of the trial that the figures show, or 0.

        It is the last failing one, because a search repeats the smallest failing schedule at its
        end. Without a failure, it is the one with the most strikes.
        """
        if self.failing:
            return max(self.failing)
        counts: dict[int, int] = dict.fromkeys(self.log.trials, 0)
        for line in self.log.lines:
            if isinstance(line.entry, StrikeEntry) and line.trial in counts:
                counts[line.trial] += 1
        return max(counts, key=lambda number: (counts[number], -number), default=0)

    @property
    def timeline(self) -> Figure | None:
        """Return the timeline of the trial to show."""
        number = self.shown_trial
        trial = self.log.trials.get(number)
        if trial is None or not (trial.visits or self.log.all(StrikeEntry, number)):
            return None
        return timeline(trial, self.log.all(ResultEntry, number), self.log.all(StrikeEntry, number))

    @property
    def crash_figures(self) -> list[Figure]:
        """Return the figure of each exploration."""
        return [crash_figure(whole, states) for whole, states in self.explorations if states]

    @property
    def visit_map(self) -> Figure | None:
        """Return where a search tried its faults. None for a single trial."""
        if len(self.log.trials) < 2:
            return None
        strikes = [
            (line.entry, line.trial in self.failing)
            for line in self.log.lines
            if isinstance(line.entry, StrikeEntry)
        ]
        visits: dict[str, int] = {}
        for trial in self.log.trials.values():
            for site, count in trial.visits.items():
                visits[site] = max(count, visits.get(site, 0))
        return visit_map(strikes, visits)

    @property
    def worlds(self) -> list[Figure]:
        """Return the figure of each world of the trial to show."""
        number = self.shown_trial
        ranks: dict[int, list[Rank]] = {}
        for rank in self.log.all(Rank, number):
            ranks.setdefault(rank.result, []).append(rank)
        strikes = self.log.all(StrikeEntry, number)
        return [
            rank_figure(sorted(some, key=lambda one: one.rank), strikes)
            for _, some in sorted(ranks.items())
        ]

    @property
    def losses(self) -> list[Losses]:
        """Return the curves of the trial to show, for each run."""
        number = self.shown_trial or min(
            (line.trial for line in self.log.lines if isinstance(line.entry, Curve)), default=0
        )
        curves = [one for one in self.log.all(Curve, number) if one.values]
        return [
            Losses(
                next((one for one in curves if one.result == result and one.golden), None),
                next((one for one in curves if one.result == result and not one.golden), None),
            )
            for result in sorted({one.result for one in curves})
        ]

    @functools.cached_property
    def loads(self) -> list[Load]:
        """Return the loads of the trial to show."""
        number = self.shown_trial
        return [_load(self.log, number, one) for one in self.log.all(Requests, number)]

    @property
    def points(self) -> list[Point]:
        """Return the points that it reached, or had to reach."""
        return sorted(set(self.log.all(Point)), key=lambda one: (one.name, one.place))


def _cause_of(trial: Trial) -> str:
    """Return the cause without the place, which is shown beside it."""
    cause = trial.cause.removesuffix(f" ({trial.place})").rstrip(":")
    if not cause.startswith(trial.error):
        cause = f"{trial.error}: {cause}" if cause else trial.error
    return cause


def _exploration_text(whole: Exploration, states: Sequence[State]) -> str:
    tried = max(whole.tried, len(states))
    total = max(whole.states, tried)
    if whole.interrupted:
        of = f" of {total}" if total > tried else ""
        return f"Ended after {tried}{of} crash states, {whole.bad} bad."
    lost = f" Loses at most {count_text(whole.max_lost_steps, 'step')}." if whole.measured else ""
    of = (
        f"the {tried} crash states tried of {total}"
        if tried < total
        else f"all {count_text(total, 'crash state')}"
    )
    if whole.bad:
        return f"{whole.bad} of {count_text(tried, 'crash state')} do not recover.{lost}"
    return f"Recovers from {of}.{lost}"


def _load(log: TestLog, trial: int, requests: Requests) -> Load:
    timing = log.timing("requests", trial, requests.result)
    if not requests.latencies and timing is not None:
        requests = dataclasses.replace(requests, starts=timing.starts, latencies=timing.latencies)
    latencies = sorted(requests.latencies)
    count = len(latencies)
    rows = [("Requests", f"{count:,}"), ("Struck", f"{len(requests.struck):,}")]
    share = f" ({len(requests.failed) / count:.1%})" if count else ""
    rows.append(("Failed", f"{len(requests.failed):,}{share}"))
    if count:
        rows += [
            (name, seconds_text(latencies[min(count - 1, max(0, -(-int(q * count) // 1000) - 1))]))
            for name, q in (("p50", 500), ("p95", 950), ("p99", 990), ("max", 1000))
        ]
    if requests.struck:
        back = log.recovery_time(trial, requests.result)
        if back is not None:
            rows.append(("Time to recovery", seconds_text(back)))
    bounds = {
        name: limit
        for one in log.all(Judgement, trial)
        if one.result == requests.result
        for name, limit in sorted(one.arguments.items())
    }
    rows += [(f"Limit: {name}", str(limit)) for name, limit in bounds.items()]
    summary = (
        f"{count_text(count, 'request')}, {len(requests.struck)} struck, {len(requests.failed)} failed. "
        + ("Dashed lines are the bounds of the SLO." if bounds else "")
    )
    return Load(requests, bounds, rows, summary.strip())


def _curve_text(name: str, curve: Curve) -> str:
    wrong = sum(value is None for value in curve.values)
    known = [value for value in curve.values if value is not None]
    ends = f"{_loss_text(known[0])} to {_loss_text(known[-1])}" if known else "no finite loss"
    return f"{name}: {ends}" + (f", {count_text(wrong, 'value')} not finite" if wrong else "")


def _loss_text(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _five(count: int) -> list[int]:
    """Return five evenly spaced positions, the first and the last among them."""
    return [part * (count - 1) // 4 for part in range(5)]


def seconds_text(seconds: float) -> str:
    """Return a duration as people write it."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
