"""Faults whose severity grows over visits."""

from __future__ import annotations

import pytest

from pytest_mlchaos import Schedule, faults
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.errors import BadArgument

faults.load()


@pytest.mark.parametrize(
    ("name", "keywords", "parameter", "values"),
    [
        ("corrupt_batch", {"fraction": 0.5, "at": 3}, "fraction", [0.125, 0.25, 0.375, 0.5, 0.5]),
        ("corrupt_batch", {"at": EVERY}, "fraction", [0.25, 0.5, 0.75, 1.0, 1.0]),
        (
            "corrupt_batch",
            {"kind": "scale", "magnitude": 9.0, "at": 0},
            "magnitude",
            [3.0, 5.0, 7.0, 9.0, 9.0],
        ),
        ("corrupt_batch", {"severity": 3, "at": 0}, "severity", [1, 2, 3, 3, 3]),
        ("truncation", {"keep": 0.2, "at": 0}, "keep", [0.8, 0.6, 0.4, 0.2, 0.2]),
        ("call_delay", {"target": "json:loads", "delay": "2s", "at": 0}, "delay", [0.5, 1, 1.5, 2]),
        ("reorder_batches", {"window": 8, "at": 0}, "window", [2, 4, 6, 8]),
    ],
)
def test_a_parameter_grows_to_its_value_over_the_ramp(name, keywords, parameter, values):
    """It grows evenly, from the value that does nothing, and then stays."""
    fault = create(name, ramp=4, **keywords)
    first = fault.at[0] if isinstance(fault.at, tuple) else 0
    found = [getattr(fault.at_visit(first + n), parameter) for n in range(len(values))]
    assert found == pytest.approx(values)


def test_only_the_given_parameter_grows():
    """The noise grows in all elements, because the share was not given."""
    fault = create("corrupt_batch", kind="noise", magnitude=4.0, ramp=4, at=0)
    assert (fault.at_visit(0).magnitude, fault.at_visit(0).fraction) == (1.0, 1.0)


def test_a_growing_fault_strikes_from_its_visit_on():
    """One visit names its beginning, and ``times`` its end."""
    fault = create("corrupt_batch", fraction=0.5, ramp=20, at=3)
    assert [fault.strikes_at(visit, 0) for visit in (2, 3, 4, 99)] == [False, True, True, True]


def test_a_probability_grows():
    """Few of the first visits fail, and the given share of the later ones."""
    fault = create("call_failure", target="json:loads", p=0.5, ramp=200)
    early, late = (
        sum(fault.strikes_at(visit, 1) for visit in visits)
        for visits in (range(200), range(200, 400))
    )
    assert 20 < early < 70 < late < 120


def test_a_schedule_with_a_ramp_reads_back():
    """The pasted line keeps the ramp."""
    schedule = Schedule((create("corrupt_batch", fraction=0.5, ramp=20, at=3),))
    assert "ramp=20" in schedule.line
    assert Schedule.parse(schedule.line) == schedule


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"ramp": 1}, "2 or more, got 1"),
        ({"ramp": 0.5}, "ramp must be"),
        ({"ramp": -3}, "2 or more, got -3"),
        ({"ramp": True}, "ramp must be"),
    ],
)
def test_a_wrong_ramp_is_refused(keywords, text):
    """The message names the rule and the value."""
    with pytest.raises(BadArgument, match=text):
        create("corrupt_batch", at=0, **keywords)


def test_a_fault_without_a_size_takes_no_ramp():
    """A crash cannot grow."""
    with pytest.raises(BadArgument, match="a parameter that can grow"):
        create("crash", at=0, ramp=5)


def test_the_payload_is_damaged_more_with_each_visit(example):
    """The strikes grow, and the journal says how strong each was."""
    example.with_file(
        "test_it.py",
        """
import numpy as np
from pytest_mlchaos import chaos

@chaos.corrupt_batch(fraction=1.0, ramp=4, at=1)
def test_it(mlchaos):
    found = [int(np.isnan(x).sum()) for x in mlchaos.batches([np.ones(8) for _ in range(6)])]
    assert found == [0, 2, 4, 6, 8, 8]
    assert [s.details.get("strength") for s in mlchaos.journal] == [0.25, 0.5, 0.75, None, None]
""",
    ).run(passed=1)


def test_a_search_chooses_where_a_growing_fault_begins(example):
    """Each schedule has one visit, and the fault goes on from there."""
    example.with_file(
        "test_it.py",
        """
import numpy as np
from pytest_mlchaos import chaos

@chaos.corrupt_batch(fraction=1.0, ramp=4)
def test_it(mlchaos):
    found = [bool(np.isnan(x).any()) for x in mlchaos.batches([np.ones(8)] * 12)]
    assert found == sorted(found)
    assert all(len(fault.at) == 1 for fault in mlchaos.schedule.faults if fault.at)
""",
    ).run("--mlchaos-max-trials=6", "--mlchaos-max-faults=3", passed=1)
