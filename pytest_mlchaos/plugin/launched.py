"""Take part in a job that a launcher has started: this session is one of its ranks.

``torchrun --nnodes=2 -m pytest test_x.py`` runs the same test in each rank. A fault that is bound
to a rank strikes in that session only, and each session writes a journal of its own. The command
``python -m pytest_mlchaos merge`` puts them together.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from ..core.entries import Line, StrikeEntry
from ..core.interrupts import uninterruptible
from ..engine.controller import Controller
from ..engine.counters import ScheduledFault
from ..errors import BadArgument

__all__ = [
    "dies_for_real",
    "journal_of_rank",
    "rank_of_session",
    "ranks_are_shards",
    "refuse_search",
    "strikable",
    "strikes_here",
]


_divided: list[bool] = []
"""One item if the ranks of this process are shards."""


def ranks_are_shards() -> Callable[[], None]:
    """Let the ranks of the launcher be shards, each with tests of its own. Return the undoing."""
    _divided.append(True)
    return _divided.clear


def rank_of_session() -> tuple[int, int] | None:
    """Return the rank of this session and the number of ranks, or None without a launcher.

    Ranks that are shards run no job together.
    """
    if _divided:
        return None
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not (rank.isdigit() and size.isdigit()) or int(size) < 2:
        return None
    return int(rank), int(size)


def journal_of_rank(journal: str) -> str:
    """Return the path of this rank's journal: ``run.rank1.jsonl`` for ``run.jsonl``."""
    session = rank_of_session()
    if session is None:
        return journal
    path = Path(journal)
    return str(path.with_name(f"{path.stem}.rank{session[0]}{path.suffix}"))


def refuse_search() -> None:
    """Refuse a test whose faults are searched: each rank would try its own schedules."""
    if rank_of_session() is not None:
        raise BadArgument(
            "a launcher runs this test in several ranks, and each would search its own schedules. "
            "Pin the faults with at= and rank=, give one schedule to all ranks with "
            "--mlchaos-replay (PYTEST_ADDOPTS in the environment), or run the ranks inside the "
            "test with mlchaos.world"
        )


def strikable(controller: Controller) -> list[ScheduledFault]:
    """Return the faults of the trial, without those that are bound to other ranks."""
    if rank_of_session() is None:
        return controller.scheduled
    return [one for one in controller.scheduled if one.fault.concerns(controller.attributes)]


def strikes_here(controller: Controller) -> bool:
    """Return False if all faults of the trial are bound to other ranks of the launcher."""
    return bool(strikable(controller)) or not controller.scheduled


@uninterruptible
def dies_for_real(
    controller: Controller, nodeid: str, trial: int, grow: Callable[[Line], object]
) -> Iterator[None]:
    """Let a crash kill this session, as the launcher expects of a rank. Its strikes are kept."""
    if rank_of_session() is None:
        yield
        return

    def die() -> None:
        for strike in controller.journal.in_order():
            grow(Line(nodeid, trial, StrikeEntry.of(strike)))
        os.kill(os.getpid(), signal.SIGKILL)

    with controller.on_crash(die):
        yield
