"""Define ``WorldRun``, the result of a world, and its judgements."""

from __future__ import annotations

from .judgements.agreement import AgreementVerdicts
from .judgements.collectives import CollectiveVerdicts
from .judgements.endings import EndingVerdicts
from .judgements.recovery import RecoveryVerdicts

__all__ = ["WorldRun"]


class WorldRun(EndingVerdicts, AgreementVerdicts, CollectiveVerdicts, RecoveryVerdicts):
    """The result of a world of ranks.

    Attributes:
        ranks: One ``RankRun`` for each rank.
        attempts: The end of each start of all ranks.
        faults: The strikes, attempt by attempt.
        duration: The seconds of real time.
    """
