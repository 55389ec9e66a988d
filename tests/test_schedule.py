"""Schedules are plain data: they print as decorators and read back."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlchaos import Schedule, faults
from pytest_mlchaos.core.faults import EVERY, create, following
from pytest_mlchaos.errors import BadArgument, UnknownFault
from pytest_mlchaos.testing import strike

faults.load()

VISITS = st.one_of(
    st.none(),
    st.just(EVERY),
    st.integers(0, 10**6),
    st.lists(st.integers(0, 50), min_size=1, unique=True),
    st.integers(0, 9).map(lambda start: range(start, start + 7)),
)
PARAMETERS = {
    "crash": st.fixed_dictionaries(
        {}, optional={"site": st.sampled_from(["train.step", "my.site"])}
    ),
    "gpu_oom": st.fixed_dictionaries(
        {}, optional={"phase": st.sampled_from(["forward", "optimizer"]), "op": st.integers(0, 99)}
    ),
    "corrupt_batch": st.fixed_dictionaries(
        {},
        optional={
            "fraction": st.floats(0.001, 1),
            "fields": st.sampled_from(["x", "a.b", 0, ("x", "y")]),
            "kind": st.just("zero"),
        },
    ),
    "call_failure": st.fixed_dictionaries(
        {"target": st.sampled_from(["json:dumps", "a.b.c"])},
        optional={
            "error": st.sampled_from(
                [TimeoutError, OSError(5, "I/O 'error'"), "json:JSONDecodeError('x', 'y', 0)"]
            )
        },
    ),
    "call_delay": st.fixed_dictionaries(
        {"target": st.just("json:dumps")}, optional={"delay": st.sampled_from([0.25, "2s", 7])}
    ),
}


@st.composite
def any_fault(draw):
    """A fault of any kind, fixed or not."""
    name = draw(st.sampled_from(sorted(PARAMETERS)))
    when = {"at": draw(VISITS)} if draw(st.booleans()) else {"p": draw(st.floats(0.001, 1))}
    return create(name, **when, times=draw(st.none() | st.integers(1, 9)), **draw(PARAMETERS[name]))


SCHEDULES = st.builds(
    Schedule, st.lists(any_fault(), min_size=1, max_size=4).map(tuple), st.integers(0, 2**63)
)


@given(SCHEDULES)
def test_a_schedule_reads_back_from_its_decorators(schedule):
    """``parse`` reads the output of ``repr``."""
    assert Schedule.parse(repr(schedule)) == schedule


@given(SCHEDULES)
def test_a_schedule_reads_back_from_one_line(schedule):
    """The replay option gives the same schedule."""
    assert Schedule.parse(schedule.line) == schedule


@given(SCHEDULES)
def test_a_schedule_can_be_shipped_to_another_process(schedule):
    """Schedules pickle."""
    assert pickle.loads(pickle.dumps(schedule)) == schedule


@given(any_fault(), st.integers(0, 2**40), st.integers(0, 300))
def test_what_is_due_depends_on_the_arguments_alone(fault, seed, visit):
    """A fault that is asked again, or was printed and read, is due at the same visits."""
    again = Schedule.parse(repr(fault)).faults[0]
    assert again.strikes_at(visit, seed) == fault.strikes_at(visit, seed)


def test_a_schedule_prints_as_the_user_wrote_it():
    """The decorators show what was given and no defaults."""
    schedule = Schedule((create("gpu_oom", at=7), create("crash", at=range(5, 9))), 3)
    assert repr(schedule) == "@chaos.gpu_oom(at=7)\n@chaos.crash(at=range(5, 9))"


def test_the_seed_is_printed_where_it_matters():
    """A fault that draws numbers, or strikes with a probability, needs it to be reproduced; others
    do not.
    """
    assert (
        repr(Schedule((create("crash", p=0.5),), 3))
        == "@chaos.settings(seed=3)\n@chaos.crash(p=0.5)"
    )
    assert (
        Schedule((create("corrupt_batch", at=1),), 3).line
        == "settings(seed=3); corrupt_batch(at=1)"
    )
    assert Schedule((create("crash", at=1),), 3) == Schedule((create("crash", at=1),), 4)


@pytest.mark.parametrize(
    "text",
    [
        "gpu_oom(at=7)",
        "@chaos.gpu_oom(at=7)",
        "chaos.gpu_oom(at=[7])",
        "  gpu_oom( at = 7 ) ",
        "gpu_oom(at=7),",
        "@chaos.gpu_oom(at=7);",
    ],
)
def test_schedules_are_read_as_they_get_pasted(text):
    """With or without @chaos, with stray blanks and commas."""
    assert Schedule.parse(text) == Schedule((create("gpu_oom", at=7),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be faults such as"),
        ("gpu_oom(at=", "must be faults such as"),
        ("gpu_oom(7)", "must be keywords"),
        ("gpu_oom(at=open('x'))", "an argument must be a plain value"),
        ("gpu_oom(at=-1)", "at must be a visit number"),
        ("gpu_oom(at=1, p=0.5)", "exclude each other"),
        ("x = 1", "must be faults such as"),
        ("settings(seed='a'); crash(at=1)", "settings(seed=N)"),
        ("__import__('os')", "must be keywords"),
    ],
)
def test_a_schedule_that_makes_no_sense_says_what_was_expected(text, message):
    """Each mistake gets an error with the text and the cure, and nothing of it is executed."""
    with pytest.raises(BadArgument) as caught:
        Schedule.parse(text)
    assert message in str(caught.value)


def test_an_unknown_fault_is_named_with_its_likely_spelling():
    """A typo gets the name that was probably meant."""
    with pytest.raises(UnknownFault, match=r"unknown fault 'gpu_omm' \(did you mean 'gpu_oom'\?\)"):
        Schedule.parse("gpu_omm(at=1)")


HUGE = [range(5, 3 * 10**7), range(10**12), range(0, 10**30, 7), range(10**12, -1, -3)]


@pytest.mark.parametrize("visits", HUGE, ids=str)
def test_a_huge_range_of_visits_stays_a_range(visits):
    """It prints short, reads back, is counted and is matched by arithmetic, however far it reaches."""
    schedule = Schedule((create("crash", at=visits),))
    (fault,) = schedule.faults
    assert isinstance(fault.at, range)
    assert len(schedule.line) < 80
    assert Schedule.parse(schedule.line) == schedule
    assert (
        schedule.weight[0]
        == (max(visits[0], visits[-1]) - min(visits[0], visits[-1])) // abs(visits.step) + 1
    )
    assert [fault.strikes_at(visit, 0) for visit in (*range(12), 10**12, 10**30)] == [
        visit in visits for visit in (*range(12), 10**12, 10**30)
    ]


@pytest.mark.parametrize("visits", HUGE, ids=str)
def test_the_next_visit_of_a_huge_range_is_found_by_arithmetic(visits):
    """The controller asks for the next one that is due, from any visit on."""
    at = create("crash", at=visits).at
    for start in (0, 1, 5, 6, 7, 10**6 + 1):
        found = following(at, start)
        assert found is not None
        assert found in visits
        assert not any(visit in visits for visit in range(start, found))
    assert following(at, 10**31) is None


def test_a_huge_range_strikes_at_its_visits_alone():
    """The first and the last visits that a trial passes are as the range says."""
    struck = strike(create("crash", site="my.site", at=range(2, 10**12, 2), times=1), [0] * 5)
    assert [entry.visit for entry in struck.journal] == [2]


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ([4, 3, 2, 1], "range(1, 5)"),
        (range(4, 0, -1), "range(1, 5)"),
        ([9, 3, 6, 0], "range(0, 10, 3)"),
        (range(0, 12, 3), "range(0, 10, 3)"),
        (range(3), "[0, 1, 2]"),
        ([0, 1, 2, 4], "[0, 1, 2, 4]"),
        (range(7, 8), "7"),
        ([7, 7], "7"),
    ],
)
def test_equal_visits_are_equal_however_they_were_given(given, printed):
    """A list and a range of the same numbers have one form, so that no schedule is tried twice."""
    assert repr(create("crash", at=given)) == f"crash(at={printed})"


@pytest.mark.parametrize(
    "at",
    [
        *(
            range(-1, 10**12),
            range(10**12, -2, -1),
            range(5, 5),
            range(10**12, 5),
            [],
            [-1],
            [0, "1"],
            [True],
            [None],
        ),
        *(True, -1, 1.0, "3", b"3", float("nan"), float("inf"), {1: 2}, [0.5]),
    ],
    ids=repr,
)
def test_what_is_not_a_visit_number_is_refused(at):
    """Negative numbers, empty ranges and other types get one clear line, at once."""
    with pytest.raises(BadArgument, match="crash: at must be a visit number"):
        create("crash", at=at)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crash(at=range('3'))", "is not a range"),
        ("crash(at=range(1, 9, 0))", "is not a range"),
        ("crash(at=range())", "is not a range"),
        ("crash(at=1, at=2)", "given twice"),
        ("crash(at=chaos.one_of())", "a plain value"),
        ("crash(at=" + "(" * 5000 + ")" * 5000 + ")", "must be faults such as"),
    ],
)
def test_a_bad_replay_line_is_refused_in_one_line(text, message):
    """A line that Python itself cannot parse is the user's mistake, too."""
    with pytest.raises(BadArgument, match=message):
        Schedule.parse(text)


def test_a_schedule_without_strategies_can_be_sent():
    """Leave open what is drawn, and keep the rest."""
    fault = create("partial_gradient", rank=1, fraction=st.floats(0.1, 0.9), at=3)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        pickle.dumps(Schedule((fault,)))
    (kept,) = pickle.loads(pickle.dumps(Schedule((fault,)).without_strategies())).faults
    assert (kept.rank, kept.at, kept.is_pinned) == (1, (3,), False)
    plain = Schedule((create("partial_gradient", rank=1, at=3),), seed=4)
    assert plain.without_strategies() == plain
