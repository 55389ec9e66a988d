"""States that are not run, runs that end early, and the order in which states are tried."""

from __future__ import annotations

import dataclasses
import textwrap

import pytest

from pytest_mlchaos.crashes import early_end
from pytest_mlchaos.crashes.early_end import (
    EarlyEnd,
    GoldenSteps,
    Stop,
    automatic_horizon,
    golden_steps,
)
from pytest_mlchaos.crashes.model import Change, Content, CrashState, File
from pytest_mlchaos.crashes.recording.content_store import ContentStore
from pytest_mlchaos.crashes.recording.location import NoReadLog
from pytest_mlchaos.crashes.sweep import in_order, kind_of
from pytest_mlchaos.runs.diagnosis import step_keys
from pytest_mlchaos.runs.traces import StepRecord, Trace

SUBJECTS = '''
import ctypes, os, pathlib, pickle
import pytest

def train(workdir, steps=8, *, done=None):
    """Adds up; replaces a file with the sum and its step atomically."""
    with open(pathlib.Path(workdir).parent / "runs", "a") as runs:
        runs.write("x")
    file = pathlib.Path(workdir) / "last.pkl"
    state = pickle.loads(file.read_bytes()) if file.exists() else {"step": 0, "sum": 0}
    while state["step"] < steps:
        state["sum"] += state["step"]
        state["step"] += 1
        tmp = file.with_name("last.pkl.tmp")
        with tmp.open("wb") as out:
            for part in range(4):
                out.write(pickle.dumps(state)[:0] + bytes(4096)); out.flush()
            out.seek(0); out.write(pickle.dumps(state))
        os.replace(tmp, file)
    return state if done is None else done(state)

LIBC = ctypes.CDLL(None)

def trusts_sizes(workdir):
    """Fails if it finds a large temporary file, whose size it asks for as C++ code does."""
    tmp = pathlib.Path(workdir) / "last.pkl.tmp"
    status = ctypes.create_string_buffer(512)
    if LIBC.stat(os.fsencode(tmp), status) == 0 and int.from_bytes(status[48:56], "little") > 4096:
        raise ValueError("a large temporary file")
    return train(workdir)
'''

LOOP = '''
import os, pathlib
import torch

class Job:
    """Trains, replaces its checkpoint atomically every three steps, and keeps a plain number."""

    def __init__(self, steps=24, keeps=True, late=None):
        self.steps, self.keeps, self.late = steps, keeps, late

    def __call__(self, workdir):
        torch.manual_seed(0); torch.set_num_threads(1)
        model, file = torch.nn.Linear(3, 1), pathlib.Path(workdir) / "last.pt"
        opt = torch.optim.SGD(model.parameters(), 0.01)
        first, best = 0, 0
        if file.exists():
            held = torch.load(file)
            model.load_state_dict(held["model"]); first = held["step"]; torch.set_rng_state(held["rng"])
            best = held["best"] if self.keeps else 0
        for step in range(first, self.steps):
            if self.late is not None and best >= self.late:
                opt.param_groups[0]["lr"] = 0.001
            loss = model(torch.randn(4, 3)).square().mean()
            opt.zero_grad(); loss.backward(); opt.step()
            best += 1
            if (step + 1) % 3 == 0:
                tmp = file.with_suffix(".tmp")
                held = {"model": model.state_dict(), "step": step + 1, "rng": torch.get_rng_state()}
                torch.save(held | ({"best": best} if self.keeps else {}), tmp)
                os.replace(tmp, file)
        return model.state_dict() if self.late is not None else best
'''


ISOLATIONS = ["in-process", pytest.param("process", marks=pytest.mark.slow)]


@pytest.fixture
def project(example):
    """A project with these subjects."""
    return lambda tests, subjects=SUBJECTS: example.with_tests(subjects + textwrap.dedent(tests))


# -- states that follow ----------------------------------------------------------------------------


