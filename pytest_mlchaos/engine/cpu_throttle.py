"""Take a part of its CPU time from this process, by a helper process that stops and continues it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PERIOD_SECONDS", "throttled"]

PERIOD_SECONDS = 0.1
"""The period of a CPU quota, as the kernel's default is."""
_HELPER = Path(__file__).with_name("cpu_throttle_process.py")


@contextlib.contextmanager
def throttled(share: float) -> Iterator[None]:
    """Stop this process for ``1 - share`` of the time, until the end of the context.

    All its threads stop. The helper ends with this process. It is not forked from here, because a
    fork of a process with many threads is not safe.
    """
    running = PERIOD_SECONDS * share
    helper = subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", str(_HELPER), str(os.getpid())),
            *(str(running), str(PERIOD_SECONDS - running)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert helper.stdin is not None
    assert helper.stdout is not None
    try:
        with helper.stdout:
            helper.stdout.read(1)  # it has begun
        yield
    finally:
        # The helper sees the end of its input only while this process runs, so it cannot leave it
        # stopped.
        helper.stdin.close()
        helper.wait()
