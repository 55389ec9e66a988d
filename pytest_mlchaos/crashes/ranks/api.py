"""``mlchaos.world(ranks=2).explore_crashes``: the crash states of a world of ranks.

The flow is that of ``mlchaos.explore_crashes`` (``crashes/api.py``), with these parts:

1. ``runner.py`` makes each run in a world of new processes. The caller starts them (``launch``).
2. ``rank_call.py`` runs the subject in a rank. In the golden run, ``rank_recorder.py`` keeps the
   changes that this rank makes. ``recording/own_events.py`` tells them from those of the others.
   ``looks.py`` notes what a rank sees of the others' files, and ``waits.py`` how it waits for them.
3. ``timelines.py`` finds what had to happen before each event: waits, and what a rank had seen.
   ``orders.py`` puts the changes of all ranks in the orders that a crash can show.
4. ``states.py`` makes the crash states from these orders, as from the changes of one process.
5. ``verdicts.py`` names the rank that went wrong first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...core.settings import Settings
from ...engine.controller import Controller
from ...errors import GoldenRunFailed
from ..api import explore_crashes
from ..options import CrashOptions
from ..report import CrashReport
from ..tested import TestInfo
from .runner import Launch, WorldRunner
from .verdicts import ResizedWorldJudge, WorldJudge

__all__ = ["explore_world", "run_world_once"]


def run_world_once(
    launch: Launch, ranks: int, subject: Callable[..., Any], workdir: object, args: tuple[Any, ...]
) -> CrashReport:
    """Run the world without a crash. The report has no crash state, so its assertions pass."""
    Path(str(workdir)).mkdir(parents=True, exist_ok=True)  # as for the golden world
    record = launch(functools.partial(subject, workdir, *args), ranks, None)
    for rank in record.ranks:
        if rank.outcome != "finished":
            raise GoldenRunFailed(
                f"the subject fails without any fault: rank {rank.rank} {rank.ended}"
            ) from rank.load_error()
    return CrashReport(
        steps=max(rank.steps for rank in record.ranks),
        writes=0,
        states=[],
        outcomes=[],
        duration=record.duration,
        notes=["crash states are not tried with --mlchaos-off"],
    )


def explore_world(
    controller: Controller,
    launch: Launch,
    ranks: int,
    subject: Callable[..., Any],
    workdir: object,
    args: tuple[Any, ...],
    options: dict[str, Any],
    scratch: Path,
    test_info: TestInfo,
    settings: Settings,
) -> CrashReport:
    """Explore the crash states of a world of ranks and return the report.

    Args:
        controller: The trial's controller. It may name a single crash state.
        launch: Runs a callable in a number of ranks.
        ranks: The number of ranks.
        subject: The function that trains and saves in each rank.
        workdir: Its first argument, a path.
        args: Its other arguments.
        options: The keywords of the method.
        scratch: The test's temporary directory.
        test_info: The test, for the report.
        settings: The settings ``budget`` and ``timeout``.
    """
    resume_ranks = options.pop("resume_ranks") or ranks
    runner = functools.partial(
        WorldRunner, launch, ranks, resume_ranks, inner=options["exhaustive"]
    )
    judge = WorldJudge if resume_ranks == ranks else ResizedWorldJudge
    wanted = CrashOptions(**options, isolation="process", horizon=None, runner=runner, judge=judge)
    return explore_crashes(controller, subject, workdir, args, wanted, scratch, test_info, settings)
