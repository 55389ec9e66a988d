"""Supervise a world of ranks from the parent process: its attempts and its golden run."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

# Imported by name, so that a virtual clock of the test's code does not reach it.
from time import monotonic, time
from typing import Any

from ..core.journal import Strike
from ..core.records import Attempt, Launched, RankRecord, WorldRecord
from ..core.schedule import Schedule
from ..engine.controller import Controller
from ..engine.counters import ProcessCounts
from ..engine.fresh_starts import site_modules
from ..engine.process_state import ProcessState
from ..engine.remote_state import merge_into
from ..engine.subjects import subject_runs
from ..errors import BadArgument, GoldenRunFailed, MlchaosError
from ..processes.child import Start
from ..processes.fork_server import ForkServer
from ..processes.subject_pickling import dumps, same_files
from ..runs.supervisor import Watch, check_subject, last_strike
from ..runs.workdirs import WorkDirs
from .attempt import RankAttempt, start_ranks
from .elastic.group import ElasticGroup, start_nodes
from .elastic.options import ElasticOptions, check_lost
from .golden_worlds import find_golden, golden_key, keep_golden, subject_key
from .links.real import check_real, is_real
from .rank import RankJob
from .rank_view import Rank

__all__ = ["RankOptions", "WorldSupervisor"]

LOADER_SECONDS = 6.0
"""A worker of a loader notices after 5 seconds that the process that it works for has died."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankOptions:
    """The options of a world. See ``mlchaos.world``."""

    ranks: int
    backend: str
    restarts: int
    timeout: float
    grace: float
    nodes: ElasticOptions | None = None