@pytest.mark.slow
def test_states_that_no_run_can_tell_apart_are_run_once(project):
    """The cuts of a temporary file that no run opens follow from one of them, and some are
    checked.
    """
    project("""
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path / "work", isolation="in-process")
            report.assert_recovers()
            runs = len((tmp_path / "runs").read_text())
            own = [outcome for outcome in report.outcomes if outcome.follows is None]
            assert runs == len(own) + 1 < len(report.states) / 2  # and the golden run
            assert len(report.outcomes) == len(report.states) and not report.untried
            by_id = {outcome.state.id: outcome for outcome in report.outcomes}
            for outcome in report.outcomes:
                if outcome.follows is not None:
                    assert by_id[outcome.follows].follows is None
                    assert by_id[outcome.follows].verdict == outcome.verdict
            checked = [outcome for outcome in report.outcomes if outcome.verified]
            assert checked and len(checked) < len(own)
            assert f"states: {len(own)} run; {len(checked)} of them to check" in str(report)
    """).run(passed=1)


@pytest.mark.slow
def test_exhaustive_runs_each_state(project):
    """No outcome follows from another one, and the report says nothing of that."""
    project("""
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path / "work", isolation="in-process", exhaustive=True)
            assert len((tmp_path / "runs").read_text()) == len(report.states) + 1
            assert all(outcome.follows is None and not outcome.verified for outcome in report.outcomes)
            assert "follow" not in str(report)
    """).run(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_check_that_ends_differently_runs_all_states(project, isolation):
    """The size of a file that is asked for by C is not seen. The checks show that it matters."""
    if isolation == "process":
        pytest.importorskip("cloudpickle")
    project(f"""
        def explored(mlchaos, path, **keywords):
            path.mkdir()
            report = mlchaos.explore_crashes(trusts_sizes, path, isolation="{isolation}", **keywords)
            return report, {{outcome.state.id: outcome.verdict for outcome in report.outcomes}}

        def test_it(mlchaos, tmp_path):
            report, found = explored(mlchaos, tmp_path / "a")
            _, expected = explored(mlchaos, tmp_path / "b", exhaustive=True)
            assert "failed" in found.values() and found == expected
            assert all(outcome.follows is None for outcome in report.outcomes)
            assert "all states were run: the run from" in str(report)
    """).run(passed=1)


@pytest.mark.slow
def test_a_state_that_is_asked_for_is_run_itself(project):
    """A pasted line repeats the run that it names."""
    project("""
        @chaos.crash(state="last.pkl.tmp@8192#0")
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path, isolation="in-process")
            (outcome,) = report.outcomes
            assert outcome.state.id == "last.pkl.tmp@8192#0" and outcome.follows is None
    """).run(passed=1)


@pytest.mark.slow
def test_without_events_nothing_follows(project):
    """Each state is run where opens cannot be seen."""
    project("""
        @pytest.fixture(autouse=True)
        def elsewhere(monkeypatch):
            monkeypatch.setattr("pytest_mlchaos.engine.inotify.available", lambda: False)

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path, isolation="in-process")
            report.assert_recovers()
            assert all(outcome.follows is None for outcome in report.outcomes)
    """).run(passed=1)


@pytest.mark.slow
def test_parallel_workers_skip_the_same_states(project):
    """States that differ in one file go to one worker."""
    pytest.importorskip("cloudpickle")
    project("""
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path, isolation="process", jobs=2)
            report.assert_recovers()
            assert sum(outcome.follows is not None for outcome in report.outcomes) > len(report.states) / 3
    """).run(passed=1)


@pytest.mark.slow
def test_a_job_that_saves_its_directory_is_run_by_one_worker(project):
    """Files that name their directory cannot be compared with those of a different directory."""
    pytest.importorskip("cloudpickle")
    project("""
        def names_itself(workdir):
            (pathlib.Path(workdir) / "where").write_text(str(workdir))
            train(workdir, steps=2)

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(names_itself, tmp_path, isolation="process", jobs=2)
            report.assert_recovers()
    """).run(passed=1)


# -- runs that end early ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_runs_end_early_but_one_of_each_checkpoint(project, isolation):
    """Those that go on, the first and the last among them, show that nothing unseen is lost."""
    pytest.importorskip("torch")
    if isolation == "process":
        pytest.importorskip("cloudpickle")
    project(
        f"""
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(Job(), tmp_path, isolation="{isolation}")
            report.assert_recovers()
            early = [outcome for outcome in report.outcomes if outcome.ended_early and outcome.follows is None]
            whole = {{outcome.resumed_at for outcome in report.outcomes if outcome.could_end_early}}
            assert early and {{outcome.resumed_at for outcome in early}} <= whole
            assert all(outcome.steps == 4 for outcome in early)  # the interval of saves, and one step
            assert f"{{len(early)}} ended early" in str(report)
    """,
        LOOP,
    ).run(passed=1, fresh=True)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["Job(keeps=False)", "Job(keeps=False, late=20)"])
