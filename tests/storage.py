"""Provide helpers for the tests of storage: a trial with faults, and counts of visits."""

from __future__ import annotations

import contextlib

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.core.storage import OPERATIONS
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.subjects import subject_runs
from pytest_mlchaos.engine.trial import trial

faults.load()
sites.load()


def armed(tmp_path, *declared, seed=0, own=None):
    """A trial with these faults, in which the parent of ``tmp_path`` is the test's own directory.

    Its folders are those of all tests before, and only so many folders are watched for native code.
    """
    return trial(Schedule(declared, seed), Patches(), own=[own or tmp_path.parent])


def watching(tmp_path):
    """A trial that watches every storage site, and in which nothing is due."""
    names = ["storage", *(f"storage.{op}" for op in OPERATIONS)]
    return armed(tmp_path, *(create("crash", site=name, at=10**6) for name in names))


def counts(controller):
    """Return the count of each operation, for example ``{"open": 1, "write": 2}``.

    ``storage`` has counted all of them.
    """
    passed = controller.passed()
    total = passed.pop("storage", 0)
    assert total == sum(passed.values())
    return {name.removeprefix("storage."): count for name, count in passed.items()}


def made(tmp_path, action):
    """Return the counts of one action's visits."""
    with watching(tmp_path) as controller:
        action()
    return counts(controller)


@contextlib.contextmanager
def running(folder, *declared, probing=False, stepwise=False, clock="real"):
    """A subject that works in a folder, in a trial with these faults."""
    with (
        trial(
            Schedule(declared), Patches(), own=[folder.parent], probing=probing, clock=clock
        ) as controller,
        subject_runs(controller, [folder], stepwise=stepwise) as begin,
    ):
        begin()
        yield controller
