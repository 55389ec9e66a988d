"""Run the subject in one rank of a world, as a new process would.

This is the code that the ranks execute. ``runner.py`` sends it to them.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import operator
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from ...engine.digests import random_states
from ...engine.patching import Patches
from ...engine.randomness import seed_as_new_process
from ...engine.scopes import INTERNAL_OPERATION, within
from ...engine.user_code import user_place
from ...runs.supervisor import snapshot_value
from ...runs.torch_trace import trace_steps
from ...runs.traces import Trace
from ..model import Change, Node, Observed, Tree
from ..recording.content_store import ContentStore
from ..recording.hooks import cross_device, install_hooks
from ..recording.inotify_recorder import InotifyRecorder
from ..recording.location import LocalDirectory
from ..recording.polling_recorder import PollingRecorder
from ..recording.read_log import InotifyReadLog
from .looks import watch_looks
from .rank_recorder import RankRecorder
from .timelines import Event, Launch, Meeting, Op, StoreRead, Waited
from .turns import Turns
from .waits import Mark, watch_waits

__all__ = ["PLACE", "RankCall", "RankRecording", "RankResult", "events_in_order"]

PLACE = "_mlchaos_place"
"""The attribute of an error that has the user's line that raised it."""
MEETING_SECONDS = 60.0
"""The recorders of all ranks must be ready within this time."""
_POLL_SECONDS = 0.001


@dataclasses.dataclass(frozen=True)
class RankRecording:
    """Hold what one rank did.

    Attributes:
        start: The directory at first.
        events: Its changes, collectives and looks, in its order.
        changes: Instead of ``events``, the changes of all ranks, if the system does not tell which
            are its own.
        unseen: The number of changes with an unseen content, one number per call that made several.
        complete: False if the kernel dropped events.
        end: The directory at the end, if ``changes`` are those of all ranks.
    """

    start: Tree | None
    events: tuple[Event, ...] = ()
    changes: tuple[Change, ...] = ()
    unseen: tuple[int, ...] = ()
    complete: bool = True
    end: Tree | None = None


@dataclasses.dataclass(frozen=True)
class RankResult:
    """The end of one rank that returned.

    Attributes:
        value: The returned value.
        trace: Its optimizer steps.
        duration: The seconds that it took.
        read: The files of an earlier process that were read, or None if this cannot be seen.
        observed: What all ranks can have learned about the directory while this one ran, or None.
        observed_alone: What this rank can have learned, or None.
        recording: What it did, if it was recorded.
    """

    value: Any
    trace: Trace
    duration: float
    read: frozenset[str] | None = None
    observed: Observed | None = None
    observed_alone: Observed | None = None
    recording: RankRecording | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankCall:
    """Run a subject in a rank, and return a ``RankResult``.

    Attributes:
        call: The subject with its arguments, pickled.
        root: The work directory.
        number: The number of the run, which seeds the generators.
        cross_device: True to imitate a directory on a separate filesystem.
        store: The folder for what is recorded, or None.
        is_attributed: True if the system tells which changes are a rank's own. If not, rank 0
            records those of all ranks.
    """

    call: bytes
    root: Path
    number: int
    cross_device: bool = False
    store: Path | None = None
    is_attributed: bool = True

    def __call__(self) -> RankResult:
        """Run the subject in this process, which is a rank."""
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        call = pickle.loads(self.call)  # our parent process made these bytes
        with contextlib.ExitStack() as stack:
            if self.cross_device:
                stack.enter_context(cross_device(str(self.root)))
            return self._watched(stack, call, rank, ranks)

    def _watched(
        self, stack: contextlib.ExitStack, call: Callable[[], Any], rank: int, ranks: int
    ) -> RankResult:
        if self.store is None:
            with InotifyReadLog.of(self.root, shared=True) as reads:
                result = self._run(call, rank, lambda trace: None)
            return dataclasses.replace(
                result,
                read=reads.files,
                observed=reads.observed,
                observed_alone=reads.observed_alone,
            )
        with within(INTERNAL_OPERATION):
            contents = ContentStore(self.store / f"contents-{rank}")
            stack.callback(contents.close)
            recorder = self._recorder(rank, contents)
            turns = Turns(self.store, self.root, rank)
            _meet(self.store, rank, ranks)
        if recorder is None:
            return self._run(call, rank, lambda trace: None)
        stack.callback(recorder.close)
        with turns.taken(within(INTERNAL_OPERATION)(recorder.drain)):
            return self._recorded(call, rank, recorder, turns)

    def _recorder(
        self, rank: int, contents: ContentStore
    ) -> RankRecorder | InotifyRecorder | PollingRecorder | None:
        if self.is_attributed:
            return RankRecorder(self.root, contents)
        return LocalDirectory(self.root).recorder(contents) if rank == 0 else None

    def _recorded(
        self,
        call: Callable[[], Any],
        rank: int,
        recorder: RankRecorder | InotifyRecorder | PollingRecorder,
        turns: Turns,
    ) -> RankResult:
        marks: list[tuple[int, list[Mark]]] = []

        def note(mark: Mark) -> Callable[[Mark | None], None]:
            if not isinstance(mark, (Waited, StoreRead)):
                # What this rank has changed comes before what others may learn from now on.
                with within(INTERNAL_OPERATION):
                    recorder.drain()
            held = [mark]
            marks.append((len(recorder.changes), held))
            if isinstance(recorder, RankRecorder):
                recorder.waits = len(marks)
            if isinstance(mark, (Launch, Meeting)):
                turns.meet()

            def replace(new: Mark | None) -> None:
                held[:] = [] if new is None else [new]

            return replace

        def on_step(trace: Trace) -> None:
            with within(INTERNAL_OPERATION):
                recorder.drain(closely=True)
            recorder.step = len(trace.steps)

        with Patches() as patches:
            if isinstance(recorder, RankRecorder):
                watch_waits(patches, note)
                watch_looks(patches, lambda path, listing: recorder.look(path, listing=listing))
            with install_hooks(recorder):
                result = self._run(call, rank, on_step)
        with within(INTERNAL_OPERATION):
            recorder.drain()
        if not isinstance(recorder, RankRecorder):
            recording = RankRecording(
                recorder.start,
                changes=tuple(recorder.changes),
                unseen=tuple(recorder.unseen),
                end=recorder.tree(),
            )
        else:
            recording = RankRecording(
                recorder.start,
                tuple(events_in_order(recorder, marks)),
                unseen=tuple(recorder.unseen),
                complete=recorder.is_complete,
            )
        return dataclasses.replace(result, recording=recording)

    def _run(
        self, call: Callable[[], Any], rank: int, on_step: Callable[[Trace], None]
    ) -> RankResult:
        seed_as_new_process(self.number, rank)
        before = dict(random_states())
        start = perf_counter()
        try:
            with trace_steps(on_step) as trace:
                value = snapshot_value(call())
        except BaseException as error:
            with contextlib.suppress(Exception):
                setattr(error, PLACE, user_place(error))
            raise
        trace.random = {
            name: (before[name], state) for name, state in random_states() if name in before
        }
        return RankResult(value, trace, perf_counter() - start)


