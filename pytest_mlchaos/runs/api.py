"""``mlchaos.run``: a subject under supervision.

1. ``inputs.py`` copies what the subject is given, and ``workdirs.py`` keeps its directories as they are.
2. ``supervisor.py`` calls the subject. When a fault ends it, ``workdirs.py`` keeps the disk as the fault found it, and the next attempt
   begins with fresh copies and that disk. ``isolated.py`` does the same with a fresh process for each attempt.
3. ``torch_steps.py`` and ``torch_state.py`` of the sites note what was trained; ``preemption.py`` notes what follows a SIGTERM.
4. The first judgement that needs it asks for the golden run: the same start, without faults.
5. ``verdicts.py`` judges the record (``core/records.py``), with ``emergency_save.py``, ``effective_batch.py`` and ``finite_state.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..engine.controller import Controller
from ..processes.subprocess_runner import fresh_processes
from . import torch_steps
from .isolated import IsolatedSupervisor
from .supervisor import Supervisor
from .verdicts import Run

__all__ = ["supervise"]


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
    """Run a subject, and start it again when a fault ends it; ``isolated``: each attempt is a fresh process."""
    given = (controller, subject, args, scratch, torch_steps.watch_training, workdirs)
    supervisor = IsolatedSupervisor(fresh_processes(), *given) if isolated else Supervisor(*given)
    return Run(supervisor.run(max_restarts), lambda: Run(supervisor.golden()))
