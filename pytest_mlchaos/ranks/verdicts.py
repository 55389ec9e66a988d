"""Judge a world of ranks that has run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..core.entries import Entry, Rank, Timing, without_times
from ..core.journal import Strike
from ..core.records import Attempt, RankRecord, WorldRecord, tell, too_many_ended
from ..core.results import Result
from ..core.validation import FLAG, TOLERANCE, check_arguments, parse_duration
from ..errors import BadArgument, GaveUp, NotRecovered, OutOfSync, RankFailed, RankHung
from ..oracles.state import first_difference
from ..runs.finite_state import newly_not_finite
from ..runs.traces import Trace
from .world_diagnosis import Traces, from_each_other, from_golden

__all__ = ["RankRun", "WorldRun"]


class RankRun:
    """The result of one rank, in the last attempt of its world.

    Attributes:
        rank: Its number.
        exitcode: As of ``subprocess``, so -9 is SIGKILL. None if it was still running when its
            world was ended.
        duration: The seconds of real time.
        steps: The number of optimizer steps that it began.
        faults: The strikes in it, in this attempt.
        stack: The stacks of its threads if it hung, the main thread first, the innermost frame
            first.
        output: The text that it printed to stdout, then to stderr.
    """

    def __init__(self, record: RankRecord) -> None:
        self.rank = record.rank
        self.exitcode = record.exitcode
        self.duration = record.duration
        self.steps = record.steps
        self.faults: tuple[Strike, ...] = record.faults
        self.stack = record.stack
        self.output = record.output
        self._record = record

    def __repr__(self) -> str:
        return f"<rank {self.rank}: {self._record.ended}>"

    @property
    def finished(self) -> bool:
        """Return True if it ended with exit code 0."""
        return self._record.outcome == "finished"

    @functools.cached_property
    def value(self) -> Any:
        """Return the value that the subject returned.

        Raises:
            RankFailed: It did not return.
            BadArgument: The value cannot be pickled.
        """
        if not self.finished:
            raise RankFailed(
                f"rank {self.rank} returned nothing: it {self._record.ended}"
            ) from self.error
        return self._record.load_value()

    @functools.cached_property
    def error(self) -> BaseException | None:
        """Return the exception that ended it, or a ``ChildProcessError`` in words if it does not
        pickle. None if it finished."""
        return self._record.load_error()

    @functools.cached_property
    def parameters(self) -> Sequence[Sequence[Any]]:
        """Return the parameters that it trained, as they were at its end: one list of tensors for
        each optimizer."""
        return self._record.load_parameters()


class WorldRun(Result):
    """The result of a world of ranks.

    Attributes:
        ranks: One ``RankRun`` for each rank.
        attempts: The end of each start of all ranks.
        faults: The strikes, attempt by attempt.
        duration: The seconds of real time.
    """

    def __init__(
        self,
        record: WorldRecord,
        golden: Callable[[], WorldRun] | None = None,
        traced: Callable[[bool], WorldRecord | None] = lambda faults: None,
    ) -> None:
        self.ranks = tuple(map(RankRun, record.ranks))
        self.attempts = record.attempts
        self.faults = record.faults
        self.duration = record.duration
        self._record = record
        self._golden = golden
        self._traced = traced

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
    def golden(self) -> WorldRun:
        """Return the same world without faults, from the same start, in its own copy of the
        directories."""
        return self if self._golden is None else self._golden()

    def assert_finished(self) -> None:
        """Raise ``RankFailed`` unless every rank ended with exit code 0.

        Raises:
            RankFailed: A rank did not finish.
            GaveUp: Faults ended the world more often than ``restarts`` allows.
        """
        for record in self._record.ranks:
            if record.outcome != "finished":
                self._check_restarts(record)
                raise RankFailed(
                    f"rank {record.rank} did not finish: it {self._how(record)}\n{self.story()}"
                ) from record.load_error()

    def assert_failed_fast(self, *, within: object = 5) -> None:
        """Raise ``RankHung`` unless the other ranks ended soon after the first one failed.

        They may end with an error or without, but none may hang. If no rank failed, all must have
        ended within the world's ``timeout``.

        Args:
            within: The time limit: seconds of real time, or ``"500ms"``.

        Raises:
            RankHung: A rank was still running.
            RankFailed: A rank failed without a fault.
        """
        seconds = parse_duration(within, "within")
        first = self._record.first
        if first is None:
            self._compare_under_faults("assert_failed_fast")
        if first is not None and not self.faults:
            self.assert_finished()
        for record in self._record.ranks:
            if record.outcome == "hung" and first is None:
                raise RankHung(
                    f"rank {record.rank} {self._how(record)}, and no rank had "
                    f"failed\n{self.story()}"
                )
            if (
                record.outcome == "halted"
                or record.rank == first
                or record.lag is None
                or first is None
            ):
                continue
            failure = f"rank {first} {self._record.ranks[first].ended}"
            if record.lag > seconds:
                went_on = "ended only" if record.outcome != "hung" else "was still running"
                where = f": it {record.ended}" if record.outcome == "hung" else ""
                raise RankHung(
                    f"rank {record.rank} {went_on} {record.lag:.1f} s after "
                    f"{failure}{where}\n{self.story()}"
                )
            if record.outcome == "hung":
                raise BadArgument(
                    f"assert_failed_fast(within={seconds:g}): rank {record.rank} still ran when "
                    f"the world was ended, {record.lag:.1f} s "
                    f"after {failure}. Give the world more time with "
                    f"mlchaos.world(grace={seconds:g}) and timeout="
                )

    @check_arguments("assert_in_sync", rtol=TOLERANCE, atol=TOLERANCE, values=FLAG)
    def assert_in_sync(self, *, rtol: float = 0.0, atol: float = 0.0, values: bool = False) -> None:
        """Raise ``OutOfSync`` unless all ranks that finished trained the same parameters.

        Of a sharded parameter, the pieces that several ranks hold are compared. If no rank took a
        torch optimizer step, the returned values are compared.

        Args:
            rtol: Values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.
            values: If true, also compare the returned values.

        Raises:
            OutOfSync: Two ranks differ.
            RankFailed: Fewer than two ranks finished.
            BadArgument: There is nothing to compare.
        """
        finished = [rank for rank in self.ranks if rank.finished]
        if len(self.ranks) < 2:
            raise BadArgument("assert_in_sync needs a world of two ranks or more")
        if len(finished) < 2:
            raise RankFailed(f"cannot compare ranks: fewer than two ranks finished\n{self.story()}")
        trained = any(rank.parameters for rank in finished)
        if not trained and all(rank.value is None for rank in finished):
            raise BadArgument(
                "assert_in_sync has nothing to compare: the ranks returned None and took no torch "
                "optimizer step. Return the final state"
            )
        first, *others = finished
        compare = functools.partial(first_difference, rtol=rtol, atol=atol, across_ranks=True)
        for rank in others:
            found = None
            if trained:
                found = compare(rank.parameters, first.parameters, name="trained parameters")
            if found is None and (values or not trained):
                found = compare(rank.value, first.value, name="returned value")
            if found is not None:
                why = from_each_other(self._traces(faults=True), rank.rank, first.rank)
                raise OutOfSync(
                    f"rank {rank.rank} and rank {first.rank} ended in different states\n  "
                    f"{found}\n{why}{self.story()}"
                )
        self._check_joined("assert_in_sync")

    @check_arguments("assert_recovered", rtol=TOLERANCE, atol=TOLERANCE)
    def assert_recovered(self, *, rtol: float = 0.0, atol: float = 0.0) -> None:
        """Raise ``NotRecovered`` unless every rank ended in the state that it has in the golden
        run.

        Returned values and trained parameters are compared, rank by rank (of a sharded parameter,
        the shards). Nothing may be NaN or infinite that is finite in the golden run.

        Args:
            rtol: Values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.

        Raises:
            NotRecovered: A rank differs.
            GaveUp: Faults ended the world more often than ``restarts`` allows.
        """
        self._compare_under_faults("assert_recovered")
        for record in self._record.ranks:
            if record.outcome != "finished":
                self._check_restarts(record)
                raise NotRecovered(
                    f"rank {record.rank} did not finish: it {self._how(record)}\n{self.story()}"
                ) from record.load_error()
        judged = False
        for rank, golden in zip(self.ranks, self.golden.ranks, strict=True):
            trained = bool(rank.parameters) and bool(golden.parameters)
            judged = judged or trained or rank.value is not None or golden.value is not None
            found = first_difference(
                rank.value, golden.value, rtol=rtol, atol=atol, name="returned value"
            )
            if found is None and trained:
                found = first_difference(
                    rank.parameters,
                    golden.parameters,
                    rtol=rtol,
                    atol=atol,
                    name="trained parameters",
                )
            if found is None:
                found = newly_not_finite(
                    rank._record.load_not_finite(), golden._record.load_not_finite()
                )
            if found is not None:
                why = from_golden(self._traces(faults=False), self._traces(faults=True))
                raise NotRecovered(
                    f"rank {rank.rank} did not end in the state of its golden run\n  "
                    f"{found}\n{why}{self.story()}"
                )
        if not judged:
            raise BadArgument(
                "assert_recovered has nothing to judge: the ranks returned None and took no torch "
                "optimizer step in their last attempt. "
                "Return the final state (model.state_dict(), the step, the metrics) from the "
                "subject"
            )

    def _check_restarts(self, record: RankRecord) -> None:
        """Raise ``GaveUp`` if faults ended the world more times than it may be restarted.

        This says nothing about the job.
        """
        ended_by = self._record.ended_by
        if self.restarts and all(ended_by):
            text = too_many_ended("the world", len(ended_by), "restarts")
            raise GaveUp(f"{text}\n{self.story()}", ended_by=ended_by) from record.load_error()

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

    def _check_joined(self, judgement: str) -> None:
        if not any(record.joined for record in self._record.ranks):
            raise BadArgument(
                f"{judgement}: no rank initialized its process group, so the ranks did not "
                f"communicate. Call "
                f"torch.distributed.init_process_group in the subject\n{self.story()}"
            )

    def story(self) -> str:
        """Return the end of each attempt, and of each rank in the last one, one line for each."""
        lines = [tell(self.attempts)] if self.restarts else []
        for record in self._record.ranks:
            struck = "".join(f"; {strike}" for strike in record.faults[:1])
            plural = "" if record.steps == 1 else "s"
            lines.append(
                f"  rank {record.rank}: {record.steps} step{plural}, then {record.ended} "
                f"({record.duration:.2f} s){struck}"
            )
        return "\n".join(lines)

    def _how(self, record: RankRecord) -> str:
        if record.outcome != "hung":
            return record.ended
        return f"was still running after {record.duration:.1f} s, and {record.ended}"
