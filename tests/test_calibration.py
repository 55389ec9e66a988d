"""The measured error rates of the oracles, their page, and the verdict about them."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy.special")

ROOT = Path(__file__).parent.parent
# The folder benchmarks is not a package, and its other modules must not be found by their names.
_FOLDER = ROOT / "benchmarks" / "calibration"
_SPEC = importlib.util.spec_from_file_location("calibration", _FOLDER / "__init__.py")
sys.modules["calibration"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(sys.modules["calibration"])

from calibration import AREAS, SHAPES, Case, cases, draw, without_advice  # noqa: E402
from calibration import __main__ as session  # noqa: E402
from calibration.counts import (  # noqa: E402
    EXCEPTIONS,
    WANTED,
    Count,
    Key,
    find_problem,
    has_to_run,
    jobs,
    read,
    simulate,
    write,
)
from calibration.page import chart_digest, make_page  # noqa: E402

DOCS = ROOT / "docs"
REPEATED = 2


def _coin(alarm=0.5, power=0.5):
    """An oracle with known rates."""
    return Case(
        null=lambda rng, n, shape: rng.random() < alarm,
        effect=lambda rng, n, shape, share: rng.random() < power * share,
        alarm="",
        found="",
        power={50: 0.8},
        sizes=(50,),
    )


NULL, EFFECT = Key("coin", "null", 50, "normal"), Key("coin", "effect", 50, "normal")


def test_the_page_shows_the_counts():
    """``python -m calibration.page`` would change nothing."""
    counts = {area: read(area) for area in AREAS}
    text = (DOCS / "calibration.md").read_text(encoding="utf-8")
    assert text == make_page(counts)
    for area, found in counts.items():
        chart = f"power-{area}.svg"
        if chart in text:
            svg = (DOCS / "images" / chart).read_text(encoding="utf-8")
            assert chart_digest(area, found) in svg


def test_no_measured_rate_is_violated():
    """Except for those that are known, with a reason."""
    problems = {
        str(key): problem
        for area in AREAS
        for key, count in read(area).items()
        if (problem := find_problem(key, count, cases(area)[key.oracle]))
    }
    assert problems.keys() <= EXCEPTIONS.keys(), problems
    assert set(EXCEPTIONS) <= {str(key) for area in AREAS for key in jobs(area)}


@pytest.mark.parametrize("area", AREAS)
def test_the_counts_are_those_of_the_oracles(area):
    """The first repetitions of each small simulation give what the file says."""
    counts, known = read(area), cases(area)
    assert counts.keys() <= set(jobs(area))
    with without_advice():
        for oracle, case in known.items():
            for kind in ("null", "effect"):
                key = Key(oracle, kind, min(case.sizes), case.shapes[0])
                first = counts.get(key, Count()).first[:REPEATED]
                assert simulate(key, case, 0, len(first)) == first, key


def test_repetitions_continue_where_they_stopped():
    """Each has a seed of its own."""
    whole = simulate(NULL, _coin(), 0, 30)
    assert simulate(NULL, _coin(), 0, 12) + simulate(NULL, _coin(), 12, 30) == whole
    assert 5 < whole.count("1") < 25
    other = Key("coin", "null", 50, "heavy")
    assert simulate(other, _coin(), 0, 30) != whole


def test_counts_survive_their_file(tmp_path):
    """Also the points of a curve."""
    half = Key("assert_fair (passes)", "effect", 500, "tied", 0.5)
    counts = {NULL: Count(30, 2, "01"), half: Count(3, 3, "111")}
    write("coin", counts, tmp_path)
    assert read("coin", tmp_path) == counts


@pytest.mark.parametrize(
    ("key", "repetitions", "found", "problem"),
    [
        (NULL, 1_000, 50, ""),
        (NULL, 1_000, 65, ""),  # not decided yet
        (NULL, 1_000, 110, "false alarms: 0.110"),
        (NULL, 10_000, 740, "false alarms: 0.074"),
        (NULL, 10_000, 650, ""),
        (EFFECT, 1_000, 900, ""),
        (EFFECT, 1_000, 700, "power: 0.700"),
        (EFFECT, 10_000, 8_000, "power: 0.800"),
        (EFFECT, 100, 0, ""),  # too few to judge a power
    ],
)
def test_a_rate_is_judged_by_its_bound(key, repetitions, found, problem):
    """The upper bound of false alarms may be 0.075, and the lower bound of the power 0.8."""
    text = find_problem(key, Count(repetitions, found), _coin())
    assert text.startswith(problem)
    assert bool(text) == bool(problem)


@pytest.mark.parametrize(
    ("key", "count", "wanted"),
    [
        (NULL, Count(), WANTED),
        (NULL, Count(WANTED, 40), WANTED),
        (NULL, Count(WANTED, 65), 2 * WANTED),
        (NULL, Count(WANTED, 200), WANTED),
        (EFFECT, Count(WANTED, 810), 2 * WANTED),
        (EFFECT, Count(8_000, 6_450), 10_000),
    ],
)
def test_an_undecided_rate_gets_more_repetitions(key, count, wanted):
    """Up to 10,000."""
    assert has_to_run(key, count, _coin()) == wanted


def test_a_session_runs_until_each_rate_is_decided(monkeypatch, tmp_path):
    """It adds to the counts of an earlier session."""
    monkeypatch.setattr(session, "jobs", lambda area: [EFFECT, NULL])
    monkeypatch.setattr(session, "write", lambda area, counts: write(area, counts, tmp_path))
    known = {"area": {"coin": _coin(alarm=0.02, power=0.9)}}
    counts = {"area": {NULL: Count(WANTED - 5, 10, "0" * 20)}}
    options = argparse.Namespace(only="", sizes="")
    session._run(known, counts, float("inf"), options)
    assert counts["area"][NULL].repetitions == WANTED
    assert 10 <= counts["area"][NULL].found <= 15
    assert counts["area"][EFFECT].repetitions == WANTED
    assert read("area", tmp_path) == counts["area"]


def test_a_violated_rate_fails_the_session(monkeypatch, capsys):
    """It names the rate."""
    monkeypatch.setattr(session, "jobs", lambda area: [NULL])
    known = {"area": {"coin": _coin()}}
    assert session._judge(known, {"area": {NULL: Count(WANTED, 50)}}) == 0
    assert session._judge(known, {"area": {NULL: Count(WANTED, 200)}}) == 1
    assert "VIOLATED area: coin | null | 50 | normal" in capsys.readouterr().out


@pytest.mark.parametrize("shape", SHAPES)
def test_data_of_each_shape_are_standardised(shape):
    """An effect means the same for all of them."""
    values = draw(np.random.default_rng(0), 200_000, shape)
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.15