def test_what_no_digest_sees_is_found_by_the_runs_that_go_on(project, job):
    """A number that is lost changes only the end: the returned value, or a late learning rate."""
    pytest.importorskip("torch")
    project(
        f"""
        def explored(mlchaos, path, **keywords):
            path.mkdir()
            report = mlchaos.explore_crashes({job}, path, isolation="in-process", **keywords)
            return report, [(outcome.state.id, outcome.verdict, outcome.divergence) for outcome in report.outcomes]

        def test_it(mlchaos, tmp_path):
            report, found = explored(mlchaos, tmp_path / "a")
            _, expected = explored(mlchaos, tmp_path / "b", exhaustive=True)
            assert report.failures and found == expected
            assert not any(outcome.ended_early for outcome in report.outcomes)
            assert "no run was ended early: the run from" in str(report)
    """,
        LOOP,
    ).run(passed=1, fresh=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "handler",
    ["raise RuntimeError('training failed')", "return None", "return Job()(workdir)"],
    ids=["converts", "swallows", "retries"],
)
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_code_that_catches_everything_may_catch_an_early_end(project, handler, isolation):
    """All that the run does after that is ignored."""
    pytest.importorskip("torch")
    if isolation == "process":
        pytest.importorskip("cloudpickle")
    project(
        f"""
        def catches(workdir):
            try:
                return Job()(workdir)
            except BaseException:
                {handler}

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(catches, tmp_path, isolation="{isolation}")
            report.assert_recovers()
            early = [outcome for outcome in report.outcomes if outcome.ended_early]
            assert early and all(outcome.steps == 4 for outcome in early if outcome.follows is None)
            assert "all states were run" not in str(report)
    """,
        LOOP,
    ).run(passed=1, fresh=True)


def step(number, **changed):
    """A step of the golden run."""
    return StepRecord({"parameters": b"%d" % number, **changed}, (b"batch%d" % number,))


GOLDEN = [step(number) for number in range(10)]


def ended(early, steps):
    """Return the number of steps after which this ends a run, or None."""
    trace = Trace()
    for one in steps:
        trace.steps.append(one)
        try:
            early(trace, NoReadLog())
        except Stop:
            return len(trace.steps)
    return None


@pytest.mark.parametrize(
    ("steps", "end"),
    [
        (GOLDEN[4:], 3),
        (GOLDEN[8:], None),
        ([step(4), step(5, parameters=b"x"), *GOLDEN[6:]], 5),
        ([*GOLDEN[4:6], *GOLDEN[7:]], 5),
        ([step(99), *GOLDEN], 4),
        ([*GOLDEN[4:6], *GOLDEN[4:]], 5),
        ([step(number, loss=b"x") for number in range(10)], None),
    ],
)
def test_only_steps_in_a_row_count(steps, end):
    """A different step, a step left out and a step that is repeated begin the count again."""
    golden = GoldenSteps(step_keys(GOLDEN, ()), frozenset())
    assert ended(EarlyEnd(golden, 3), steps) == end


def test_a_run_ends_early_only_in_the_directory_of_the_golden_run(tmp_path):
    """A file too many, too few or with other values keeps it going."""
    contents = ContentStore(tmp_path / "store")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_text('{"x": 1, "y": 2}')
    tree = {"a": File(contents.keep(b'{"y": 2, "x": 1}'))}
    golden = golden_steps(Trace(GOLDEN), {}, [Change("closed", "a", 2, {}, tree)], contents, root)
    contents.close()

    def ends_at(steps):
        return ended(EarlyEnd(golden, 2), steps)

    assert ends_at(GOLDEN[4:]) == 2
    assert ends_at(GOLDEN[:4]) == 3  # the file is written after the second step
    (root / "a").write_text('{"x": 1, "y": 3}')
    assert ends_at(GOLDEN[4:]) is None
    (root / "a").write_text('{"y": 2, "x": 1}')
    (root / "b").touch()
    assert ends_at(GOLDEN[4:]) is None
    (root / "b").unlink()
    (root / "a").unlink()
    assert ends_at(GOLDEN[4:]) is None


