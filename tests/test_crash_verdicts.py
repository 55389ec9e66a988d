"""Verdicts and diagnoses, on traces made by hand."""

from __future__ import annotations

import dataclasses
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from pytest_mlchaos.crashes.model import CrashState, RunResult
from pytest_mlchaos.crashes.report import CrashReport
from pytest_mlchaos.crashes.verdicts import CrashJudge
from pytest_mlchaos.errors import BadArgument, NotRecovered
from pytest_mlchaos.runs.diagnosis import align, first_divergence
from pytest_mlchaos.runs.traces import GeneratorMark, StepRecord, Trace


def step(number, **changed):
    """A golden step: each component's digest names the step."""
    names = ("parameters", "optimizer state", "learning rate", "rng.torch", "rng.python")
    digests = {name: f"{name}{number}".encode() for name in names} | {
        "rng.python": b"never drawn from"
    }
    data = changed.pop("data", (b"batch%d" % number,))
    return StepRecord(
        digests | {name.replace("_", " "): value for name, value in changed.items()}, data, (), 0.1
    )


def trace(*steps, epochs=()):
    """A run of these steps."""
    return Trace(list(steps), {"parameters": b"end"}, list(epochs))


GOLDEN = trace(*map(step, range(10)), epochs=[0, 5])


def ran(found, value=1, **more):
    """A run that returned."""
    return RunResult(value=value, trace=found, **more)


def state(number, *, name="a", at=0, until=None, torn=False):
    """A crash state."""
    return CrashState(
        f"{name}#{number}",
        at,
        name,
        f"{name} complete",
        {},
        torn,
        until=at if until is None else until,
    )


def test_a_resumed_run_is_aligned_by_its_first_parameters():
    """Wherever it went on from; a run of no steps had nothing left to do; parameters that never
    were align nowhere.
    """
    assert align(GOLDEN, trace(*map(step, range(3, 10)))) == 3
    assert align(GOLDEN, trace()) == 10
    assert align(GOLDEN, trace(step(3, parameters=b"x"))) is None


def test_parameters_that_stood_still_are_aligned_by_what_else_is_alike():
    """A step at a learning rate of 0 changes nothing: the optimizer's state tells the steps apart."""
    golden = trace(step(0), step(1, parameters=b"parameters0"), step(2))
    assert align(golden, trace(step(1, parameters=b"parameters0"), step(2))) == 1
    assert align(golden, trace(step(0), step(1), step(2))) == 0


@pytest.mark.parametrize(
    ("resumed", "component", "says"),
    [
        (step(4, optimizer_state=b"x"), "optimizer state", "is not restored"),
        (step(4, learning_rate=b"x"), "learning rate", "scheduler"),
        (step(4, data=(b"batch3",)), "data order", "off by one: the batch of step 3 is repeated"),
        (step(4, data=(b"batch5",)), "data order", "off by one: the batch of step 4 is skipped"),
        (step(4, data=(b"batch0",)), "data order", "the position in the epoch is not restored"),
        (step(4, data=(b"batch7",)), "data order", "the step got the batch of step 7 instead"),
        (step(4, data=(b"noise",), **{"rng.torch": b"x"}), "rng.torch", "so the data differ"),
        (step(4, data=(b"noise",), **{"rng.python": b"x"}), "data order", "different data"),
    ],
)
def test_the_first_difference_is_the_diagnosis(resumed, component, says):
    """The order is the checkpoint's content, then the data, then the generators.

    A generator that no code draws from explains nothing.
    """
    found = first_divergence(GOLDEN, trace(resumed, *map(step, range(5, 10))), 4)
    assert (found.step, found.component) == (4, component)
    assert says in found.detail


def test_a_lost_generator_shows_in_the_parameters_behind_it():
    """Dropout: data and optimizer are alike, the next parameters are not."""
    lost = {"rng.torch": b"x"}
    found = first_divergence(GOLDEN, trace(step(4, **lost), step(5, parameters=b"x", **lost)), 4)
    assert (found.step, found.component) == (4, "rng.torch")
    assert (
        first_divergence(GOLDEN, trace(step(4), step(5, parameters=b"x")), 4).component
        == "parameters"
    )


def restored(golden_step, *steps):
    """A golden run that saved its generator before a step, and a run that was resumed there, from
    that state.
    """
    golden = trace(*map(step, range(10)))
    golden.marks = {GeneratorMark("rng.torch", b"saved", golden_step, True)}
    resumed = trace(*steps)
    resumed.restored = {"rng.torch": b"saved"}
    return golden, resumed


