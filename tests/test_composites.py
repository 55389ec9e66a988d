"""Composite faults: one decorator searches over all faults of one kind that fit the test."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.composites import CompositeFault
from pytest_mlchaos.core.faults import FAULTS, Fault, create, register
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.search.space import Probe, Space, variants, without_superseded

faults.load()

PARTS = """
from typing import ClassVar
from pytest_mlchaos.core.composites import CompositeFault
from pytest_mlchaos.core.faults import Fault

@chaos.register
class BadLuck(CompositeFault):
    '''Everything.'''

class Value(Fault):
    site = "sensor.read"

    def apply(self, visit):
        return self.value

@chaos.register
class Zero(Value):
    '''Zero.'''
    member_of: ClassVar = {"bad_luck": 1}
    value = 0.0

@chaos.register
class Negative(Value):
    '''Negative.'''
    member_of: ClassVar = {"bad_luck": 2}
    value = -1.0

@chaos.register
class Elsewhere(Value):
    '''At a site that the test does not pass.'''
    site = "other.site"
    member_of: ClassVar = {"bad_luck": 0}
    value = 1.0
"""


@pytest.fixture
def registered():
    """Forget the faults that a test registers."""
    known = dict(FAULTS)
    yield
    FAULTS.clear()
    FAULTS.update(known)


@pytest.fixture
def family(registered):
    """A composite with two members, the second tried in two ways."""

    @register
    class Family(CompositeFault):
        """Two faults."""

    @register
    class First(Fault):
        """The first."""

        site = "a"
        member_of = {"family": 5}  # noqa: RUF012

        def apply(self, visit):
            return 1

    @register
    class Second(Fault):
        """The second."""

        site = "b"
        path: str | None = None
        target: str | None = None
        kind: str = "x"
        member_of = {"family": 1}  # noqa: RUF012
        tried_as = ({"kind": "x"}, {"kind": "y"})

        def apply(self, visit):
            return 2

    return Family


def test_composite_members_come_by_rank_and_way(family):
    """The most telling first, and each way that a fault is tried in."""
    members = [repr(member) for member, _ in family().members()]
    assert members == ["second()", "second(kind='y')", "first()"]


def test_composite_path_and_target_choose_members(family):
    """Only faults that take them are tried, with these values."""
    assert [repr(one) for one, _ in family(path="*.csv").members()] == [
        "second(path='*.csv')",
        "second(path='*.csv', kind='y')",
    ]
    assert [one.target for one, _ in family(target="a:b").members()] == ["a:b", "a:b"]


def test_composite_target_leaves_out_what_strikes_files():
    """A fault of tables takes file= or target=."""
    members = [one for one, _ in create("bad_data", target="a:b").members()]
    assert "missing_feature" in {one.name for one in members}
    assert {one.target for one in members} == {"a:b"}
    assert not any(getattr(one, "file", None) for one in members)


@pytest.mark.slow
def test_composite_passes_over_streams_at_a_plain_call(example):
    """A fault that ends or repeats a stream has nothing to strike at a function's value."""
    example.with_tests(
        """
def load():
    return {"x": 1.0}

def subject():
    found = load()
    if set(found) != {"x"} or found["x"] != 1.0:
        raise ValueError(found)
    return found

@chaos.bad_data(target="test_it:load")
def test_it(mlchaos):
    mlchaos.pipeline(subject).assert_same_output()
"""
    ).run(passed=1)


def test_composite_exclude_leaves_a_fault_out(family):
    """A name that it does not know is refused, with the ones that it knows."""
    assert [one.name for one, _ in family(exclude="second").members()] == ["first"]
    with pytest.raises(BadArgument, match=r"did you mean 'second'.*They are first, second"):
        family(exclude="secon").members()


@pytest.mark.parametrize("keyword", [{"at": 3}, {"p": 0.5}, {"path": " "}, {"exclude": 3}])
def test_composite_with_a_wrong_keyword_is_refused(family, keyword):
    """Each member has visits of its own, so none can be given for all."""
    with pytest.raises(BadArgument, match=f"family: {next(iter(keyword))}"):
        family(**keyword)


def test_space_of_a_composite_tries_each_variant_before_a_second_visit(family):
    """Later members are reached within few trials."""
    probes = [
        Probe(variant, given, tuple(range(10)), {})
        for member, given in dataclasses.replace(family(), _origin=0).members()
        for variant in variants(member, given)
    ]
    space = Space(probes, 1, 0, covers=True)
    first = [schedule.line for schedule in space.sweep(6)]
    assert first[:3] == ["second(at=0)", "second(at=0, kind='y')", "first(at=0)"]
    assert "first(at=8)" in first[3:]


@pytest.mark.parametrize("name", ["bad_data", "bad_storage", "bad_day"])
def test_composites_members_can_be_made(name):
    """Each way that a composite tries is valid, and leaves the visits to the search."""
    for member, _ in create(name).members():
        assert not member.is_pinned, f"{name} tries {member!r}, which is pinned"


