"""Run a function in a fresh process while strace records the system calls."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# By name, so that patches of the module's attributes do not affect them.
from time import monotonic, sleep
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
"""An ``rmdir`` of a path with this prefix, which fails, records the number of complete steps in the
trace."""
STRACE_TIMEOUT_SECONDS = 60.0
"""Wait at most this long until strace follows a process."""
_POLL_SECONDS = 0.002
"""Check this often for the other side, because neither process can wake the other."""
_SET_PTRACER, _ANY = 0x59616D61, -1  # of prctl


def check_strace(caller: str) -> None:
    """Raise ``BadArgument`` if strace is not installed."""
    if shutil.which("strace") is None:
        raise BadArgument(
            f"{caller}: record='syscalls' needs the program strace (Linux), which is not on PATH: "
            f"install it, or leave record='auto'"
        )


class StepMarker:
    """Replaces a recorder in a traced process.

    It marks the steps. The changes are known after the run.
    """

    start: Tree | None = None
    unseen: Sequence[int] = ()
    changes: Sequence[Change] = ()

    def __init__(self) -> None:
        self._step = 0

    @property
    def step(self) -> int:
        """Return the number of complete steps."""
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step = step
        with contextlib.suppress(OSError):
            os.rmdir(f"{MARK}{step}")

    def drain(self, *, closely: bool = False) -> None:
        """Do nothing, because the changes are known after the run."""

    def tree(self) -> Tree | None:
        """Return None, because the content is known after the run."""
        return None

    def close(self) -> None:
        """Do nothing."""


class TracedDirectory(LocalDirectory):
    """A directory whose changes strace records."""

    def recorder(self, contents: ContentStore) -> Any:
        """Return an object that marks the steps."""
        return StepMarker()

    def watched(self, recorder: object) -> contextlib.AbstractContextManager[None]:
        """Return an empty context, because strace records the changes."""
        return contextlib.nullcontext()


def run_traced(
    function: Callable[..., Any], *args: Any, to: Path, timeout: float | None
) -> ProcessResult:
    """Run ``function(*args, ready)`` in a fresh process under strace.

    ``function`` must call ``await_strace(ready)`` first.

    Args:
        function: The function to run.
        args: Its arguments.
        to: The file for strace's output.
        timeout: The time limit in seconds, or None.

    Raises:
        BadArgument: strace is not allowed to trace the process.
    """
    ready = to.with_name(f"{to.name}.ready")
    task = fresh_processes().start(function, *args, ready, timeout=timeout)
    try:
        while not ready.exists():
            if select.select([task], [], [], _POLL_SECONDS)[0]:
                return task.wait()  # it ended before it was ready
        with _attach_strace(int(ready.read_text()), to) as strace:
            while strace.poll() is None:
                if select.select([task], [], [], 10 * _POLL_SECONDS)[0]:
                    break
            else:
                # strace ends with the process, so the result must arrive soon. If not, strace has
                # failed.
                if not select.select([task], [], [], 1.0)[0]:
                    task.end()
                    raise BadArgument(
                        f"mlchaos.explore_crashes: record='syscalls' needs ptrace, and strace "
                        f"failed: {_said(strace)}"
                    )
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
        start_new_session=True,  # so that Ctrl-C does not reach it
    )
    TOOL_PROCESSES.add(strace.pid)
    try:
        yield strace
        strace.wait(STRACE_TIMEOUT_SECONDS)  # strace ends with the last process that it follows
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
    """Allow strace to attach to this process, and wait until it has."""
    with contextlib.suppress(OSError, AttributeError):
        # Yama may allow only parents to trace.
        ctypes.CDLL(None).prctl(_SET_PTRACER, ctypes.c_ulong(_ANY % (1 << 64)), 0, 0, 0)
    part = ready.with_name(f"{ready.name}.part")
    part.write_text(str(os.getpid()))
    part.replace(ready)
    end = monotonic() + STRACE_TIMEOUT_SECONDS
    while "\nTracerPid:\t0\n" in Path("/proc/self/status").read_text() and monotonic() < end:
        sleep(_POLL_SECONDS)
