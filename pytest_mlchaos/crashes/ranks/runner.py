"""Make the runs of an exploration in worlds of ranks: each run is a world of new processes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ...core.records import RankRecord, WorldRecord
from ...engine.scopes import INTERNAL_OPERATION, within
from ...errors import BadArgument, MlchaosError
from ...processes import stack_dumps
from ...processes.subject_pickling import dumps
from ...runs.traces import StepRecord, Trace
from ..model import Change, Content, File, Node, Observed, RunResult, Tree
from ..recording.content_store import ContentStore, digest_of_file
from ..recording.location import Location
from ..recording.own_events import is_available
from ..run import OnStep, RunOptions, Subject, note_writes
from ..runners import GoldenRun
from .orders import orders, step_ends
from .rank_call import PLACE, RankCall, RankRecording, RankResult
from .timelines import Event, Op, Timeline

__all__ = ["Launch", "WorldRunner"]


class Launch(Protocol):
    """Starts worlds of ranks."""

    def __call__(
        self, call: Callable[[], object], ranks: int, seconds: float | None
    ) -> WorldRecord:
        """Run a callable in that many ranks, within that many seconds."""
        ...


UNATTRIBUTED = (
    "the system does not tell which rank made a change (fanotify is not available), so the states "
    "are those of the order that was seen: a rank that dies while the others go on is not tried"
)


class WorldRunner:
    """Runs a subject in a world of ranks from any content of their directory."""

    is_fresh = True

    def __init__(
        self,
        launch: Launch,
        ranks: int,
        resume_ranks: int,
        subject: Subject,
        options: RunOptions,
        contents: ContentStore,
        *,
        inner: bool = False,
    ) -> None:
        self.contents = contents
        self.location: Location = options.location
        self.start: Tree | None = None
        self.follow = False
        self.ranks = ranks
        self.resume_ranks = resume_ranks
        self._launch = launch
        self._subject = dumps(subject.fresh())
        self._options = options
        self._timeout = options.timeout
        self._inner = inner
        self._disk = options.location.holding(contents)
        self._ways: set[str | None] = set()
        """The ways in which worlds have failed more than once."""

    def limit(self, seconds: float) -> None:
        """Set the time limit for one run."""
        self._timeout = seconds

    def golden(self, start: Tree | None) -> GoldenRun:
        """Make a recorded run from that content."""
        self._hold(start)
        store = self.contents.path.with_name(f"{self.contents.path.name}-ranks")
        with within(INTERNAL_OPERATION):
            shutil.rmtree(store, ignore_errors=True)
            store.mkdir()
            is_attributed = is_available(str(self._options.root))
        call = self._call(0, store=store, is_attributed=is_attributed)
        ranks = self.ranks if start is None else self.resume_ranks
        ran, results = self._result(self._launch(call, ranks, self._timeout))
        recordings = [result.recording for result in results]
        if ran.error is not None or ran.hung is not None or None in recordings[:1]:
            return GoldenRun(ran, start, (), None)
        with within(INTERNAL_OPERATION):
            golden = self._recorded(ran, [one for one in recordings if one is not None], store)
            shutil.rmtree(store, ignore_errors=True)
        self.start = golden.start if start is None else self.start
        return golden

    def _recorded(
        self, ran: RunResult, recordings: Sequence[RankRecording], store: Path
    ) -> GoldenRun:
        if not all(recording.complete for recording in recordings):
            raise MlchaosError(
                "the kernel dropped events, so the owner of some changes is unknown: raise "
                "fs.fanotify.max_queued_events"
            )
        unseen = tuple(number for recording in recordings for number in recording.unseen)
        imported = [
            _Import(store / f"contents-{rank}", self.contents) for rank in range(len(recordings))
        ]
        start = imported[0].tree(recordings[0].start) or {}
        if recordings[0].changes:
            seen = imported[0].changes(recordings[0].changes)
            end = imported[0].tree(recordings[0].end)
            note_writes(ran, seen, end or {})
            return GoldenRun(
                ran,
                start,
                seen,
                end,
                compared=True,
                unseen=unseen,
                notes=(UNATTRIBUTED,),
                resumes_alike=self.ranks == self.resume_ranks,
            )
        timelines = [
            Timeline(rank, [one.event(event) for event in recording.events])
            for rank, (one, recording) in enumerate(zip(imported, recordings, strict=True))
        ]
        found = orders(start, timelines, inner=self._inner)
        changes = found[-1].changes if not self._inner else found[len(timelines)].changes
        end = next((change.after for change in reversed(changes)), start)
        note_writes(ran, changes, end or {})
        ran.step_ends = step_ends(start, timelines)
        return GoldenRun(
            ran,
            start,
            changes,
            end,
            unseen=unseen,
            differs=self._differs(end),
            orders=tuple(found),
            resumes_alike=self.ranks == self.resume_ranks,
        )

    def _differs(self, end: Tree | None) -> tuple[str, ...]:
        """Return the files that are not as the recorded changes left them."""
        if end is None:
            return ()
        left = {
            os.path.relpath(os.path.join(folder, name), self._options.root).replace(
                os.sep, "/"
            ): digest_of_file(os.path.join(folder, name))
            for folder, _, names in os.walk(self._options.root)
            for name in names
            if os.path.isfile(os.path.join(folder, name))
            and not os.path.islink(os.path.join(folder, name))
        }
        known = {path: node.content.digest for path, node in end.items() if isinstance(node, File)}
        return tuple(sorted(path for path in {*left, *known} if left.get(path) != known.get(path)))

    def resume(self, tree: Tree, number: int, on_step: OnStep | None) -> RunResult:
        """Make the ``number``-th run, from that content.

        The first world that fails in some way is run once more, because its ranks may have missed
        each other for a reason that is not the crash. If it ends well then, this end counts.
        """
        ran = self._resumed(tree, number)
        way = _failure(ran)
        if way is None or way in self._ways:
            return ran
        again = self._resumed(tree, number)
        if _failure(again) is None:
            again.unrepeated = way
        else:
            self._ways.update((way, _failure(again)))
        return again

    def _resumed(self, tree: Tree, number: int) -> RunResult:
        self._hold(tree)
        ranks = self.ranks if number <= 1 else self.resume_ranks
        ran, _ = self._result(self._launch(self._call(number), ranks, self._timeout))
        return ran

    def leave(self, tree: Tree | None) -> None:
        """Restore that content at the end."""
        self._hold(tree)

    def _call(
        self, number: int, *, store: Path | None = None, is_attributed: bool = True
    ) -> RankCall:
        return RankCall(
            call=self._subject,
            root=self._options.root,
            number=number,
            cross_device=self._options.cross_device,
            store=store,
            is_attributed=is_attributed,
        )

    def _hold(self, tree: Tree | None) -> None:
        if tree is not None:
            with within(INTERNAL_OPERATION):
                self._disk.hold(tree)

    def _result(self, record: WorldRecord) -> tuple[RunResult, list[RankResult]]:
        """Return the run of a world: the end of the rank that failed first, or all values."""
        ran = RunResult(duration=record.duration)
        ran.output = "".join(
            f"[rank {one.rank}] {one.output}" for one in record.ranks if one.output
        )
        culprit = next((one for one in record.ranks if one.rank == record.first), None)
        culprit = culprit or next((one for one in record.ranks if one.outcome != "finished"), None)
        if culprit is not None:
            _end(ran, culprit)
            return ran, []
        results = [_returned(one) for one in record.ranks]
        ran.duration = max(result.duration for result in results)
        ran.trace = combined([result.trace for result in results])
        ran.traces = tuple(result.trace for result in results)
        ran.read, ran.observed = _read(results), _observed(results)
        values = {f"rank {rank}": result.value for rank, result in enumerate(results)}
        ran.value = None if all(value is None for value in values.values()) else values
        with within(INTERNAL_OPERATION):
            ran.files, ran.texts = self.location.endings()
        return ran, results


def _failure(ran: RunResult) -> str | None:
    """Return the way in which a world failed, in words, or None."""
    if ran.hung is not None:
        return f"hung {ran.hung}"
    if ran.error is None:
        return None
    where = f" at {ran.place}" if ran.place else ""
    return f"raised {type(ran.error).__name__}{where} in rank {ran.rank}"


def _returned(record: RankRecord) -> RankResult:
    result = record.load_value()
    if not isinstance(result, RankResult):
        raise BadArgument(f"mlchaos.world: rank {record.rank} {record.ended} and did not return")
    return result


def _read(results: Sequence[RankResult]) -> frozenset[str] | None:
    read = [result.read for result in results if result.read is not None]
    return frozenset().union(*read) if len(read) == len(results) else None


def _observed(results: Sequence[RankResult]) -> Observed | None:
    """Return what the ranks can have learned together, or None if this is unknown for one."""
    alone = [result.observed_alone for result in results if result.observed_alone is not None]
    is_attributed = len(alone) == len(results)
    found = (
        alone if is_attributed else [one.observed for one in results if one.observed is not None]
    )
    if len(found) < len(results):
        return None
    asked = [one.asked for one in found if one.asked is not None]
    kept = [one.kept for one in found]
    return Observed(
        frozenset().union(*(one.read for one in found)),
        frozenset().union(*asked) if len(asked) == len(found) else None,
        # A rank that looks at its own uses alone does not know which files the others truncate.
        kept[0].intersection(*kept) if is_attributed else frozenset().union(*kept),
    )


def _end(ran: RunResult, record: RankRecord) -> None:
    ran.rank = record.rank
    if record.outcome in ("hung", "halted", "stopped"):
        where = stack_dumps.place(record.stack) if record.stack else "an unknown place"
        ran.hung = f"in {where} (rank {record.rank})"
        return
    ran.error = record.load_error()
    ran.place = getattr(ran.error, PLACE, "")


# -- traces ----------------------------------------------------------------------------------------


def combined(traces: Sequence[Trace]) -> Trace:
    """Return one trace for all ranks. A digest in it differs if that of any rank does."""
    first = traces[0]
    if len({len(trace.steps) for trace in traces}) > 1:
        return first
    return Trace(
        steps=[_step(steps) for steps in zip(*(trace.steps for trace in traces), strict=True)],
        final=_digests([trace.final for trace in traces]),
        epochs=first.epochs,
        epoch_steps=first.epoch_steps,
        passes=sum(trace.passes for trace in traces),
        random={
            name: (
                _digest(trace.random[name][0] for trace in traces if name in trace.random),
                _digest(trace.random[name][1] for trace in traces if name in trace.random),
            )
            for name in first.random
        },
        idle=frozenset.intersection(*(trace.idle for trace in traces)),
        marks=set().union(*(trace.marks for trace in traces)),
        restored={
            name: _digest(trace.restored.get(name, b"") for trace in traces)
            for name in first.restored
        },
        held=frozenset().union(*(trace.held for trace in traces)),
    )


def _step(steps: Sequence[StepRecord]) -> StepRecord:
    return StepRecord(
        _digests([step.digests for step in steps]),
        tuple(one for step in steps for one in step.data),
        tuple(one for step in steps for one in step.batches),
        max(step.began for step in steps),
    )


def _digests(found: Sequence[Mapping[str, bytes]]) -> dict[str, bytes]:
    names = dict.fromkeys(name for digests in found for name in digests)
    return {name: _digest(digests.get(name, b"") for digests in found) for name in names}


def _digest(parts: Iterable[bytes]) -> bytes:
    return hashlib.blake2b(b"|".join(parts), digest_size=16).digest()


# -- contents --------------------------------------------------------------------------------------


class _Import:
    """Copies what a rank has stored into the store of the exploration."""

    def __init__(self, path: Path, to: ContentStore) -> None:
        self._path = path
        self._to = to
        self._known: dict[bytes, Content] = {}

    def event(self, event: Event) -> Event:
        """Return an event whose contents are in the store."""
        if not isinstance(event, Op):
            return event
        sets = {path: self._node(node) for path, node in event.sets.items()}
        return dataclasses.replace(event, sets=sets)

    def changes(self, changes: Sequence[Change]) -> list[Change]:
        """Return changes whose contents are in the store."""
        return [
            dataclasses.replace(
                change, before=self.tree(change.before), after=self.tree(change.after)
            )
            for change in changes
        ]

    def tree(self, tree: Tree | None) -> Tree | None:
        """Return a tree whose contents are in the store."""
        if tree is None:
            return None
        return {path: self._node(node) for path, node in tree.items()}  # type: ignore[misc]

    def _node(self, node: Node | None) -> Node | None:
        if not isinstance(node, File):
            return node
        content = self._known.get(node.content.digest)
        if content is None:
            content = self._known[node.content.digest] = self._copied(node.content)
        return dataclasses.replace(node, content=content)

    def _copied(self, content: Content) -> Content:
        source = ContentStore(self._path)
        spare = self._path.with_name("spare")
        try:
            fd = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                source.write(content, fd)
                return self._to.put(fd, content.size)
            finally:
                os.close(fd)
        finally:
            source.close()