def test_bad_day_tries_what_the_others_try():
    """It is the union, with faults of training and serving."""
    names = {member.name for member, _ in create("bad_day").members()}
    for part in ("bad_data", "bad_storage"):
        assert {member.name for member, _ in create(part).members()} <= names
    assert "gpu_oom" in names


@pytest.mark.slow
def test_composite_finds_the_member_that_breaks_the_test(example, registered):
    """The printed schedule has that fault alone, and reproduces the failure."""
    chosen = example.with_tests(
        PARTS
        + """
@chaos.bad_luck
def test_it(mlchaos):
    values = [mlchaos.visit("sensor.read", 1.0) for _ in range(3)]
    assert min(values) >= 0
"""
    )
    found = chosen.run(failed=1)
    assert found.reproduce == ["@chaos.negative(at=0)"]
    chosen.run("--mlchaos-replay", found.replay, failed=1)


def test_composite_passes_if_each_member_that_fits_is_survived(example, registered):
    """Members whose site the test does not pass are left out."""
    outcome = example.with_tests(
        PARTS
        + """
@chaos.bad_luck
def test_it(mlchaos):
    assert sum(mlchaos.visit("sensor.read", 1.0) for _ in range(3)) < 4
"""
    ).run(passed=1)
    assert outcome.has("7 trials, 6 faults struck")


def test_composite_without_a_fitting_member_never_struck(example, registered):
    """A test that passes none of the sites proves nothing."""
    example.with_tests(
        PARTS
        + """
@chaos.bad_luck
def test_it(mlchaos):
    mlchaos.visit("unknown", 1)
"""
    ).run(failed=1).has("bad_luck() never struck", "elsewhere, zero, negative")


SETS_UP = """
@chaos.register
class Zero(Fault):
    site = "sensor.read"

    def apply(self, visit):
        return 0.0

@chaos.zero
def test_it(mlchaos):
    assert mlchaos.visit("sensor.read", 1.0) == 1.0
    run = mlchaos.pipeline(lambda: {inside})
    assert run.value != 5
"""


def test_search_leaves_out_set_up_code(example, registered):
    """A strike in the test's own body would blame the subject for it."""
    source = SETS_UP.replace("{inside}", 'visit("sensor.read", 1.0)')
    example.with_tests(source).run(passed=1).has("2 trials, 1 fault struck")


def test_search_with_visits_in_set_up_code_alone_never_struck(example, registered):
    """The message says where they are."""
    source = SETS_UP.replace("{inside}", "3")
    example.with_tests(source).run(failed=1).has("NeverStruck", "only in the test's own body")


def test_composite_strikes_files_rather_than_what_readers_return():
    """A reader that checks types would refuse such a table, so a sound program is not blamed."""

    def probes(*, composite):
        return [
            Probe(
                dataclasses.replace(create("schema_drift", **where), _composite=composite),
                frozenset(),
                visits,
                {},
            )
            for where, visits in (({"file": "*"}, (0,)), ({}, (0, 1)))
        ]

    at_rest, returned = probes(composite=True)
    assert without_superseded([returned, at_rest]) == [at_rest]
    unread = dataclasses.replace(at_rest, visits=())
    assert without_superseded([returned, unread]) == [returned, unread]
    at_rest, returned = probes(composite=False)
    assert without_superseded([returned, at_rest]) == [returned, at_rest]


REFUSES = """
from typing import ClassVar

@chaos.register
class Stained(Fault):
    '''A value is negative.'''
    site = "sensor.read"
    member_of: ClassVar = {"bad_day": 0}

    def apply(self, visit):
        return -1.0

def job(folder):
    value = visit("sensor.read", 1.0)
    if value < 0:
        raise ValueError("it cannot be negative")
    return {"value": value}

@chaos.bad_day
def test_composite(mlchaos, tmp_path):
    run = mlchaos.run(job, tmp_path)
    run.assert_recovered()
    assert not run.faults or run.restarts == 1

@chaos.stained(at=0)
def test_alone(mlchaos, tmp_path):
    mlchaos.run(job, tmp_path).assert_recovered()
"""


def test_composite_run_that_refuses_damage_is_started_again(example, registered):
    """An error is a sound answer to it. A fault that the test names is a different matter."""
    outcome = example.with_tests(REFUSES).run(passed=1, failed=1)
    assert outcome.has("FAILED test_it.py::test_alone", "it cannot be negative")


def test_composite_leaves_out_what_a_sound_run_may_skip(example, registered):
    """A loop that skips a damaged batch ends in a different state, and is not blamed for that."""
    source = """
    def train():
        return [batch for batch in visit_all() if batch[0] == batch[0]]

    def visit_all():
        return [visit("data.batch", [float(number)]) for number in range(3)]

    @chaos.bad_data
    def test_it(mlchaos):
        mlchaos.run(train).assert_recovered()
    """
    example.with_tests(source).run(passed=1)
