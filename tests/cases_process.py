"""Provide the cases for the faults of the process, its memory, its clocks and its workers."""

from __future__ import annotations

import datetime
import subprocess
import time

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import Case

START = time.time() - time.monotonic()


def minutes_off(_):
    """By how much the time of day has jumped: as time shows it, and as datetime does."""
    now = time.monotonic()
    return round((time.time() - now - START) / 60), round(
        (datetime.datetime.now().timestamp() - now - START) / 60
    )


class Loader:
    """Like a DataLoader's iterator, with one worker, which lives until the batch has been looked
    at.
    """

    def __init__(self):
        self.worker = None

    def __reduce__(self):
        return "LOADER"

    @property
    def _workers(self):
        if self.worker is None:
            self.worker = subprocess.Popen(["sleep", "60"])
        return [self.worker]

    def survived(self, _):
        """Return True if the worker is alive, and end it."""
        if self.worker is None:
            return True
        alive = self.worker.poll() is None
        self.worker.kill()
        self.worker.wait()
        self.worker = None
        return alive


LOADER = Loader()


def survived(batch):
    """Return True if the loader's worker is alive."""
    return LOADER.survived(batch)


CASES = {
    "interrupt": Case(create("interrupt"), object),
    "preempt": Case(create("preempt"), object, sticky=True, bad=[{"grace": "soon"}, {"grace": -1}]),
    "worker_death": Case(
        create("worker_death"),
        list,
        operation=survived,
        attributes={"loader": LOADER},
        bad=[{"worker": -1}, {"how": "sleeps"}],
    ),
    "clock_jump": Case(
        create("clock_jump", by="-5m"),
        object,
        operation=minutes_off,
        sticky=True,
        bad=[{"by": "0s"}, {"by": "soon"}],
    ),
    "cpu_starved": Case(
        create("cpu_starved"), object, bad=[{"share": 0.0}, {"share": 1.5}, {"heal_after": 0}]
    ),
    "host_oom": Case(
        create("host_oom"),
        object,
        bad=[
            {"limit": "much"},
            {"limit": "1GiB", "at": 3},
            {"target": " "},
            {"target": "json:loads", "site": "train.step"},
            {"target": "json:loads", "limit": "1GiB", "at": None},
        ],
    ),
    "host_oom of a call": Case(create("host_oom", target="json:loads"), lambda: ((), {})),
}
