"""Run a subject under supervision, for ``mlchaos.run``.

1. ``inputs.py`` copies the subject's arguments, and ``workdirs.py`` copies its directories.
2. ``supervisor.py`` calls the subject. When a fault ends it, ``workdirs.py`` saves the disk at that
   moment. The next attempt starts with fresh copies and that disk. ``isolated.py`` does the same
   with a fresh process for each attempt.
3. ``torch_steps.py`` and ``torch_state.py`` of the sites record the training. ``preemption.py``
   records the time after a SIGTERM.
4. The first assertion that needs it starts the golden run, from the same start without faults.
5. ``verdicts.py`` judges the record (``core/records.py``), with ``emergency_save.py``,
   ``effective_batch.py`` and ``finite_state.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..engine.controller import Controller
from ..processes.subprocess_runner import fresh_processes
from . import torch_steps
from .isolated import IsolatedSupervisor
from .supervisor import Supervisor
from .verdicts import Run

__all__ = ["run_of", "supervise", "supervisor_of"]


def supervise(
    controller: Controller,
    subject: Callable[..., Any],
    args: tuple[Any, ...],
    scratch: Path,
    workdirs: Iterable[Path],
    *,
    max_restarts: int,
    isolated: bool,
) -> Run:
    """Run a subject, and restart it when a fault ends it.

    Args:
        controller: The controller of the trial.
        subject: The function to run.
        args: Its arguments.
        scratch: The test's temporary directory.
        workdirs: More directories that the subject works in.
        max_restarts: The maximum number of restarts.
        isolated: True to run each attempt in a fresh process.
    """
    supervisor = supervisor_of(controller, subject, args, scratch, workdirs, isolated=isolated)
    return run_of(supervisor, max_restarts)


def supervisor_of(
    controller: Controller,
    subject: Callable[..., Any],
    args: tuple[Any, ...],
    scratch: Path,
    workdirs: Iterable[Path],
    *,
    isolated: bool,
) -> Supervisor | IsolatedSupervisor:
    """Return the supervisor of a subject, from this moment's state. See ``supervise``."""
    watch = functools.partial(torch_steps.watch_training, privacy=controller.judges_privacy)
    given = (controller, subject, args, scratch, watch, workdirs)
    return IsolatedSupervisor(fresh_processes(), *given) if isolated else Supervisor(*given)


def run_of(supervisor: Supervisor | IsolatedSupervisor, max_restarts: int) -> Run:
    """Run the subject of a supervisor. See ``supervise``."""
    return Run(
        supervisor.run(max_restarts),
        lambda: Run(supervisor.golden()),
        lambda look: supervisor.golden(look).looked,
    )
