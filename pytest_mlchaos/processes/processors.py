"""Count the processors that this process may use."""

from __future__ import annotations

import os

__all__ = ["processors"]


def processors() -> int:
    """Return this process's share of the processors, which workers of pytest-xdist divide."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, count // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
