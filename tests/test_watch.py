"""Alerts under test: they fire under faults, in time, and are quiet without them."""

from __future__ import annotations

MONITOR = """
import logging, warnings

import numpy as np
import pytest
from pytest_mlchaos import chaos

log = logging.getLogger("train")
log.propagate = False


class Refused(ValueError):
    pass


class Monitor:
    def __init__(self, after=1):
        self.after, self.bad, self.alarm = after, 0, False

    def update(self, batch):
        is_bad = bool(np.isnan(batch).any())
        self.bad = self.bad + 1 if is_bad else 0
        self.alarm = self.bad >= self.after
        if is_bad:
            log.error("loss is %s", "nan")
            warnings.warn("the loss is nan", RuntimeWarning)


def batches(mlchaos, number=10):
    return mlchaos.batches([np.ones(4) for _ in range(number)])


def watched(mlchaos, monitor, number=10, **how):
    how = how or {"alert": lambda: monitor.alarm}
    watch = mlchaos.watch(**how)
    for batch in batches(mlchaos, number):
        monitor.update(batch)
    return watch


"""


SOUND = [
    (
        "state",
        "watch = watched(mlchaos, Monitor())\nwatch.assert_fired(within=0)\n"
        "assert (watch.visits_to_detect, watch.missed) == (0, [])",
        "@chaos.corrupt_batch(at=3)",
    ),
    (
        "late",
        "watch = watched(mlchaos, Monitor(after=3))\nwatch.assert_fired(within=2)\n"
        "assert watch.visits_to_detect == 2",
        "@chaos.corrupt_batch(at=range(3, 9))",
    ),
    (
        "log",
        'watched(mlchaos, Monitor(), log="loss is (nan|inf)").assert_fired()',
        "@chaos.corrupt_batch(at=3)",
    ),
    (
        "warning",
        'watched(mlchaos, Monitor(), warning="is nan").assert_fired(within="1s")',
        "@chaos.corrupt_batch(at=3)",
    ),
    (
        "warning class",
        "watched(mlchaos, Monitor(), warning=RuntimeWarning).assert_fired()",
        "@chaos.corrupt_batch(at=3)",
    ),
    (
        "check",
        "watch = watched(mlchaos, Monitor(), alert=lambda batch: np.isnan(batch).any())\n"
        "watch.assert_fired(within=0)\nassert watch.time_to_resolve is not None",
        "@chaos.corrupt_batch(at=3)",
    ),
    (
        "search",
        "watched(mlchaos, Monitor()).assert_fired(within=1)",
        "@chaos.corrupt_batch",
    ),
    (
        "gradual",
        "def check(batch):\n    assert np.isnan(batch).mean() < 0.6\n"
        "watch = watched(mlchaos, Monitor(), alert=check)\nwatch.assert_fired()\n"
        "assert watch.visits_to_detect == 2",
        "@chaos.corrupt_batch(ramp=4, at=3)",
    ),
    (
        "quiet below the limit",
        "watched(mlchaos, Monitor(after=3)).assert_quiet()",
        "@chaos.corrupt_batch(at=3)",
    ),
    (
        "a guard",
        "with mlchaos.watch(raises=Refused) as watch:\n"
        "    for batch in batches(mlchaos):\n"
        "        if np.isnan(batch).any():\n"
        "            raise Refused\n"
        "watch.assert_fired(within=0)",
        "@chaos.corrupt_batch(at=3)",
    ),
]
"""The name of each test, its body and its decorators."""
UNSOUND = [
    (
        "missed",
        "watched(mlchaos, Monitor(after=3)).assert_fired()",
        "@chaos.corrupt_batch(at=3)",
        ["Unnoticed: alert did not see corrupt_batch(at=3)", "6 further visits"],
    ),
    (
        "too late",
        "watched(mlchaos, Monitor(after=3)).assert_fired(within=1)",
        "@chaos.corrupt_batch(at=range(3, 9))",
        ["Unnoticed: ", "too late: after 2 further visits, and within=1 visits"],
    ),
    (
        "ended too early to say",
        "watched(mlchaos, Monitor(after=3)).assert_fired(within=5)",
        "@chaos.corrupt_batch(at=7)",
        ["Inconclusive: alert did not fire, and the run ended 2 further visits after"],
    ),
    (
        "always on",
        "m = Monitor()\nwatched(mlchaos, m, alert=lambda: True).assert_fired()",
        "@chaos.corrupt_batch(at=3)",
        ["FalseAlarm: alert fires without any fault"],
    ),
    (
        "always on, in a search",
        "m = Monitor()\nwatched(mlchaos, m, alert=lambda: True).assert_fired()",
        "@chaos.corrupt_batch",
        ["FalseAlarm: alert fires without any fault"],
    ),
    (
        "noise",
        'm = Monitor()\nwatched(mlchaos, m, log="never seen").assert_quiet()',
        "@chaos.corrupt_batch(at=3)",
        ["Inconclusive: log 'never seen' was quiet, and also in the positive control"],
    ),
    (
        "not quiet",
        "watched(mlchaos, Monitor()).assert_quiet()",
        "@chaos.corrupt_batch(at=3)",
        ["FalseAlarm: alert fired under corrupt_batch(at=3), where it must be quiet"],
    ),
    (
        "no fault",
        "watched(mlchaos, Monitor()).assert_fired()",
        "",
        ["Vacuous: assert_fired: this test declares no fault"],
    ),
    (
        "never judged",
        "watched(mlchaos, Monitor())",
        "@chaos.corrupt_batch(at=3)",
        ["Vacuous: nothing judged the result of mlchaos.watch(...)"],
    ),
    (
        "a check of a site that nothing passes",
        'watched(mlchaos, Monitor(), alert=lambda t: 0, site="data.table").assert_quiet()',
        "@chaos.corrupt_batch(at=3)",
        ["Inconclusive: alert was never called, because nothing passed data.table"],
    ),
    (
        "an alert with a mistake",
        "m = Monitor()\nwatched(mlchaos, m, alert=lambda: m.alrm).assert_fired()",
        "@chaos.corrupt_batch(at=3)",
        ["BadArgument: mlchaos.watch: alert cannot be read", "AttributeError"],
    ),
    (
        "a guard that does not stop it",
        "with mlchaos.watch(raises=Refused) as watch:\n"
        "    list(batches(mlchaos))\nwatch.assert_fired()",
        "@chaos.corrupt_batch(at=3)",
        ["Unnoticed: Refused did not see"],
    ),
]
"""The same, and what the verdict says."""


