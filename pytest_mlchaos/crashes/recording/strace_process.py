"""A run in a fresh process whose system calls are told of by strace: it is attached to that process, and tells of its children, too."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep  # by name: whoever patches the module's attributes leaves these alone
from typing import Any

from ...engine.activity import TOOL_PROCESSES
from ...errors import BadArgument
from ...processes.subprocess_runner import ProcessResult, fresh_processes
from ..model import Change, Tree
from .content_store import ContentStore
from .location import LocalDirectory
from .strace_parser import options

__all__ = ["MARK", "TracedDirectory", "await_strace", "check_strace", "run_traced"]

MARK = "/proc/mlchaos step "
"""A call to remove a directory of that name, which does nothing, tells how many steps are complete."""
STRACE_TIMEOUT_SECONDS = 60.0
"""Seconds until strace follows a process."""
_POLL_SECONDS = 0.002
"""Seconds between two looks at whether the other side has come so far: neither can wake the other."""
_SET_PTRACER, _ANY = 0x59616D61, -1  # of prctl


def check_strace(caller: str) -> None:
    """Raise ``BadArgument`` where there is no strace."""
    if shutil.which("strace") is None:
        raise BadArgument(
            f"{caller}: record='syscalls' needs the program strace (Linux), which is not on PATH: install it, or leave record='auto'"
        )


class StepMarker:
    """Stands for a recorder in a process that is traced: it tells of the steps, and what has happened is known when the run is over."""

    start: Tree | None = None
    unseen: Sequence[int] = ()
    changes: Sequence[Change] = ()

    def __init__(self) -> None:
        self._step = 0

    @property
    def step(self) -> int:
        """How many steps are complete."""
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step = step
        with contextlib.suppress(OSError):
            os.rmdir(f"{MARK}{step}")

    def drain(self, *, closely: bool = False) -> None:
        """There is nothing to take in."""

    def tree(self) -> Tree | None:
        """It is not known yet."""
        return None

    def close(self) -> None:
        """There is nothing to close."""


class TracedDirectory(LocalDirectory):
    """A directory whose changes strace tells of."""

    def recorder(self, contents: ContentStore) -> Any:
        """What marks the steps."""
        return StepMarker()

    def watched(self, recorder: Any) -> contextlib.AbstractContextManager[None]:
        """Nobody looks."""
        return contextlib.nullcontext()


def run_traced(function: Any, *args: Any, to: Path, timeout: float | None) -> ProcessResult:
    """Run ``function(*args, ready)`` in a fresh process that strace follows. ``function`` calls ``await_strace(ready)`` first.

    What strace tells lies in ``to``. Raises ``BadArgument`` if it may not trace.
    """
    ready = to.with_name(f"{to.name}.ready")
    task = fresh_processes().start(function, *args, ready, timeout=timeout)
    try:
        while not ready.exists():
            if select.select([task], [], [], _POLL_SECONDS)[0]:
                return task.wait()  # it did not come so far
        with _attach_strace(int(ready.read_text()), to) as strace:
            while strace.poll() is None:
                if select.select([task], [], [], 10 * _POLL_SECONDS)[0]:
                    break
            else:
                if not select.select([task], [], [], 1.0)[0]:
                    task.end()
                    raise BadArgument(f"mlchaos.explore_crashes: record='syscalls' needs ptrace, and strace failed: {_said(strace)}")
            return task.wait()
    finally:
        ready.unlink(missing_ok=True)


@contextlib.contextmanager
def _attach_strace(pid: int, to: Path) -> Iterator[subprocess.Popen[bytes]]:
    strace = subprocess.Popen(
        ["strace", *options(to), "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the runner
    )
    TOOL_PROCESSES.add(strace.pid)
    try:
        yield strace
        strace.wait(STRACE_TIMEOUT_SECONDS)  # it ends with the last that it follows
    except subprocess.TimeoutExpired:
        strace.terminate()
        strace.wait(STRACE_TIMEOUT_SECONDS)
    finally:
        if strace.poll() is None:
            strace.kill()
            strace.wait()
        assert strace.stderr is not None
        strace.stderr.close()
        TOOL_PROCESSES.discard(strace.pid)


def _said(strace: subprocess.Popen[bytes]) -> str:
    assert strace.stderr is not None
    lines = strace.stderr.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with exit code {strace.returncode}"


def await_strace(ready: Path) -> None:
    """In the process: let strace follow it, and wait until it does."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PTRACER, ctypes.c_ulong(_ANY % (1 << 64)), 0, 0, 0)  # where Yama would let parents trace alone
    part = ready.with_name(f"{ready.name}.part")
    part.write_text(str(os.getpid()))
    part.replace(ready)
    end = monotonic() + STRACE_TIMEOUT_SECONDS
    while "\nTracerPid:\t0\n" in Path("/proc/self/status").read_text() and monotonic() < end:
        sleep(_POLL_SECONDS)