def _meet(store: Path, rank: int, ranks: int) -> None:
    """Wait until the recorders of all ranks are ready."""
    (store / f"ready-{rank}").touch()
    end = time.monotonic() + MEETING_SECONDS
    waiting = [store / f"ready-{other}" for other in range(ranks)]
    while waiting and time.monotonic() < end:
        waiting = [path for path in waiting if not path.exists()]
        if waiting:
            time.sleep(_POLL_SECONDS)


# -- events ----------------------------------------------------------------------------------------


def events_in_order(
    recorder: RankRecorder, marks: Sequence[tuple[int, list[Mark]]]
) -> Iterator[Event]:
    """Yield what a rank did, in its order.

    A look comes before the changes that were recorded after it, and a mark after those that were
    recorded before it. Looks and marks keep their own order: if a look came before a wait that it
    followed, each rank would depend on what the other did later.
    """
    found: list[tuple[int, int, int, Sequence[Event]]]
    found = [(one.changes, one.waits, 0, [one.look]) for one in recorder.looks]
    found += [(place, number, 1, held) for number, (place, held) in enumerate(marks)]
    rest = collections.deque(sorted(found, key=operator.itemgetter(0, 1, 2)))
    for place, (change, window) in enumerate(
        itertools.zip_longest(recorder.changes, recorder.windows)
    ):
        while rest and rest[0][0] <= place:
            yield from rest.popleft()[3]
        yield _op(change, window)
    for *_, events in rest:
        yield from events


def _op(change: Change, window: tuple[float, float] | None) -> Op:
    """Return a change as what it did to the directory."""
    before, after = change.before, change.after
    sets: dict[str, Node | None] = {}
    removes: tuple[str, ...] = ()
    if change.kind in ("closed", "synced"):
        pass
    elif before is None or after is None:
        if change.kind == "removed":
            removes = (change.path,)
        else:
            sets[change.path] = None if after is None else after.get(change.path)
    else:
        sets |= {path: node for path, node in after.items() if before.get(path) != node}
        removes = tuple(path for path in before if path not in after)
        if change.kind == "removed" and change.path not in removes:
            removes = (*removes, change.path)  # a file of a different rank
    return Op(
        change.kind,
        change.path,
        change.step,
        sets,
        removes,
        change.source,
        change.start,
        change.writes,
        change.unsynced,
        change.loose,
        window or (0.0, float("inf")),
    )