def module(cases):
    """Return a test module with a test for each case."""
    text = MONITOR
    for number, (_, body, marks, *_) in enumerate(cases):
        lines = "\n    ".join(body.splitlines())
        text += f"{marks}\ndef test_{number}(mlchaos):\n    {lines}\n\n\n"
    return text


def test_an_alert_that_works_passes(example):
    """It sees the fault in time, or is quiet where it must be."""
    project = example.with_file("test_it.py", module(SOUND))
    project.run("--mlchaos-max-trials=4", passed=len(SOUND))


def test_an_alert_that_does_not_work_is_refused(example):
    """The verdict names what is wrong with it."""
    project = example.with_file("test_it.py", module(UNSOUND))
    outcome = project.run("--mlchaos-max-trials=4", failed=len(UNSOUND))
    for _, _, _, texts in UNSOUND:
        outcome.has(*texts)


def test_without_faults_nothing_is_asked_of_an_alert(example):
    """``--mlchaos-off`` runs the tests as they are."""
    check = "watched(mlchaos, Monitor(), alert=lambda b: np.isnan(b).any()).assert_fired()"
    cases = [*SOUND[2:5], ("check", check, "@chaos.corrupt_batch(at=3)")]
    project = example.with_file("test_it.py", module(cases))
    project.run("--mlchaos-off", passed=len(cases))