class WorldSupervisor:
    """Run one subject in a world of ranks: its attempts, and its golden run."""

    def __init__(
        self,
        server: ForkServer,
        controller: Controller,
        options: RankOptions,
        subject: Callable[..., Any],
        args: tuple[Any, ...],
        disk: WorkDirs,
        watch: Watch,
    ) -> None:
        check_subject(subject, "world.run")
        # in the subject of a different run, nothing strikes
        self._schedule = controller.schedule if controller.scheduled else Schedule()
        _check_faults(controller, options)
        self._server = server
        self._controller = controller
        self._options = options
        self._watch = watch
        self._disk = disk
        self._resumed: dict[int, ProcessCounts] = {}
        with controller.without_faults():  # a call by the tool itself does not count as a visit
            self._given = _pickle_subject(subject, args)
            self._golden_subject = (
                subject_key(subject, args, disk) if controller.kept is not None else b""
            )
            self._process_state = ProcessState()
            self._start = Start.here()

    def run(self) -> WorldRecord:
        """Run attempts until no rank fails by itself, or until no restart is left."""
        with subject_runs(self._controller, self._disk.roots) as begin:
            return self._run(begin)

    def _run(self, begin: Callable[[], None]) -> WorldRecord:
        controller, options = self._controller, self._options
        self._resumed = copy.deepcopy(controller.elsewhere)
        first_strike, start = len(controller.journal), monotonic()
        attempts: list[Attempt] = []
        ended_by: list[str] = []
        groups: list[RankAttempt] = []
        controller.may_restart(options.restarts)
        for group in self._attempts(
            self._schedule, controller.elsewhere, begin, broken_off=self._take_events
        ):
            for rank in group.ranks:
                _merge(controller, rank)
            _end_link_faults(self._schedule, controller.elsewhere, group)
            _check_where(controller, group)
            attempts.append(_told(group))
            ended_by.append(_ended_by(group))
            groups.append(group)
        record = _record(
            group, options, tuple(attempts), controller.journal[first_strike:], monotonic() - start
        )
        return dataclasses.replace(
            record,
            ended_by=tuple(ended_by),
            earlier=tuple(map(_launched, groups[:-1])) if controller.records_collectives else (),
            recovery_time=_recovery_time(groups),
            orphans=_orphans(groups) if controller.judges_orphans else None,
        )

    def _take_events(self, group: RankAttempt) -> None:
        """Merge the events of an attempt that is broken off. It may have been struck."""
        for rank in group.ranks:
            merge_into(self._controller, rank, rank.number, ended=False)

    def golden(self, *, fresh: bool = False) -> WorldRecord:
        """Return the same world without faults, from the same start.

        It leaves no trace in the trial. A golden world of an earlier trial of the test is used
        again if it had the same start, unless ``fresh`` is True.
        """
        with self._controller.without_faults():  # a call by the tool itself is not a visit
            key, kept = self._golden_key, self._controller.kept
            known = None if fresh or kept is None else find_golden(kept, key, self._disk.roots)
        if known is not None:
            return known
        record, ranks = self._run_golden()
        if record.unfinished is not None:
            raise _golden_failure(record, record.unfinished)
        if kept is not None:
            keep_golden(kept, key, record, ranks, self._disk.roots)
        return record

    def check_undisturbed(self, most: float) -> None:
        """Raise ``GoldenRunFailed`` if the world fails without faults, too.

        Return if it does not, or if that is not known after ``most`` seconds.
        """
        with self._controller.without_faults():
            key, kept = self._golden_key, self._controller.kept
            if kept is not None and find_golden(kept, key, self._disk.roots) is not None:
                return
        record, ranks = self._run_golden(most)
        rank = record.unfinished
        if rank is None:
            if kept is not None:
                keep_golden(kept, key, record, ranks, self._disk.roots)
        elif rank.outcome != "hung" or most >= self._options.timeout:
            raise _golden_failure(record, rank)

    @functools.cached_property
    def _golden_key(self) -> bytes:
        """Return a digest of everything that the golden world depends on."""
        controller = self._controller
        return golden_key(
            (self._options, self._start, same_files().files, controller.own),
            self._golden_subject,
            self._disk,
        )

    def _run_golden(self, most: float = math.inf) -> tuple[WorldRecord, list[Rank]]:
        start = monotonic()
        with self._controller.without_faults(), ProcessState(), self._disk.as_at_the_start():
            self._process_state.restore()
            *_, group = self._attempts(Schedule(), {}, once=True, most=most)
        record = _record(group, self._options, (_told(group),), (), monotonic() - start)
        return record, group.ranks

    def undisturbed(self) -> WorldRecord:
        """Run one attempt without faults, and print nothing. It leaves no trace in the trial."""
        start = monotonic()
        with self._controller.without_faults():
            *_, group = self._attempts(Schedule(), {}, once=True, watch=_watch_nothing)
        return _record(group, self._options, (_told(group),), (), monotonic() - start)

    def once_more(self, watch: Watch, *, faults: bool, most: float) -> WorldRecord | None:
        """Run the same world from the same start with a different watch. Print nothing.

        ``faults`` is True to let the trial's faults strike. ``most`` is the time limit for an
        attempt. Return None if the world could not be run. It leaves no trace in the trial.
        """
        schedule, start = self._schedule if faults else Schedule(), monotonic()
        counts_of = copy.deepcopy(self._resumed) if faults else {}
        attempts: list[Attempt] = []
        strikes: list[Strike] = []
        with (
            contextlib.suppress(MlchaosError),
            self._controller.without_faults(),
            ProcessState(),
            self._disk.as_at_the_start(),
        ):
            self._process_state.restore()
            for group in self._attempts(
                schedule, counts_of, once=not faults, watch=watch, most=most
            ):
                for rank in group.ranks:
                    strikes += [strike.of_rank(rank.number) for _, strike in rank.strikes]
                    _count_on(counts_of, rank)
                _end_link_faults(schedule, counts_of, group)
                attempts.append(_told(group))
            return _record(
                group, self._options, tuple(attempts), tuple(strikes), monotonic() - start
            )
        return None

    def _attempts(
        self,
        schedule: Schedule,
        resumed: Mapping[int, ProcessCounts],
        begin: Callable[[], None] = lambda: None,
        *,
        once: bool = False,
        watch: Watch | None = None,
        most: float = math.inf,
        broken_off: Callable[[RankAttempt], object] = lambda group: None,
    ) -> Iterator[RankAttempt]:
        """Run attempts until no rank fails by itself, or until no restart is left.

        Args:
            schedule: The faults.
            resumed: The counts of each rank. The caller adds those of each attempt.
            begin: A function to call before the ranks start.
            once: True to run one attempt.
            watch: Replaces the world's own for a run that is not the test's.
            most: The time limit for an attempt, besides the world's own.
            broken_off: Called with an attempt that an exception ends, for example the trial's time
                limit.
        """
        restarts = 0 if once else self._options.restarts
        timeout = min(self._options.timeout, most)
        if self._options.nodes is not None:
            begin()
            job = self._job(schedule, resumed, watch, 0)
            elastic = self._run_elastic(job, restarts, timeout, echo=watch is None)
            ranks = [rank for attempt in elastic.attempts for rank in attempt.ranks]
            _check_store(elastic, ranks, schedule)
            for attempt in elastic.attempts:
                _check_started(attempt)
                yield attempt
            return
        for number in range(restarts + 1):
            begin()
            last = number == restarts
            # The first start takes seconds, so start here, where an interruption is still possible.
            self._server.start()
            with start_ranks(self._server, self._job(schedule, resumed, watch, number)) as group:
                try:
                    group.watch(timeout, self._options.grace, last=last)
                except BaseException:
                    broken_off(group)
                    raise
            # A run of a different area is one of many.
            soon = watch is _watch_nothing
            learned = [name for rank in group.ranks for name in rank.learned]
            self._server.learn(learned, soon=soon)
            if watch is None:
                group.echo()
            _check_started(group)
            _check_store(group, group.ranks, schedule)
            yield group
            if not any(rank.failed for rank in group.ranks):
                return

    def _run_elastic(
        self, job: RankJob, restarts: int, timeout: float, *, echo: bool
    ) -> ElasticGroup:
        """Run the world under torch's agents, which decide when an attempt ends."""
        assert self._options.nodes is not None
        nodes = dataclasses.replace(self._options.nodes, restarts=restarts, timeout=timeout)
        self._server.start()
        with start_nodes(self._server, job, nodes, _count_on) as group:
            group.watch(timeout, self._options.grace)
        if echo:
            group.echo()
        if group.error is None and not group.attempts:
            group.error = group.why_not()
        if group.error is not None:
            raise MlchaosError(f"world.run: the ranks could not be run to their end: {group.error}")
        return group

    def _job(
        self,
        schedule: Schedule,
        resumed: Mapping[int, ProcessCounts],
        watch: Watch | None,
        number: int,
    ) -> RankJob:
        """Return the job of the ranks in attempt ``number``."""
        controller, options = self._controller, self._options
        judges_orphans = controller.judges_orphans and watch is None
        real = any(map(is_real, schedule.faults))
        return RankJob(
            ranks=options.ranks,
            payload=self._given,
            schedule=_packed_schedule(schedule, watch or self._watch),
            port=0,
            own_store=any(fault.needs_own_store for fault in schedule.faults),
            backend=options.backend,
            start=Start.here(),
            files=same_files(),
            sites=site_modules(),
            own=controller.own,
            probing=controller.probing and bool(schedule.faults),
            attempt=number,
            restarts=options.restarts,
            orphan_grace=options.grace + LOADER_SECONDS if judges_orphans else None,
            records_steps=controller.records_steps and watch is None,
            records_collectives=controller.records_collectives,
            resumed=dict(resumed),
            links=any(fault.on_links for fault in schedule.faults) and not real,
            real_links=real,
        )


