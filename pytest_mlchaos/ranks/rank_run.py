"""Define ``RankRun``, the result of one rank."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from ..core.journal import Strike
from ..core.records import RankRecord
from ..errors import RankFailed
from .judgements.lost_peers import LostPeer, how_lost

__all__ = ["RankRun"]


class RankRun:
    """The result of one rank, in the last attempt of its world.

    Attributes:
        rank: Its number.
        exitcode: As of ``subprocess``, so -9 is SIGKILL. None if it was still running when its
            world was ended.
        duration: The seconds of real time.
        steps: The number of optimizer steps that it began.
        faults: The strikes in it, in this attempt.
        after_strike: The seconds from the first strike in any rank, in the last attempt, to its end.
            None if no fault struck.
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
        self.after_strike = record.after_strike
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
    def lost_peer(self) -> LostPeer:
        """Return how its collective lost a peer.

        ``"timed out"`` is a wait up to the group's time limit, as behind a partition. ``"closed"``
        is a closed connection, as after the death of a peer. It is "" if it ended differently.
        """
        return "" if self.finished else how_lost(self.error)

    @functools.cached_property
    def parameters(self) -> Sequence[Sequence[Any]]:
        """Return the parameters that it trained, as they were at its end: one list of tensors for
        each optimizer."""
        return self._record.load_parameters()
