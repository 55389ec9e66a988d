"""How much of a fault a subject survives."""

from __future__ import annotations

import json
import math
import random

import pytest

from pytest_mlchaos import chaos, faults
from pytest_mlchaos.breaking.baselines import Interval, compare
from pytest_mlchaos.breaking.bisection import Bisection
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import BadArgument

faults.load()
JOB = """
import numpy as np
from pytest_mlchaos import chaos

LIMIT = 0.3


def mean(batches):
    found = []
    for batch in batches:
        if np.isnan(batch).mean() > LIMIT:
            raise ValueError("too much is missing")
        found.append(np.nanmean(batch))
    return found


def is_finite(run):
    assert np.isfinite(run.value).all()


def find(mlchaos, fault=None, oracle=is_finite, subject=mean, **how):
    fault = fault or chaos.corrupt_batch(fraction=chaos.scale(0, 1))
    batches = mlchaos.batches([np.ones(100) for _ in range(3)])
    return mlchaos.breaking_point(subject, fault, oracle, batches, **how)


"""


def module(tests):
    """A test module with a test for each body."""
    return JOB + "".join(
        f"def test_{number}(mlchaos):\n    " + "\n    ".join(body.splitlines()) + "\n\n\n"
        for number, body in enumerate(tests)
    )


def search(truth, rng, *, slope=math.inf, levels=32, trials=60, noisy=True, clear=1.0):
    """Search a breaking point. Survival falls from ``clear`` to 1 - ``clear`` around the truth."""
    found = Bisection(levels, is_noisy=noisy)
    while len(found.tried) < trials and found.places[-1] - found.places[0] > noisy:
        level = found.next_level()
        distance = truth - (level + 1)
        p = float(distance >= 0) if math.isinf(slope) else 1 / (1 + math.exp(-distance * slope))
        found.record(level, rng.random() < p * clear + (1 - p) * (1 - clear))
    return found


@pytest.mark.parametrize("truth", [0, 1, 7, 31, 32])
def test_one_trial_for_each_level_finds_the_place(truth):
    """A deterministic subject takes as many trials as a bisection."""
    found = search(truth, random.Random(0), noisy=False)
    assert list(found.places) == [truth]
    assert len(found.tried) <= 6


@pytest.mark.parametrize("truth", [0, 1, 7, 31, 32])
def test_repeated_trials_find_the_place(truth):
    """Clear outcomes need few trials for a short interval."""
    found = search(truth, random.Random(0))
    assert truth in found.places
    assert len(found.places) <= 2
    assert len(found.tried) <= 40


def test_the_interval_of_noisy_trials_holds_the_truth():
    """It is wrong in at most 5 % of the searches."""
    rng = random.Random(1)
    truths = [rng.randrange(4, 28) for _ in range(60)]
    missed = sum(truth not in search(truth, rng, slope=0.5).places for truth in truths)
    assert missed <= 3


def test_outcomes_that_differ_a_little_give_an_interval():
    """A subject survives 70 % of the trials below its breaking point, and 30 % above."""
    rng = random.Random(2)
    found = [search(16, rng, trials=400, clear=0.7).places for _ in range(12)]
    assert sum(places[0] > 8 and places[-1] < 24 for places in found) >= 9
    assert all(16 in places for places in found)


@pytest.mark.parametrize(
    ("new", "base", "change"),
    [
        ((0.1, 0.2), (0.1, 0.2), "same"),
        ((0.1, 0.2), (0.15, 0.3), "same"),
        ((0.1, 0.2), (0.2, 0.3), "worse"),
        ((None, 0.1), (0.2, 0.3), "worse"),
        ((0.1, 0.2), (0.5, None), "worse"),
        ((0.3, 0.4), (0.1, 0.2), "better"),
        ((0.3, None), (None, 0.2), "better"),
        ((None, None), (0.1, 0.2), "same"),
    ],
)
def test_only_disjoint_intervals_are_a_change(new, base, change):
    """Overlapping ones do not contradict each other."""
    assert compare(Interval(*new), Interval(*base)) == change


