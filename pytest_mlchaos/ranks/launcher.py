"""Start worlds for a different area, which explores what a crash of their ranks leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ..core.records import WorldRecord
from ..engine.controller import Controller
from ..processes.fork_server import ForkServer
from ..runs.workdirs import WorkDirs
from ..sites import torch_train
from .world import RankOptions, WorldSupervisor

__all__ = ["Launcher"]

MAX_RUN_SECONDS = 3600.0
"""The largest time limit for one world."""
GRACE_SECONDS = 0.1
"""The first rank that fails decides about its world. The others get this time to end."""


class Launcher:
    """Starts worlds without faults, which leave no trace in the trial."""

    def __init__(
        self,
        server: ForkServer,
        controller: Callable[[], Controller],
        options: RankOptions,
        scratch: Path,
    ) -> None:
        self._server = server
        self._controller = controller
        self._options = options
        self._scratch = scratch

    def __call__(
        self, call: Callable[[], object], ranks: int, seconds: float | None
    ) -> WorldRecord:
        """Run a callable in that many ranks, within that many seconds."""
        limit = self._options.timeout if seconds is None else min(seconds, MAX_RUN_SECONDS)
        options = dataclasses.replace(
            self._options, ranks=ranks, restarts=0, timeout=limit, grace=GRACE_SECONDS
        )
        world = WorldSupervisor(
            self._server,
            self._controller(),
            options,
            call,
            (),
            WorkDirs((), self._scratch),
            torch_train.trained_parameters,
        )
        return world.undisturbed()
