"""Judge how the ranks of a world ended."""

from __future__ import annotations

from ...core.validation import parse_duration
from ...errors import BadArgument, Orphaned, RankFailed, RankHung
from ...processes.stack_dumps import without_folders
from .world_result import WorldResult

__all__ = ["EndingVerdicts"]

MAX_STACK_LINES = 60


class EndingVerdicts(WorldResult):
    """Judge if all ranks ended, how fast, and what they left."""

    def assert_finished(self) -> None:
        """Raise ``RankFailed`` unless every rank ended with exit code 0.

        Raises:
            RankFailed: A rank did not finish.
            GaveUp: Faults ended the world more often than ``restarts`` allows.
            GoldenRunFailed: A rank fails without faults, too.
        """
        record = self._record.unfinished
        if record is not None:
            self._check_cause(record)
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
            GoldenRunFailed: A rank fails without faults, too.
        """
        seconds = parse_duration(within, "within")
        first = self._record.first
        if first is None:
            self._compare_under_faults("assert_failed_fast")
        if first is not None and not self.faults:
            self.assert_finished()
        for record in self._record.ranks:
            if record.outcome == "hung" and first is None:
                raise self._hung(
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
                raise self._hung(
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

    def _hung(self, message: str) -> RankHung:
        """Return the error, with the stacks of all threads of each rank that hung."""
        if self.faults:
            self._check_undisturbed()
        error = RankHung(message)
        for record in self._record.ranks:
            if record.outcome == "hung" and record.stack:
                lines = without_folders(record.stack).splitlines()[:MAX_STACK_LINES]
                error.add_note(f"threads of rank {record.rank}:\n" + "\n".join(lines))
        return error

    def assert_no_orphans(self) -> None:
        """Raise ``Orphaned`` if a rank that ended left a process running.

        Loader workers and other processes of a rank get the world's ``grace`` to end by
        themselves. All attempts count: a scheduler that starts the ranks again ends no process
        that an earlier attempt left. What is left is ended in any case.

        Raises:
            Orphaned: A process was left. The message names the rank.
            BadArgument: The plugin did not find the assertion in the test function or in a
                function of its module.

        Fidelity: a rank that was still running when its world was ended is not judged. Only Linux
        finds processes outside of the rank's process group.
        """
        orphans = self._record.orphans
        if orphans is None:
            raise BadArgument(
                "assert_no_orphans: the assertion must be in the test function itself or in a "
                "function of its module, because processes are looked for while the world ends"
            )
        if orphans:
            lines = "\n".join(f"  {line}" for line in orphans)
            raise Orphaned(f"ranks left {len(orphans)} processes running\n{lines}\n{self.story()}")