def test_a_restored_generator_that_differs_with_the_data_is_not_blamed():
    """Either may be the consequence of the other: both are offered, and neither is called lost."""
    golden, resumed = restored(4, step(4, data=(b"x",), **{"rng.torch": b"x"}))
    found = first_divergence(golden, resumed, 4)
    assert (found.step, found.component) == (4, "data order")
    assert (
        "rng.torch was restored, but differs in the same step: either the source of the data"
        in found.detail
    )
    assert "more or fewer numbers were drawn after the load" in found.detail


@pytest.mark.parametrize("saved", [3, 5])
def test_a_generator_of_another_save_is_lost(saved):
    """The state that the golden run had at another step is not the one to go on from."""
    golden, resumed = restored(saved, step(4, data=(b"x",), **{"rng.torch": b"x"}))
    found = first_divergence(golden, resumed, 4)
    assert found.component == "rng.torch"
    assert "is not restored" in found.detail


def test_a_generator_that_was_alike_at_the_first_step_was_restored():
    """It differs from a later step on, as the data do: no load was seen, but the state was the
    golden one.
    """
    found = first_divergence(
        GOLDEN, trace(step(4), step(5, data=(b"x",), **{"rng.torch": b"x"})), 4
    )
    assert (found.step, found.component) == (5, "data order")
    assert "rng.torch was restored" in found.detail
    drawn = first_divergence(
        GOLDEN, trace(step(4), step(5, **{"rng.torch": b"x"}), step(6, parameters=b"x")), 4
    )
    assert (drawn.step, drawn.component) == (5, "rng.torch")
    assert "not restored, or some code draws only after a restart" in drawn.detail
    late = first_divergence(
        GOLDEN, trace(step(4), step(5, parameters=b"x", **{"rng.torch": b"x"})), 4
    )
    assert (late.step, late.component) == (5, "parameters")
    assert "perhaps as a consequence" in late.detail


def test_buffers_that_differ_with_a_lost_generator_may_be_a_consequence():
    """Noise in front of a batch norm moves its statistics within the step."""
    golden = trace(*(step(n, buffers=b"%d" % n) for n in range(10)))
    both = first_divergence(golden, trace(step(4, buffers=b"x", **{"rng.torch": b"x"})), 4)
    assert both.component == "rng.torch"
    assert (
        "buffers differ in the same step: as a consequence, or because they are not restored"
        in both.detail
    )
    assert first_divergence(golden, trace(step(4, buffers=b"x")), 4).component == "buffers"


@pytest.mark.parametrize(
    ("lost", "component", "says"),
    [
        ({}, "data order", "the step got the batch of step 0 instead"),
        ({"rng.torch": b"x"}, "rng.torch", "the step got the batch of step 0 instead"),
    ],
)
def test_without_a_loader_there_is_no_epoch(lost, component, says):
    """Batches drawn by ``randint``: the one that comes is named, and no position."""
    golden = trace(*map(step, range(10)))
    found = first_divergence(golden, trace(step(4, data=(b"batch0",), **lost)), 4)
    assert found.component == component
    assert says in found.detail
    assert "epoch" not in found.detail


def test_a_loader_for_something_else_makes_no_epoch():
    """A validation loader is started, and gives its batches, before steps 0 and 3: the training's
    own come from elsewhere.
    """
    golden = trace(*map(step, range(10)), epochs=[0, 3])
    golden.steps[0], golden.steps[3] = (
        dataclasses.replace(golden.steps[n], batches=(b"validation",)) for n in (0, 3)
    )
    found = first_divergence(golden, trace(step(5, data=(b"batch3",))), 5)
    assert found.detail == "the step got the batch of step 3 instead"


def test_a_step_that_a_checkpoint_counts_and_has_not_taken_is_missing():
    """It was saved before its own step: the run goes on with the next one; of the last checkpoint,
    with none.
    """
    golden = trace(*map(step, range(10)))
    golden.final = GOLDEN.final
    found = first_divergence(golden, trace(step(4, data=(b"batch5",)), *map(step, range(6, 10))), 4)
    assert (found.step, found.component) == (4, "number of steps")
    assert "off by one: one step is missing" in found.detail
    assert "continues with step 5" in found.detail
    loaded = first_divergence(
        GOLDEN, trace(step(4, data=(b"batch5",)), *map(step, range(6, 10))), 4
    )
    assert (loaded.component, loaded.detail) == (
        "data order",
        "off by one: the batch of step 4 is skipped",
    ), "a loader has positions"
    done = trace()
    done.held = frozenset([b"parameters9", b"of another model"])
    last = first_divergence(GOLDEN, done, 10)
    assert (last.step, last.component) == (9, "number of steps")
    assert "off by one: one step is missing" in last.detail
    assert "no step follows" in last.detail
    unloaded = first_divergence(
        GOLDEN, trace(step(4, data=(b"batch5",), optimizer_state=b"optimizer state5")), 4
    )
    assert unloaded.component == "optimizer state"
    done.held |= {b"end"}
    assert first_divergence(GOLDEN, done, 10) is None


