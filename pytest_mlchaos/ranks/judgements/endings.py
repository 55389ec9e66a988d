"""Judge how the ranks of a world ended."""

from __future__ import annotations

from ...core.validation import parse_duration
from ...errors import BadArgument, RankFailed, RankHung
from .world_result import WorldResult

__all__ = ["EndingVerdicts"]


class EndingVerdicts(WorldResult):
    """Judge if all ranks ended, and how fast."""

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
