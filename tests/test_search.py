"""Exploration finds bugs where faults meet, and shrinks them to the fewest faults at the earliest
visits.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import strategies

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import Fault, OneOf, create, register
from pytest_mlchaos.core.progress import followed_by
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.core.settings import Settings
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.search.explore import Cause, explore
from pytest_mlchaos.search.minimise import minimise
from pytest_mlchaos.search.space import Probe, Space, variants

faults.load()


@register
class LeftKnock(Fault):
    """One kind."""

    site = "left.door"
    searchable = ("force",)
    force: int = 0


@register
class RightKnock(Fault):
    """Another kind."""

    site = "right.door"


def declared(name, origin, **keywords):
    """A fault as the test's declaration of that number."""
    return dataclasses.replace(create(name, **keywords), _origin=origin)


def space(steps=200, reach=1, max_faults=3):
    """Two open faults over so many visits each."""
    visits = tuple(range(steps))
    probes = [
        Probe(declared("left_knock", 0), frozenset(), visits, {"force": reach}),
        Probe(declared("right_knock", 1), frozenset(), visits, {}),
    ]
    return Space(probes, max_faults, 0)


def strikes(schedule):
    """(left visits, right visits)."""
    return [
        [v for fault in schedule.faults if fault.name == name for v in fault.at]
        for name in ("left_knock", "right_knock")
    ]