def test_too_many_or_too_few_steps_are_said():
    """An epoch counter that is off trains longer, or shorter."""
    assert (
        "2 more"
        in first_divergence(GOLDEN, trace(*map(step, range(5, 10)), step(10), step(11)), 5).detail
    )
    assert "3 fewer" in first_divergence(GOLDEN, trace(*map(step, range(5, 7))), 5).detail


def test_parameters_that_never_were_are_said_with_what_is_known_of_them():
    """Parameters of one checkpoint, the optimizer of another."""
    found = first_divergence(
        GOLDEN, trace(step(6, parameters=b"x"), *map(step, range(7, 10))), None
    )
    assert found.component == "parameters"
    assert "optimizer state from before step 6" in found.detail


def test_verdicts_of_single_runs():
    """Recovered, diverged, failed, hung; and what each costs."""
    judge = CrashJudge(ran(GOLDEN))
    whole = judge.outcome(state(1, at=3, until=5), ran(trace(*map(step, range(3, 10)))))
    assert (whole.verdict, whole.resumed_at, whole.lost_steps, whole.recovery_time) == (
        "recovered",
        3,
        2,
        0.1,
    )
    other = judge.outcome(state(1, at=3), ran(trace(*map(step, range(3, 10))), 2))
    assert other.verdict == "diverged"
    assert other.divergence.component == "returned value"
    assert judge.outcome(state(1), RunResult(error=KeyError("x"))).verdict == "failed"
    hung = judge.outcome(state(1), RunResult(hung="in wait"))
    assert hung.verdict == "hung"
    assert "in wait" in str(hung.error)


def test_to_begin_from_scratch_is_a_restart_only_behind_a_state_that_did_not():
    """The first checkpoint is not there yet: nothing could be lost."""
    judge = CrashJudge(ran(GOLDEN))
    scratch, resumed = ran(trace(*map(step, range(10)))), ran(trace(*map(step, range(4, 10))))
    runs = [scratch, resumed, scratch]
    outcomes = judge.finish(
        [judge.outcome(state(number, at=number * 4), one) for number, one in enumerate(runs)]
    )
    assert [outcome.verdict for outcome in outcomes] == ["recovered", "recovered", "restarted"]
    assert "a#1 (a complete) resumed from step 4" in outcomes[2].detail


def test_a_second_crash_is_a_restart_only_behind_a_checkpoint_of_its_own_past():
    """A checkpoint that came later in the first run was never there in the run that is crashed
    again.
    """
    judge = CrashJudge(ran(GOLDEN))
    scratch, resumed = ran(trace(*map(step, range(10)))), ran(trace(*map(step, range(4, 10))))
    parents = [None, None, "a#0", "a#1"]
    states = [
        dataclasses.replace(state(number, at=4), parent=parent)
        for number, parent in enumerate(parents)
    ]
    outcomes = judge.finish(
        [
            judge.outcome(*pair)
            for pair in zip(states, [scratch, resumed, scratch, scratch], strict=True)
        ]
    )
    assert [outcome.verdict for outcome in outcomes] == [
        "recovered",
        "recovered",
        "recovered",
        "restarted",
    ]


def test_without_steps_the_files_written_tell_the_progress():
    """The first one that a run writes again as the golden run had; what every run writes says
    nothing.
    """
    config, files = ("config", b"same"), [("last", b"%d" % number) for number in range(6)]
    judge = CrashJudge(RunResult(value=1, completed=(config, *files)))
    began = [0, 1, 0, 4, 0, 6]
    runs = [RunResult(value=1, completed=(config, *files[number:])) for number in began]
    outcomes = judge.finish([judge.outcome(state(number), one) for number, one in enumerate(runs)])
    assert [outcome.verdict for outcome in outcomes] == ["recovered"] * 2 + [
        "restarted",
        "recovered",
        "restarted",
        "recovered",
    ]
    assert "resumed from a checkpoint" in outcomes[2].detail


