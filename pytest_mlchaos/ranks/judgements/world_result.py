"""Define what all judgements of a world share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from ...core.collectives import CollectiveRecord
from ...core.entries import Entry, Rank, Timing, without_times
from ...core.records import Attempt, RankRecord, WorldRecord, tell, too_many_ended
from ...core.results import Result
from ...errors import GaveUp
from ...runs.traces import Trace
from ..rank_run import RankRun
from ..world_diagnosis import Traces
from .lost_peers import tell_lost_peers

__all__ = ["WorldResult", "describe_collective"]


class WorldResult(Result):
    """Hold the ends of all ranks, and compare them with the golden world."""

    def __init__(
        self,
        record: WorldRecord,
        golden: Callable[[bool], Self] | None = None,
        traced: Callable[[bool], WorldRecord | None] = lambda faults: None,
        check_undisturbed: Callable[[], None] = lambda: None,
    ) -> None:
        self.ranks = tuple(map(RankRun, record.ranks))
        self.attempts = record.attempts
        self.faults = record.faults
        self.duration = record.duration
        self._record = record
        self._golden = golden
        self._traced = traced
        self._check_undisturbed = check_undisturbed

    def _attempted(self) -> Sequence[Attempt]:
        return self.attempts

    def _entries(self, number: int, is_virtual: bool) -> Iterator[Entry]:
        for rank in self._record.ranks:
            yield Rank(
                result=number,
                rank=rank.rank,
                outcome=rank.outcome,
                ended=without_times(rank.ended),
                steps=rank.steps,
            )
            yield Timing(of="rank", number=number, name=str(rank.rank), seconds=rank.duration)

    def _about(self) -> str:
        return f"<WorldRun of {len(self.ranks)} ranks, {self.restarts} restarts, {len(self.faults)} faults>"

    @property
    def restarts(self) -> int:
        """Return the number of times that all ranks were started again."""
        return len(self.attempts) - 1

    @functools.cached_property
    def golden(self) -> Self:
        """Return the same world without faults, from the same start, in its own copy of the
        directories."""
        return self if self._golden is None else self._golden(False)

    @functools.cached_property
    def lost_steps(self) -> int:
        """Return the number of optimizer steps that were taken again after a restart."""
        steps = sum(attempt.steps for attempt in self.attempts)
        golden = sum(attempt.steps for attempt in self.golden.attempts)
        return max(0, steps - golden) if self.restarts else 0

    @property
    def recovery_time(self) -> float | None:
        """Return the seconds from a failure until all ranks had begun a step again, the longest.

        None if there was no restart, or if a rank took no step after it.
        """
        return self._record.recovery_time

    def _renew_golden(self) -> bool:
        """Run the golden world again if an earlier trial ran it. Return True if it was run.

        What differs from a golden world of an earlier trial may depend on something that no key
        holds, for example on the name of the directory.
        """
        if self._golden is None or not self.golden._record.is_kept:
            return False
        vars(self)["golden"] = self._golden(True)
        return True

    def _check_cause(self, record: RankRecord) -> None:
        """Raise a different error if the job is not to blame, or no fault is.

        Raises:
            GaveUp: Faults ended the world more times than it may be restarted.
            GoldenRunFailed: The world fails without faults, too.
        """
        ended_by = self._record.ended_by
        if self.restarts and all(ended_by):
            text = too_many_ended("the world", len(ended_by), "restarts")
            raise GaveUp(f"{text}\n{self.story()}", ended_by=ended_by) from record.load_error()
        if self.faults:
            self._check_undisturbed()

    def _traces(self, *, faults: bool) -> Traces:
        """Run the world once more and return each rank's steps. Return none if that run went
        differently.
        """
        record = self._traced(faults)
        if record is None or any(rank.outcome != "finished" for rank in record.ranks):
            return {}
        if faults and (
            list(map(str, record.faults)) != list(map(str, self.faults))
            or len(record.attempts) != len(self.attempts)
        ):
            return {}
        traces = {rank.rank: rank.load_parameters() for rank in record.ranks}
        return {rank: trace for rank, trace in traces.items() if isinstance(trace, Trace)}

    def story(self) -> str:
        """Return the end of each attempt, and of each rank in the last one, one line for each.

        If ranks lost their peers, a line says why: a partition, the death of a rank, or neither.
        """
        lines = [tell(self.attempts)] if self.restarts or self._record.elastic else []
        some_join = any(record.joining for record in self._record.ranks)
        for record in self._record.ranks:
            struck = "".join(f"; {strike}" for strike in record.faults[:1])
            log = record.collectives
            last = (
                f"; last collective: {log.total - 1}, {describe_collective(log.records[-1])}"
                if log.records and record.outcome != "finished"
                else ""
            )
            plural = "" if record.steps == 1 else "s"
            # If no rank joins, the job may do without a group. A strike explains the rest.
            alone = some_join and not record.joining and not struck
            lines.append(
                f"  rank {record.rank}: {record.steps} step{plural}, then {record.ended} "
                f"({record.duration:.2f} s){struck}"
                f"{', and never called init_process_group' if alone else ''}{last}"
            )
        return "\n".join([*lines, *tell_lost_peers(self._record)])

    def _how(self, record: RankRecord) -> str:
        if record.outcome != "hung":
            return record.ended
        return f"was still running after {record.duration:.1f} s, and {record.ended}"


def describe_collective(record: CollectiveRecord) -> str:
    """Describe a collective in words."""
    what = f" of {record.size} {record.dtype}" if record.dtype else ""
    root = f" with rank {record.peer}" if record.peer is not None else ""
    return f"{record.op}{what}{root}"