def test_a_directory_that_differs_is_read_again_only_after_a_change(tmp_path, monkeypatch):
    """The checkpoints of a long run are not read after each of its steps."""
    contents = ContentStore(tmp_path / "store")
    root = tmp_path / "root"
    root.mkdir()
    file = root / "a"
    file.write_text("mine")
    tree = {"a": File(contents.keep(b"gold"))}
    golden = golden_steps(Trace(GOLDEN), tree, [], contents, root)
    contents.close()
    read = []
    monkeypatch.setattr(early_end, "digest_of_file", lambda path: read.append(path) or b"other")
    assert ended(EarlyEnd(golden, 2), GOLDEN) is None
    assert read == [str(file)]
    monkeypatch.undo()

    early = EarlyEnd(golden, 2)

    def mends(trace, reads):
        if len(trace.steps) == 5:
            file.write_text("gold")
        early(trace, reads)

    assert ended(mends, GOLDEN) == 5


@pytest.mark.parametrize(
    ("at", "epoch", "horizon"),
    [
        ((3, 6, 9), None, 4),
        ((3, 6, 9), 5, 6),
        ((2, 7), 1, 6),
        ((0,), 3, None),
        ((), 3, None),
        ((10,), None, None),
        ((3, 6, 9), 10, None),
    ],
)
def test_a_horizon_is_an_epoch_and_an_interval_between_saves(at, epoch, horizon):
    """Without saves between steps, or if the run is not longer than that, there is none."""
    content = File(Content(1, b"x"))
    changes = [Change("moved", "a", step, {}, {"a": content}) for step in at]
    trace = Trace(GOLDEN, epoch_steps=epoch)
    assert automatic_horizon(trace, changes) == horizon


# -- the order -------------------------------------------------------------------------------------


def state(number, what, path):
    """A crash state."""
    return CrashState(f"{path}#{number}", number, path, f"{path} {what}", {})


def test_one_state_of_each_kind_comes_first():
    """The one in the middle of the run, then the last, then the others. None is left out."""
    states = [
        state(number, what, path)
        for number in range(9)
        for what, path in [
            ("cut at byte 7 of 9", "tmp"),
            ("complete", "tmp"),
            ("just renamed from tmp", f"step-{number}.pt"),
            ("removed", f"step-{number + 1}.pt"),
        ]
    ]
    order = in_order(states)
    assert sorted(order) == list(range(len(states)))
    first = [states[place] for place in order[:4]]
    assert {kind_of(one) for one in first} == {"cut at", "complete", "just renamed", "removed"}
    assert {one.step for one in first[:2]} == {4}
    assert order[4] == len(states) - 1


def test_a_rank_that_is_far_ahead_is_tried_early():
    """For each stop of the late rank, the state in which the other has gone as far as it can."""
    states = [
        dataclasses.replace(
            state(number, "complete", f"f{number % 3}"),
            id=f"rank0-before-rank1:f{number}",
            cut=(number, number // 10),
        )
        for number in range(30)
    ]
    order = in_order(states)
    assert sorted(order) == list(range(len(states)))
    assert [states[place].cut for place in order[1:4]] == [(9, 0), (19, 1), (29, 2)]


def test_the_files_of_each_rank_are_tried_early():
    """Their names may differ in a number alone."""
    states = [
        dataclasses.replace(state(number, "cut at byte 0", f"rng{rank}"), id=f"rank{rank}:{number}")
        for number in range(9)
        for rank in range(2)
    ]
    assert {states[place].path for place in in_order(states)[:2]} == {"rng0", "rng1"}


def test_a_name_of_a_file_does_not_change_the_kind():
    """Whatever letters it has."""
    assert kind_of(state(1, "complete", "e")) == kind_of(state(1, "complete", "ckpt")) == "complete"