def test_a_generator_that_ends_in_another_state_is_named_where_there_are_no_steps():
    """One that the golden run draws from."""
    golden = Trace(random={"rng.numpy": (b"a", b"b"), "rng.python": (b"c", b"c")})
    judge = CrashJudge(RunResult(value=1, trace=golden))
    found = judge.outcome(
        state(0),
        RunResult(
            value=2, trace=Trace(random={"rng.numpy": (b"x", b"y"), "rng.python": (b"z", b"z")})
        ),
    )
    assert found.divergence.component == "rng.numpy"
    kept = judge.outcome(
        state(0),
        RunResult(
            value=2, trace=Trace(random={"rng.numpy": (b"x", b"b"), "rng.python": (b"z", b"z")})
        ),
    )
    assert kept.divergence.component == "returned value"


def test_a_generator_that_was_restored_is_not_named_where_there_are_no_steps():
    """It was set to a state that the golden run had asked for: it ends in another one as a
    consequence.
    """
    golden = Trace(
        random={"rng.numpy": (b"a", b"b")}, marks={GeneratorMark("rng.numpy", b"saved", 0, True)}
    )
    resumed = Trace(random={"rng.numpy": (b"x", b"y")}, restored={"rng.numpy": b"saved"})
    judge = CrashJudge(RunResult(value=1, trace=golden))
    assert (
        judge.outcome(state(0), RunResult(value=2, trace=resumed)).divergence.component
        == "returned value"
    )
    resumed.restored = {"rng.numpy": b"a seed"}
    assert (
        judge.outcome(state(0), RunResult(value=2, trace=resumed)).divergence.component
        == "rng.numpy"
    )


@pytest.mark.parametrize(
    ("began", "verdict"),
    [([4, 8], "recovered"), ([1, 2], "recovered"), ([1, 1], "diverged"), ([3, 2], "diverged")],
    ids=["steps", "epochs of 4", "a constant", "no ratio"],
)
def test_an_entry_that_only_says_where_a_run_went_on_is_no_divergence(began, verdict):
    """It is the step, or in one ratio to it in all runs; any other number that is 0 without a crash
    is.
    """
    judge = CrashJudge(ran(GOLDEN, {"sum": 5, "began": 0}))
    runs = [
        ran(trace(*map(step, range(at, 10))), {"sum": 5, "began": number})
        for at, number in zip((4, 8), began, strict=True)
    ]
    outcomes = judge.finish(
        [judge.outcome(state(number, at=number), one) for number, one in enumerate(runs)]
    )
    assert {outcome.verdict for outcome in outcomes} == {verdict}


def test_an_entry_seen_at_one_step_is_undecided():
    """A further state could show that it is in one ratio to the step; seen at two steps in no
    ratio, it is a failure.
    """
    judge = CrashJudge(ran(GOLDEN, {"loss": 1, "epoch": 0}))
    runs = {
        at: ran(trace(*map(step, range(at, 10))), {"loss": 1, "epoch": epoch})
        for at, epoch in ((4, 2), (8, 3))
    }
    one, two = (judge.outcome(state(at, at=at), run) for at, run in runs.items())
    assert judge.undecided(judge.finish([one])) == [one]
    assert not judge.undecided(judge.finish([one, two]))


def test_nothing_to_judge_is_an_error():
    """No value, no trained parameters, no file."""
    with pytest.raises(BadArgument, match="nothing to judge"):
        CrashJudge(RunResult())


def report(outcomes, **more):
    """A report of these."""
    return CrashReport(
        steps=10,
        writes=3,
        states=[o.state for o in outcomes],
        outcomes=outcomes,
        duration=1.0,
        **more,
    )


def test_the_report_groups_by_cause_with_the_earliest_example():
    """One line a cause, worst first; numbers and paths in a message do not make a cause of their
    own.
    """
    judge = CrashJudge(ran(GOLDEN))
    runs = [
        ran(trace(step(4, data=(b"batch3",)), *map(step, range(5, 10))), 2),
        RunResult(error=ValueError("bad byte 17 in '/tmp/a'"), place="train.py:3 in load"),
        RunResult(error=ValueError("bad byte 23 in '/tmp/b'"), place="train.py:3 in load"),
    ]
    found = report(
        [judge.outcome(state(number, name="c.pt", at=3), one) for number, one in enumerate(runs)],
        test="t.py::test_a",
    )
    text = str(found)
    assert (
        "3 crash states in 10 steps (3 checkpoint writes), checked in 1.0 s: 0 recover, 3 do not"
        in text
    )
    assert "  failed      2x  resume raised ValueError\n" in text
    assert "at train.py:3 in load" in text
    assert "  diverged    1x  first divergence at step 4: data order" in text
    assert text.index("failed") < text.index("diverged")
    assert 'reproduce: @chaos.crash(state="c.pt#1")' in text
    assert '''or: pytest "t.py::test_a" --mlchaos-replay "crash(state='c.pt#1')"''' in text


