"""Provide helpers for the tests of served apps."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.plugin.fixture import Mlchaos

faults.load()
sites.load()


@contextlib.contextmanager
def serving_in(tmp_path, app, *schedule, clock="real", **keywords):
    """Serve an app in a trial of these faults."""
    with trial(Schedule(schedule), Patches(), clock=clock):
        yield Mlchaos(tmp_path).serve(app, **keywords)


def is_alive(pid):
    """True if the process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