def test_a_falling_scale_is_compared_the_other_way():
    """Keeping 20 % is a stronger fault than keeping 50 %."""
    assert compare(Interval(0.8, 0.7), Interval(0.5, 0.4), falling=True) == "worse"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: chaos.scale(1, 1), "two different numbers"),
        (lambda: chaos.scale(0, float("nan")), "two different numbers"),
        (lambda: chaos.scale(0, 1, steps=1), "steps must be from 2"),
        (lambda: chaos.scale(0, 10_000), "at most 1000 whole numbers"),
        (
            lambda: create("corrupt_batch", at=0, fraction=chaos.scale(0, 1)),
            r"chaos\.scale works in mlchaos\.breaking_point",
        ),
    ],
)
def test_a_wrong_scale_is_refused(call, text):
    """The message says what is allowed."""
    with pytest.raises(BadArgument, match=text):
        call()


SOUND = [
    "point = find(mlchaos)\npoint.assert_survives(0.2)\nassert 0.25 <= point.estimate <= 0.32",
    "point = find(mlchaos, repeat=False)\n"
    "assert (point.low, point.high, point.trials) == (0.28125, 0.3125, 5)",
    "point = find(mlchaos, chaos.corrupt_batch(severity=chaos.scale(1, 5)), staged=True)\n"
    "assert (point.low, point.high, point.trials) == (3, 4, 4)",
    'point = find(mlchaos, chaos.corrupt_batch(kind="zero", fraction=chaos.scale(0, 1)))\n'
    "point.assert_survives(1.0)\nassert point.high is None",
]
UNSOUND = [
    ("find(mlchaos).assert_survives(0.5)", "Worse: mean breaks between 0."),
    ("find(mlchaos).assert_survives(0.29)", "Inconclusive: mean breaks between 0."),
    ("find(mlchaos).assert_no_regression()", "and its baseline is missing in baselines.json"),
    ("find(mlchaos)", "Vacuous: nothing judged the result of mlchaos.breaking_point(...)"),
    ("find(mlchaos, oracle=lambda run: False)", "GoldenRunFailed: mlchaos.breaking_point"),
    ("find(mlchaos, subject=lambda batches: 1)", "never struck, so it says nothing"),
    ("find(mlchaos, chaos.corrupt_batch(at=0))", "exactly one parameter of corrupt_batch must"),
    ("find(mlchaos, confidence=2)", "confidence must be from 0.5"),
]


def test_how_much_a_subject_survives_is_found(example):
    """The interval is around the limit of the subject."""
    example.with_file("test_it.py", module(SOUND)).run(passed=len(SOUND))


def test_a_search_that_shows_nothing_fails(example):
    """The message says what is missing."""
    project = example.with_file("test_it.py", module([body for body, _ in UNSOUND]))
    outcome = project.run(failed=len(UNSOUND))
    outcome.has(*(text for _, text in UNSOUND), "fraction  survived")


def test_a_baseline_is_a_ratchet(example):
    """Worse fails with both intervals, the same passes, and better is told."""
    body = module(["find(mlchaos, repeat=False).assert_no_regression()"])
    project = example.with_file("test_it.py", body)
    project.run("--mlchaos-update-baselines", passed=1).has("written to the baselines")
    path = project.pytester.path / ".mlchaos" / "baselines.json"
    entry = json.loads(path.read_text())["breaking_points"]["test_it.py::test_0: mean"]
    assert (entry["low"], entry["high"]) == (0.2812, 0.3125)
    project.run(passed=1)
    worse = project.with_file("test_it.py", body.replace("LIMIT = 0.3", "LIMIT = 0.1"))
    worse.run(failed=1).has(
        "Regressed: mean breaks between 0.09375 and 0.125",
        "In the baseline, it breaks between 0.2812 and 0.3125",
    )
    better = project.with_file("test_it.py", body.replace("LIMIT = 0.3", "LIMIT = 0.6"))
    better.run(passed=1).has("better than the baseline (between 0.2812 and 0.3125): run with")
