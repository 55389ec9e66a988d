"""Count the processors that this process may use, and those that nothing else uses now."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["idle_processors", "processors"]

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""The limit of a container (cgroups v2): microseconds of processor time for each period."""
GIVEN = "MLCHAOS_PROCESSORS"


def processors() -> int:
    """Return this process's share of the processors, which workers of pytest-xdist divide.

    A container may have fewer than the machine. A worker of ``python -m pytest_mlchaos run`` gets
    its share in ``MLCHAOS_PROCESSORS``.
    """
    given = os.environ.get(GIVEN)
    if given is not None:
        return max(1, int(given))
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(count, _quota()) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def idle_processors() -> int:
    """Return the processors of ``processors`` that other programs leave, 1 or more.

    The load is the average of the last minute, and this process is a part of it. A share that was
    given is not reduced, because the other workers are a part of the load as well.
    """
    own = processors()
    if GIVEN in os.environ or "PYTEST_XDIST_WORKER_COUNT" in os.environ:
        return own
    if not hasattr(os, "getloadavg"):
        return own
    others = max(0, round(os.getloadavg()[0]) - 1)
    return max(1, min(own, (os.cpu_count() or 1) - others))


def _quota() -> int:
    """Return the whole processors that a container allows, at least 1. No limit: very many."""
    try:
        quota, period = CPU_MAX.read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return 1 << 20  # no container, or one without a limit ("max")