@contextlib.contextmanager
def _watch_nothing() -> Iterator[Callable[[], tuple[()]]]:
    """Replace the watch of a run whose parameters are not needed."""
    yield lambda: ()


def _pickle_subject(subject: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    try:
        return dumps((subject, args))
    except BadArgument as error:
        name = getattr(subject, "__qualname__", type(subject).__name__)
        raise BadArgument(
            f"world.run: {name} and its arguments cannot be sent to the processes of the ranks: "
            f"{error}"
        ) from None


def _packed_schedule(schedule: Schedule, watch: Watch) -> bytes:
    try:
        return dumps((schedule.without_strategies(), watch))
    except BadArgument as error:
        raise BadArgument(
            f"world.run: the faults (perhaps where=) cannot be sent to the processes of the ranks: "
            f"{error}"
        ) from None


def _golden_failure(record: WorldRecord, rank: RankRecord) -> GoldenRunFailed:
    """Return the error about a world that fails without faults."""
    lines = [f"  rank {each.rank}: {each.steps} steps, then {each.ended}" for each in record.ranks]
    about = f"the subject fails without any fault: rank {rank.rank} {rank.ended}"
    error = GoldenRunFailed("\n".join([about, *lines]))
    error.__cause__ = rank.load_error()
    return error


def _told(group: RankAttempt) -> Attempt:
    """Return what is told about an attempt that has ended."""
    ranks = group.ranks
    seconds = max(rank.left for rank in ranks) - group.start
    start = time() - (monotonic() - group.start)
    return Attempt(group.ended, max(rank.steps for rank in ranks), start, seconds, len(ranks))


def _check_started(group: RankAttempt) -> None:
    """Raise an error if a rank did not reach the subject. That is not a verdict on the subject."""
    if group.error is not None:
        what = "run to their end" if any(rank.started for rank in group.ranks) else "started"
        raise MlchaosError(f"world.run: the ranks could not be {what}: {group.error}")
    for rank in group.ranks:
        if rank.unusable is not None:
            raise BadArgument(f"world.run: {rank.unusable}")
        if rank.failed and not rank.started and rank.number not in group.lost:
            raise MlchaosError(
                f"world.run: rank {rank.number} could not be started: "
                f"{rank.text('stderr').strip().rpartition(chr(10))[2]}"
            )


def _check_store(group: RankAttempt, ranks: Sequence[Rank], schedule: Schedule) -> None:
    """Raise an error if ranks failed after their store ended without a fault.

    That is not a verdict on the subject.
    """
    struck = {index for rank in ranks for index, _ in rank.strikes}
    if (
        group.store_ended
        and any(rank.outcome != "finished" for rank in group.ranks)
        and not any(schedule.faults[index].needs_own_store for index in struck)
    ):
        raise MlchaosError(
            "world.run: the ranks could not be run to their end: the process of their store has "
            "ended. Was it killed?"
        )


def _check_faults(controller: Controller, options: RankOptions) -> None:
    """Raise ``BadArgument`` for a backend without links. A fault may fit a different world."""
    for scheduled in controller.scheduled:
        fault = scheduled.fault
        scheduled.meet_world(options.ranks)
        if fault.on_links and options.backend != "gloo":
            raise BadArgument(
                f"{fault.name}: it disturbs links between ranks, which needs backend='gloo', but "
                f"this world has backend={options.backend!r}"
            )
        if is_real(fault):
            check_real(fault.name, controller.schedule.faults, is_elastic=options.nodes is not None)
        if fault.needs_nodes:
            check_lost(fault.name, getattr(fault, "lost_ranks", ()), options.ranks, options.nodes)


def _merge(controller: Controller, rank: Rank) -> None:
    """Take over the events of a rank.

    Call this in the order of the ranks, so that the journal depends on the schedule alone.
    """
    merge_into(controller, rank, rank.number)
    _count_on(controller.elsewhere, rank)


def _count_on(counts_of: dict[int, ProcessCounts], rank: Rank) -> None:
    """Add the visits of a rank and its strikes."""
    told = rank.counts()
    counts = counts_of.setdefault(rank.number, ProcessCounts())
    counts.passed.update(told.passed)
    for place, times in told.struck.items():
        counts.struck[place] = counts.struck.get(place, 0) + times


def _end_link_faults(
    schedule: Schedule, counts_of: dict[int, ProcessCounts], group: RankAttempt
) -> None:
    """Let no rank begin in the next attempt what a fault of links has done in this one.

    Each rank disturbs what it sends from its own visit on, and may have failed before it.
    """
    for number, fault in enumerate(schedule.faults):
        struck = [
            strike.visit
            for rank in group.ranks
            for index, strike in rank.strikes
            if index == number
        ]
        if fault.on_links and struck:
            for rank in group.ranks:
                passed = counts_of.setdefault(rank.number, ProcessCounts()).passed
                passed[fault.key] = max(passed.get(fault.key, 0), max(struck) + 1)


def _check_where(controller: Controller, group: RankAttempt) -> None:
    """Raise an error if a predicate gives different answers in different ranks.

    A schedule from a search names only visits, so these must exist in all ranks.
    """
    for scheduled in controller.scheduled if controller.probing else ():
        if scheduled.fault.where is None or scheduled.fault.is_pinned:
            continue
        for one in group.ranks:
            for other in group.ranks:
                common = min(rank.passed.get(scheduled.fault.key, 0) for rank in (one, other))
                held = [
                    [visit for visit in rank.eligible.get(scheduled.index, []) if visit < common]
                    for rank in (one, other)
                ]
                if held[0] != held[1]:
                    raise BadArgument(
                        f"{scheduled.fault.name}: where= is true in some ranks only, so its visits "
                        f"cannot be searched. "
                        "Choose the rank with rank=, or pin the visits with at="
                    )


def _ended_by(group: RankAttempt) -> str:
    """Return the fault that struck the rank that failed first, or else one that struck a different
    rank.

    Return "" if no rank failed, or if no fault struck.
    """
    if group.failure is None:
        return ""
    ranks = [group.ranks[group.failure[1]], *group.ranks]
    return next(
        (last_strike([strike for _, strike in rank.strikes]) for rank in ranks if rank.strikes), ""
    )


def _launched(group: RankAttempt) -> tuple[Launched, ...]:
    return tuple(
        Launched(rank.number, rank.outcome or "hung", rank.collectives) for rank in group.ranks
    )


def _recovery_time(groups: Sequence[RankAttempt]) -> float | None:
    """Return the longest time from a failure to the next step of all ranks, or None without one."""
    times = []
    for number, group in enumerate(groups):
        if group.failure is None:
            continue
        for following in groups[number + 1 :]:
            stepped = [rank.stepped for rank in following.ranks]
            if None not in stepped:
                times.append(max(time for time in stepped if time is not None) - group.failure[0])
                break
    return max(times, default=None)


def _orphans(groups: Sequence[RankAttempt]) -> tuple[str, ...]:
    """Describe the processes that ranks left running."""
    found = []
    for number, group in enumerate(groups, 1):
        which = f" of attempt {number}" if len(groups) > 1 else ""
        for left in group.left:
            whose = "a rank" if left.rank is None else f"rank {left.rank}"
            found.append(f"{whose}{which} left a process running: {left.name}")
    return tuple(found)


def _lag(rank: Rank, failure: float) -> float:
    """Return the seconds that a rank went on after the first failure, without a fault's delay."""
    return rank.left - max(failure, min(rank.delayed_until, rank.left))


def _record(
    group: RankAttempt,
    options: RankOptions,
    attempts: tuple[Attempt, ...],
    faults: tuple[Strike, ...],
    duration: float,
) -> WorldRecord:
    struck = min((rank.struck for rank in group.ranks if rank.struck is not None), default=None)
    ranks = tuple(
        RankRecord(
            rank=rank.number,
            outcome=rank.outcome or "hung",
            ended=rank.ended,
            exitcode=None if rank.outcome in ("hung", "halted", "stopped") else rank.exitcode,
            duration=rank.left - group.start,
            lag=None if group.failure is None else _lag(rank, group.failure[0]),
            steps=rank.steps,
            joining=rank.joining,
            joined=rank.joined,
            faults=tuple(strike.of_rank(rank.number) for _, strike in rank.strikes),
            stack=rank.stack,
            output=rank.output,
            load_value=rank.load_value,
            load_error=rank.load_error,
            load_parameters=rank.load_parameters,
            load_not_finite=rank.load_not_finite,
            collectives=rank.collectives,
            load_states=rank.load_states,
            after_strike=None if struck is None else rank.left - struck,
        )
        for rank in group.ranks
    )
    first = None if group.failure is None else group.failure[1]
    return WorldRecord(
        ranks=ranks,
        attempts=attempts,
        faults=faults,
        duration=duration,
        first=first,
        grace=options.grace,
        timeout=options.timeout,
        elastic=options.nodes is not None,
    )
