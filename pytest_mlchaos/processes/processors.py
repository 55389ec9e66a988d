"""Count the processors that this process may use."""

from __future__ import annotations

import os

__all__ = ["processors"]


def processors() -> int:
    """Return this process's share of the processors, which workers of pytest-xdist divide.

    A worker of ``python -m pytest_mlchaos run`` gets its share in ``MLCHAOS_PROCESSORS``.
    """
    given = os.environ.get("MLCHAOS_PROCESSORS")
    if given is not None:
        return max(1, int(given))
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, count // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