BUGS = {
    "both, each late enough": (
        lambda left, right: any(a >= 121 for a in left) and any(b >= 151 for b in right),
        ([121], [151]),
    ),
    "both at one step": (
        lambda left, right: any(a >= 120 and a in right for a in left),
        ([120], [120]),
    ),
    "one while the other is not over": (
        lambda left, right: any(a <= b < a + 10 and a >= 100 for a in left for b in right),
        ([100], [100]),
    ),
    "one in a window, after the other": (
        lambda left, right: any(130 <= b < 170 and a < b for a in left for b in right),
        ([0], [130]),
    ),
    "one kind, twice": (lambda left, right: len([a for a in left if a >= 50]) >= 2, ([50, 51], [])),
    "one kind, deep": (lambda left, right: any(b >= 180 for b in right), ([], [180])),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_deep_in_a_long_loop_is_found_and_shrunk_exactly(bug, seed):
    """Within the default number of trials, whatever the seed."""
    breaks, smallest = BUGS[bug]
    found = explore(
        space(),
        lambda s: Cause("Bug", "here", "") if breaks(*strikes(s)) else None,
        Settings(seed=seed),
        "test",
    )
    assert [strikes(failure.smallest) for failure in found.failures] == [list(smallest)]
    assert found.trials <= 50 + 200


def test_a_search_ends_when_its_trials_are_used_up():
    """Distinct schedules are counted, and none is run twice."""
    seen = []
    found = explore(space(), lambda s: seen.append(s.line), Settings(seed=0, max_trials=60), "test")
    assert len(seen) == len(set(seen)) == found.trials == 60


def test_a_small_space_is_searched_to_its_end():
    """Three visits of one fault have seven schedules."""
    seen = set()
    small = Space([Probe(create("right_knock"), frozenset(), (0, 1, 2), {})], 3, 0)
    explore(small, lambda s: seen.add(s.line), Settings(seed=0), "test")
    assert len(seen) == 7


def steps_of(space, trial, **settings):
    """Return the result of a search, and the steps of its progress."""
    steps = []
    with followed_by(steps.append):
        return explore(space, trial, Settings(seed=0, **settings), "test"), steps


@pytest.mark.parametrize(("visits", "total"), [(3, 7), (200, 50)])
def test_progress_counts_to_what_can_be_tried(visits, total):
    """The trials, or the number of schedules if there are fewer."""
    small = Space([Probe(create("right_knock"), frozenset(), tuple(range(visits)), {})], 3, 0)
    _, steps = steps_of(small, lambda s: None)
    assert [(step.done, step.total) for step in steps] == [
        (number, total) for number in range(1, total + 1)
    ]
    assert {(step.what, step.bad, step.note) for step in steps} == {("schedules", 0, "")}


def test_progress_says_that_hypothesis_shrinks(monkeypatch):
    """From its first smaller proposal on. The trials beyond the search have no total."""
    monkeypatch.setattr("pytest_mlchaos.search.explore.minimise", lambda schedule, *_: schedule)
    drawn = declared("left_knock", 0, force=strategies.integers(0, 1000))
    probe = Probe(drawn, frozenset({"force"}), tuple(range(50)), {})

    def trial(schedule):
        bad = any(fault.force >= 321 and min(fault.at) >= 17 for fault in schedule.faults)
        return Cause("Bug", "here", "") if bad else None

    found, steps = steps_of(Space([probe], 1, 0), trial, max_trials=12)
    first = next(number for number, step in enumerate(steps) if step.note)
    assert {step.note for step in steps[:first]} == {""}
    assert {step.note for step in steps[first:]} == {"shrinking"}
    assert [failure.smallest.line for failure in found.failures] == ["left_knock(at=17, force=321)"]
    assert 0 < steps[first].bad < steps[-1].bad
    assert [step.total for step in steps] == [12 if step.done <= 12 else 0 for step in steps]
    assert steps[-1].done > 12


@pytest.mark.parametrize(
    ("probes", "max_faults", "size"),
    [
        ([Probe(create("right_knock"), frozenset(), (0, 1, 2), {})], 2, 6),
        ([Probe(create("left_knock"), frozenset(), (0, 1), {"force": 5})], 1, 10),
        ([Probe(create("left_knock", force=1), frozenset({"force"}), (0, 1), {"force": 5})], 1, 2),
        ([Probe(create("right_knock", at=1), frozenset(), (1,), {})], 3, 1),
        (
            [
                Probe(
                    create("left_knock", force=strategies.floats()), frozenset({"force"}), (0,), {}
                )
            ],
            1,
            math.inf,
        ),
    ],
    ids=["visits", "parameter", "given", "pinned", "strategy"],
)
def test_size_of_a_space(probes, max_faults, size):
    """Each set of at most ``max_faults`` strikes is a schedule."""
    assert Space(probes, max_faults, 0).size() == size


def test_interrupted_search_hands_over_what_it_found():
    """The failures so far, each with its smallest schedule."""
    handed, seen = [], []

    def trial(schedule):
        seen.append(schedule)
        if len(seen) == 9:
            raise KeyboardInterrupt
        return Cause("Bug", "here", "") if strikes(schedule)[0] else None

    with pytest.raises(KeyboardInterrupt):
        explore(space(), trial, Settings(seed=0), "test", interrupted=handed.append)
    (found,) = handed
    bad = [schedule for schedule in seen[:8] if strikes(schedule)[0]]
    assert (found.trials, found.failures[0].count) == (8, len(bad))
    assert found.failures[0].smallest.weight == min(schedule.weight for schedule in bad)


def test_one_seed_tries_the_same_schedules_in_the_same_order():
    """And another seed tries others."""

    def tried(seed):
        seen = []
        explore(space(reach=9), lambda s: seen.append(s.line), Settings(seed=seed), "test")
        return seen

    assert tried(1) == tried(1)
    assert tried(1) != tried(2)


def test_two_harmless_strikes_become_one_harmful_one():
    """Fewer faults count more than smaller parameters."""

    def fails(schedule):
        left, _ = strikes(schedule)
        return len(left) >= 2 or any(
            fault.force >= 7 for fault in schedule.faults if fault.name == "left_knock"
        )

    big = Schedule((declared("left_knock", 0, at=[3, 90]), declared("right_knock", 1, at=5)))
    smallest = minimise(big, space(reach=20), fails)
    assert smallest.line == "left_knock(at=0, force=7)"


def test_strikes_move_together_when_only_that_works():
    """A distance that must be kept is kept."""
    apart = minimise(
        Schedule((declared("left_knock", 0, at=150), declared("right_knock", 1, at=160))),
        space(),
        lambda s: (
            all(strikes(s)) and strikes(s)[1][0] - strikes(s)[0][0] == 10 and strikes(s)[0][0] >= 40
        ),
    )
    assert strikes(apart) == [[40], [50]]


def test_what_was_pinned_stays():
    """Shrinking moves only what was searched."""
    pinned = declared("left_knock", 7, at=7)
    found = minimise(
        Schedule((pinned, declared("left_knock", 0, at=[3, 4]))),
        space(),
        lambda s: pinned in s.faults,
    )
    assert found.faults[0] == pinned


def test_a_simpler_alternative_keeps_the_parameters_that_were_searched():
    """A fault of one rank does not become one of all ranks."""
    skip, double = (create("desync", how=how) for how in ("skip", "double"))
    two = Space(
        [
            Probe(dataclasses.replace(one, _origin=0), frozenset(), (0, 1), {"rank": 2})
            for one in (skip, double)
        ],
        max_faults=1,
        seed=0,
    )
    found = dataclasses.replace(two.probes[1].fault, at=1, rank=1)
    simpler = list(two.simpler_variants(found))
    assert [(one.how, one.at, one.rank) for one in simpler] == [("skip", (1,), 1)]


def test_one_of_may_decide_the_site_and_a_strategy_may_not():
    """Each value is a variant of its own."""
    phases = variants(create("gpu_oom", phase=OneOf(("forward", "optimizer"))))
    assert [fault.key for fault in phases] == ["train.forward", "train.step"]
    with pytest.raises(BadArgument, match="more than 64 combinations"):
        variants(create("left_knock", force=OneOf(tuple(range(65)))))


def test_a_fault_that_can_strike_nowhere_is_not_drawn():
    """Its probe has no visits."""
    empty = dataclasses.replace(
        space(), probes=[Probe(create("left_knock"), frozenset(), (), {}), space().probes[1]]
    )
    explore(
        empty, lambda s: pytest.fail("drawn") if strikes(s)[0] else None, Settings(seed=0), "test"
    )


DEEP = """
    from pytest_mlchaos import chaos, Fault, visit

    @chaos.register
    class Slip(Fault):
        '''Slips.'''
        site = "loop.step"
        def apply(self, visit): raise ConnectionError("slip")

    @chaos.register
    class Blank(Fault):
        '''Blanks.'''
        site = "loop.read"
        def apply(self, visit): return float("nan")

    def loop():
        slipped = None
        for step in range(200):
            value = visit("loop.read", 1.0)
            try:
                visit("loop.step")
            except ConnectionError:
                slipped = step
            if value != value and slipped is not None and slipped > 110 and step > 140:
                raise RuntimeError("the planted bug")
"""


@pytest.mark.slow
@pytest.mark.parametrize("args", [(), ("-n2",)], ids=["alone", "xdist"])
def test_the_pasted_decorators_of_a_deep_bug_reproduce_it(example, args):
    """Two faults at once in a 200-step loop: found, shrunk to exactly those two at their earliest
    visits, pasted, reproduced.
    """
    if args:
        pytest.importorskip("xdist")
    fresh = bool(args)
    outcome = example.with_file(
        "test_it.py", DEEP + "\n    @chaos.slip\n    @chaos.blank\n    def test_it(): loop()\n"
    ).run(*args, fresh=fresh, failed=1)
    assert outcome.reproduce == ["@chaos.slip(at=111)", "@chaos.blank(at=141)"]
    pasted = "".join(f"    {line}\n" for line in outcome.reproduce)
    again = example.with_file("test_it.py", f"{DEEP}\n{pasted}    def test_it(): loop()\n")
    again.run(*args, fresh=fresh, failed=1).has("RuntimeError: the planted bug")
    for changed in ("slip(at=110)", "blank(at=140)"):
        name = changed.partition("(")[0]
        lines = [f"@chaos.{changed}" if f".{name}(" in line else line for line in outcome.reproduce]
        nearly = "".join(f"    {line}\n" for line in lines)
        example.with_file("test_it.py", f"{DEEP}\n{nearly}    def test_it(): loop()\n").run(
            *args, fresh=fresh, passed=1
        )


@pytest.mark.parametrize(("steps", "bad"), [(20, {11}), (30, {29}), (100, {63}), (64, {7, 63})])
def test_visits_are_covered_before_anything_is_left_to_chance(steps, bad):
    """One bad visit among many is found, and the earliest of several is reported, whatever the
    seed.
    """
    alone = Space([Probe(declared("right_knock", 0), frozenset(), tuple(range(steps)), {})], 3, 0)
    for seed in range(3):
        found = explore(
            alone,
            lambda s: Cause("Bug", "here", "") if bad & set(strikes(s)[1]) else None,
            Settings(seed=seed),
            "test",
        )
        assert [strikes(failure.smallest)[1] for failure in found.failures] == [[min(bad)]]


def test_a_harmful_parameter_is_found_and_made_as_small_as_may_be():
    """Explored parameters go over their range while the visits are covered."""

    def fails(schedule):
        return any(
            fault.force >= 13 and visit >= 40
            for fault in schedule.faults
            if fault.name == "left_knock"
            for visit in fault.at
        )

    probes = [Probe(declared("left_knock", 0), frozenset(), tuple(range(60)), {"force": 30})]
    found = explore(
        Space(probes, 3, 0),
        lambda s: Cause("Bug", "here", "") if fails(s) else None,
        Settings(),
        "test",
    )
    assert [failure.smallest.line for failure in found.failures] == ["left_knock(at=40, force=13)"]


@pytest.mark.parametrize("fails_at", [7, 0])
def test_a_parameter_that_was_given_is_not_shrunk(fails_at):
    """The smallest schedule keeps the value that the user wrote, though another one fails as well."""
    given = Probe(
        declared("left_knock", 0, force=7), frozenset({"force"}), tuple(range(20)), {"force": 10}
    )
    smallest = minimise(
        Schedule((declared("left_knock", 0, at=[9], force=7),)),
        Space([given], 3, 0),
        lambda schedule: all(
            fault.force >= fails_at or fault.force == 0 for fault in schedule.faults
        ),
    )
    assert smallest.line == "left_knock(at=0, force=7)"


def test_a_search_over_two_strikes_keeps_what_was_given():
    """Also where several strikes are tried as a single one with other parameters."""
    given = Probe(
        declared("left_knock", 0, force=7), frozenset({"force"}), tuple(range(200)), {"force": 10}
    )
    seen = set()

    def trial(schedule):
        seen.update(fault.force for fault in schedule.faults)
        return (
            Cause("Bug", "here", "")
            if any(visit >= 3 for fault in schedule.faults for visit in fault.at)
            else None
        )

    found = explore(Space([given], 3, 0), trial, Settings(seed=0, max_trials=20), "test")
    assert [failure.smallest.line for failure in found.failures] == ["left_knock(at=3, force=7)"]
    assert seen == {7}
