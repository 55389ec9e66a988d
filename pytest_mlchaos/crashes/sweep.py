"""Resume from crash states: which ones first, which ones not at all, and until when.

The likely failures come first, one of each kind. A state that looks to a run as an earlier state
did is not run: its outcome follows from that of the earlier one (``observations.py``). A run that
has matched the golden run for long enough ends early (``early_end.py``). A share of both is checked
by complete runs.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from ..core.interrupts import deferred
from ..core.shards import Shard
from ..core.sites import derive_seed
from ..errors import LimitReached
from ..processes.subprocess_runner import fresh_processes
from .baseline import Baseline
from .early_end import EarlyEnd, GoldenSteps, automatic_horizon, golden_steps
from .model import CrashOutcome, CrashState, File, Node, RunResult, Tree, tree_key
from .observations import Observations, contents_of
from .progress import Progress
from .recording.location import LocalDirectory

__all__ = ["ExplorationOptions", "in_order", "kind_of", "resume_all"]

CHECKED_SHARE = 32
"""One in so many of the states that follow from others is run, too, to check that."""
WHOLE_SHARE = 16
"""One in so many of the runs that could end early goes on to its end."""
_DIGITS = re.compile(r"\d+")
_MAKER = re.compile(r"(?:all-at-)?rank(\d+)\S*:")
"""The start of the id of a state that a rank's change has left."""
_AHEAD = re.compile(r"rank\d+-before-rank(\d+):")
"""The start of the id of a state in which a rank is ahead of a late one (``ranks/orders.py``)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplorationOptions:
    """Options of the search.

    Attributes:
        torn_writes: True to include files that are cut while they are written in place.
        power: True to include states after a power loss.
        horizon: The number of matching steps after which a resumed run is ended, ``"auto"`` to
            derive it from the golden run, or None.
        exhaustive: True to run each state, and each to its end.
        max_states: The largest number of states to try, or None.
        seed: Selects the states that are checked.
        depth: The number of crashes in a row.
        only: The id of the only state to try.
        lenient: True if a missing state ``only`` is not an error.
        shard: The shard that this session runs, or None.
        own: The names of the states of the shard: only these are tried. None for all states.
        progress: The phases of the exploration.
        is_over: Returns True after the time budget. No further run is started then.
    """

    torn_writes: bool = True
    power: bool = False
    horizon: int | Literal["auto"] | None = None
    exhaustive: bool = False
    max_states: int | None = None
    seed: int = 0
    depth: int = 1
    only: str | None = None
    lenient: bool = False
    shard: Shard | None = None
    own: frozenset[str] | None = None

    progress: Progress = dataclasses.field(default_factory=Progress)
    is_over: Callable[[], bool] = lambda: False


# -- the order -------------------------------------------------------------------------------------


def kind_of(state: CrashState) -> str:
    """Return what happened to the file, without names and numbers.

    Examples are ``cut at``, ``just renamed`` and ``complete``.
    """
    what = state.what.removeprefix(state.path).partition(" (")[0]  # without remarks
    return " ".join(what.split()[:2])


def in_order(states: Sequence[CrashState]) -> list[int]:
    """Return the places of the states in the order in which they are tried.

    The first are one of each kind. It is the one in the middle, because it has both earlier work
    and work to do. With several ranks, the states follow in which one has died and the others have
    gone on as far as they can: there, files of a save differ most from each other. Then come the
    kinds again, for each rank and each file whose name differs in more than a number, the last
    state, and the others, spread over the run.
    """
    kinds: dict[tuple[str, str], list[int]] = {}
    for place, state in enumerate(states):
        maker = _MAKER.match(state.id)
        family = _family(state.path) + (f" of rank {maker[1]}" if maker else "")
        kinds.setdefault((kind_of(state), family), []).append(place)
    # A kind that no other file has shown comes before a further file of a known kind.
    firsts: dict[str, list[int]] = {}
    for (kind, _), places in kinds.items():
        firsts.setdefault(kind, []).append(places[len(places) // 2])
    first = [place for found in firsts.values() for place in found[:1]]
    first += _furthest_ahead(states)
    first += [place for found in firsts.values() for place in found[1:]]
    rest = _spread(len(states))
    return list(dict.fromkeys([*first, *([len(states) - 1] if states else []), *rest]))


def _furthest_ahead(states: Sequence[CrashState]) -> list[int]:
    """Return the states in which the others could not go on without a rank, for each of its stops."""
    found: dict[tuple[int, int], int] = {}
    for place, state in enumerate(states):
        ahead = _AHEAD.match(state.id)
        if ahead is not None and state.parent is None:
            late = int(ahead[1])
            best = found.setdefault((late, state.cut[late]), place)
            if sum(state.cut) > sum(states[best].cut):
                found[late, state.cut[late]] = place
    return list(found.values())


def _family(path: str) -> str:
    """Return a text that is equal for paths that differ in numbers alone."""
    return _DIGITS.sub("0", path)


def _spread(count: int) -> list[int]:
    """Return all numbers below ``count``. The first few are far from each other."""
    found: list[int] = []
    step = 1 << max(0, count.bit_length() - 1)
    while step:
        found += range(step - 1, count, step)
        step //= 2
    return list(dict.fromkeys(found))


# -- the runs --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Source:
    """A run from which others may follow. ``number`` seeded its generators."""

    number: int
    tree: Tree
    outcome: CrashOutcome


@dataclasses.dataclass(frozen=True, eq=False)
class _Follower:
    """A state that follows from a run, at its place in time."""

    source: _Source
    place: int
    state: CrashState
    mine: CrashState


class _Lane:
    """The runs of one worker, one after the other."""

    def __init__(
        self, baseline: Baseline, options: ExplorationOptions, ends: Sequence[str]
    ) -> None:
        self._baseline = baseline
        self._options = options
        self._ends = ends
        self._observations = Observations(baseline.golden.ran.files)
        self._sources: list[_Source] = []
        self._followed: list[_Follower] = []
        self._checked = False
        self._done: set[frozenset[tuple[str, Node]]] = set()
        self._horizon, self._golden = self._early_end()

    def _early_end(self) -> tuple[int | None, GoldenSteps | None]:
        """Return the horizon, and what runs are compared with, or None if all run to their end."""
        golden, horizon, root = self._baseline.golden, self._options.horizon, None
        if horizon == "auto":
            location = self._baseline.runner.location
            root = location.root if isinstance(location, LocalDirectory) else None
            wanted = root is not None and self._options.only is None
            horizon = automatic_horizon(golden.ran.trace, golden.changes) if wanted else None
        if horizon is None or self._options.exhaustive:
            return None, None
        contents = self._baseline.runner.contents
        return horizon, golden_steps(golden.ran.trace, golden.start, golden.changes, contents, root)

    def source_of(self, mine: CrashState) -> _Source | None:
        """Return the run from which the outcome of a state follows, or None if it must be run."""
        place = None if self._options.exhaustive else self._observations.find(mine.tree)
        return None if place is None else self._sources[place]

    def run(
        self, place: int, state: CrashState, mine: CrashState, known: RunResult | None
    ) -> CrashOutcome:
        """Return the outcome of a run from a state.

        Args:
            place: Its place in the order of time.
            state: The state.
            mine: The same state, as this worker's golden run left it.
            known: A run from it, if there was one.
        """
        number = 1 if known is not None else place + 2
        ran = known or self._resumed(state, mine, number)
        found = self._baseline.judge.outcome(state, ran)
        if ran.observed is not None:
            self._observations.add(mine.tree, ran.observed, len(self._sources))
            self._sources.append(_Source(number, mine.tree, found))
        return found

    def follow(
        self, source: _Source, place: int, state: CrashState, mine: CrashState, over: bool
    ) -> CrashOutcome:
        """Return the outcome of a state that follows from a run.

        A share of such states is run, unless the budget is used up (``over``).
        """
        one = _Follower(source, place, state, mine)
        if not over and self._is_in_share("follows", state, CHECKED_SHARE):
            return self._check(one)
        self._followed.append(one)
        return self._baseline.judge.follow(source.outcome, state)

    def last_checks(self) -> Iterator[tuple[int, CrashOutcome]]:
        """Check some of the states that follow. Yield their places and outcomes.

        For each file they are the ones in which it is the longest, the shortest, the newest and
        the oldest, because code that asks for sizes or times unseen chooses by such an extreme. If
        there is none, and none was checked before, it is one of the others.
        """
        chosen = dict.fromkeys(self._extremes())
        if not chosen and not self._checked and self._followed:
            chosen[min(self._followed, key=lambda one: self._drawn("follows", one.state))] = None
        for one in chosen:
            if self._options.is_over():
                return
            yield one.place, self._check(one)

    def _extremes(self) -> Iterator[_Follower]:
        families: dict[str, list[tuple[_Follower, File]]] = {}
        for one in self._followed:
            for path, node in one.mine.tree.items():
                old = one.source.tree.get(path)
                if (
                    isinstance(node, File)
                    and isinstance(old, File)
                    and (node.content.size, node.mtime) != (old.content.size, old.mtime)
                ):
                    families.setdefault(_family(path), []).append((one, node))
        for found in families.values():
            # Of equally long ones, the newest is chosen, and so on, so that the extremes coincide.
            for key in (_size_and_time, _time_and_size):
                yield min(found, key=key)[0]
                yield max(found, key=key)[0]

    def _check(self, one: _Follower) -> CrashOutcome:
        """Run a state that follows from a run. Its random numbers start with the same seed."""
        self._checked = True
        ran = self._resumed(one.state, one.mine, one.source.number)
        found = self._baseline.judge.outcome(one.state, ran)
        return dataclasses.replace(found, checks=one.source.outcome.state.id)

    def _resumed(self, state: CrashState, mine: CrashState, number: int) -> RunResult:
        on_step = None
        if self._horizon is not None and self._golden is not None:
            in_full = state.id in self._ends or self._is_in_share("whole", state, WHOLE_SHARE)
            done = frozenset() if in_full else self._done
            on_step = EarlyEnd(
                self._golden,
                self._horizon,
                mine.tree,
                done if self._options.horizon == "auto" else None,
            )
        try:
            ran = self._baseline.time_limits.resume(
                self._baseline.runner, mine.tree, number, on_step
            )
        except LimitReached as error:
            error.add_note(f"mlchaos: that run resumed from the crash state {state.id}")
            raise
        if ran.trace.matched_from is not None and not ran.trace.stopped:
            self._done.add(contents_of(mine.tree, ran.trace.matched_from))
        return ran

    def _is_in_share(self, what: str, state: CrashState, share: int) -> bool:
        return self._drawn(what, state) % share == 0

    def _drawn(self, what: str, state: CrashState) -> int:
        return derive_seed(what, self._options.seed, state.id)


def _size_and_time(one: tuple[_Follower, File]) -> tuple[int, int]:
    return one[1].content.size, one[1].mtime


def _time_and_size(one: tuple[_Follower, File]) -> tuple[int, int]:
    return one[1].mtime, one[1].content.size


def resume_all(
    workers: Sequence[Baseline],
    states: Sequence[CrashState],
    others: Sequence[Mapping[str, CrashState]],
    options: ExplorationOptions,
    known: Mapping[str, RunResult],
) -> list[CrashOutcome]:
    """Return an outcome for each state that the budget allows, in the order of time.

    Args:
        workers: The workers, which run in parallel.
        states: The states.
        others: For each further worker, the states that its own golden run has left, by their ids.
        options: The options of the search.
        known: Runs that were made before, by state.
    """
    found: list[CrashOutcome | None] = [None] * len(states)
    own = options.own
    order = [
        place
        for place in in_order(states)[: options.max_states]
        if own is None or states[place].id in own
    ]
    options.progress.states.update((state.id, state) for state in states)
    owners = _owners(states, order, workers, others)
    ends = [state.id for state in (*states[:1], *states[-1:])]
    stop = threading.Event()

    def work(worker: int) -> None:
        lane = _Lane(workers[worker], options, ends)
        for count, place in enumerate(order, 1):
            state = states[place]
            if owners[place] != worker:
                continue
            here = others[worker - 1][state.id] if worker else state
            ran = None if worker else known.get(state.id)
            if stop.is_set():
                return
            over = ran is None and options.is_over()
            source = None if ran is not None else lane.source_of(here)
            if over and source is None:
                continue
            phase = f"resuming from crash state {state.id}, number {count} of {len(order)}"
            with options.progress.doing(phase, state.id):
                found[place] = one = (
                    lane.run(place, state, here, ran)
                    if source is None
                    else lane.follow(source, place, state, here, over)
                )
            options.progress.note(one, len(order))
        with options.progress.doing("checking crash states that follow from others"):
            for place, outcome in lane.last_checks():
                found[place] = outcome

    _work_in_parallel(work, len(workers), stop)
    return [outcome for outcome in found if outcome is not None]


def _work_in_parallel(work: Callable[[int], None], workers: int, stop: threading.Event) -> None:
    """Call ``work`` with each number below ``workers`` at a time, and 0 in this thread.

    The first error sets ``stop``, and is raised when all have ended.
    """
    failures: list[BaseException] = []

    def guarded(worker: int) -> None:
        try:
            work(worker)
        except BaseException as error:  # noqa: BLE001  # raised again in the main thread
            failures.append(error)
            stop.set()

    threads = [
        threading.Thread(target=guarded, args=(worker,), name=f"mlchaos-job-{worker}")
        for worker in range(1, workers)
    ]
    try:
        for thread in threads:
            thread.start()
        guarded(0)
        for thread in threads if not failures else ():
            thread.join()  # Ctrl-C is possible here
    except BaseException as error:  # noqa: BLE001  # raised again below
        failures.append(error)
    finally:
        with deferred():
            if failures:
                stop.set()
            if not all(isinstance(failure, Exception) for failure in failures):
                fresh_processes().stop()  # an interruption: do not wait for runs in progress
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
    if failures:
        raise failures[0]


def _owners(
    states: Sequence[CrashState],
    order: Sequence[int],
    workers: Sequence[Baseline],
    others: Sequence[Mapping[str, CrashState]],
) -> dict[int, int]:
    """Return the worker of each state.

    States that differ in one file go to one worker, because they may look the same to a run. The
    first worker takes states that did not occur in a later worker's golden run.
    """
    groups: dict[object, int] = {}
    owners = {}
    for place in order:
        state = states[place]
        rest = tree_key({path: node for path, node in state.tree.items() if path != state.path})
        worker = groups.setdefault(rest, len(groups) % len(workers))
        owners[place] = worker if worker == 0 or state.id in others[worker - 1] else 0
    return owners