def test_lost_work_is_judged_when_asked_for():
    """All recover, but one has to do too much again."""
    judge = CrashJudge(ran(GOLDEN))
    found = report([judge.outcome(state(0, at=3, until=9), ran(trace(*map(step, range(3, 10)))))])
    found.assert_recovers()
    found.assert_recovers(max_lost_steps=6)
    assert found.max_lost_steps == 6
    assert "all recover" in str(found)
    assert "lost work: at most 6 steps" in str(found)
    with pytest.raises(
        NotRecovered,
        match=r"more than 5 steps had to be done again(.|\n)*most: 6, with a complete, after step 3",
    ):
        found.assert_recovers(max_lost_steps=5)
    with pytest.raises(BadArgument, match="max_lost_steps must be 0 or more, got -1"):
        found.assert_recovers(max_lost_steps=-1)


def test_a_tolerance_judges_what_diverged_anew():
    """By the value that was returned."""
    judge = CrashJudge(ran(GOLDEN, 1.0))
    found = report(
        [judge.outcome(state(0), ran(trace(*map(step, range(10))), 1.001))], rejudged=judge.again
    )
    with pytest.raises(NotRecovered):
        found.assert_recovers(atol=1e-4)
    found.assert_recovers(atol=1e-2)


@pytest.mark.parametrize(
    ("value", "golden"),
    [
        ([[0, 0.5], [1, 0.25]], [(0, 0.5), (1, 0.25)]),
        ({"best": np.array(0.5)}, {"best": 0.5}),
        ({"better": True}, {"better": np.bool_(True)}),
        (np.array([0.5, 0.25]), [0.5, 0.25]),
        ({"path": "a/b"}, {"path": Path("a/b")}),
        ([1, 2], deque([1, 2])),
    ],
)
def test_what_a_file_format_makes_of_a_value_is_the_same_value(value, golden):
    """A finished job that reads its result from JSON or NumPy files has lists for tuples, and
    arrays for numbers.
    """
    judge = CrashJudge(RunResult(value=golden, trace=GOLDEN))
    assert judge.outcome(state(10), ran(trace(), value=value)).verdict == "recovered"
    assert judge.differs(ran(GOLDEN, value=value)) is None


@pytest.mark.parametrize(
    ("value", "golden"),
    [([0, 0.5], (0, 0.25)), ("12", [1, 2]), (1, "1"), (np.array([1, 2]), [1, 2, 3]), ({}, [])],
)
def test_what_holds_something_else_is_another_value(value, golden):
    """No format makes a number of a text, or leaves out an entry."""
    assert (
        CrashJudge(RunResult(value=golden, trace=GOLDEN))
        .outcome(state(10), ran(trace(), value=value))
        .verdict
        == "diverged"
    )


@pytest.mark.parametrize(("idle", "component"), [(["rng.torch"], "parameters"), ([], "rng.torch")])
def test_a_seed_that_loaders_draw_for_nobody_explains_nothing(idle, component):
    """A loader without workers draws one when it is started: that its generator is another has no
    effect.
    """
    golden = trace(*map(step, range(10)))
    golden.idle = frozenset(idle)
    lost = {"rng.torch": b"x"}
    resumed = trace(step(5, **lost), step(6, **lost), step(7, parameters=b"x", **lost))
    assert first_divergence(golden, resumed, 5).component == component
    other_data = trace(step(5, data=(b"x",), **lost))
    assert first_divergence(golden, other_data, 5).component == (
        "data order" if idle else "rng.torch"
    )


def test_gradients_that_were_accumulated_before_the_crash_are_named():
    """A step that is given but the last of its micro-batches has lost the gradients of those
    before.
    """
    golden = trace(*(step(n, data=(b"%da" % n, b"%db" % n, b"%dc" % n)) for n in range(3)))
    found = first_divergence(golden, trace(step(1, data=(b"1b", b"1c")), step(2)), 1)
    assert (found.component, found.detail) == (
        "data order",
        "the gradients that were accumulated before are lost: the step has the last 2 of its 3 "
        "batches",
    )


def test_a_finished_training_that_goes_on_is_named():
    """Its first parameters are those of the end: it takes steps that the run without a crash did
    not take.
    """
    resumed = trace(step(10, parameters=b"end"))
    assert align(GOLDEN, resumed) == 10
    found = first_divergence(GOLDEN, resumed, 10)
    assert (found.step, found.component) == (10, "number of steps")
    assert "1 more" in found.detail
    assert "was complete" in found.detail
    judged = CrashJudge(ran(GOLDEN)).outcome(state(10), ran(resumed, value=2))
    assert (judged.resumed_at, judged.lost_steps) == (10, 0)
