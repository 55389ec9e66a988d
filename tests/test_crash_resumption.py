"""Jobs that never resume, and sound ones that look as if they did not. Torch-free but for the last
test, which is skipped without it.
"""

from __future__ import annotations

import importlib.util
import mmap
import subprocess
import sys
import textwrap

import pytest

from pytest_mlchaos.crashes.model import Content, CrashState, File, RunResult
from pytest_mlchaos.crashes.recording.read_log import InotifyReadLog
from pytest_mlchaos.crashes.report import CrashReport
from pytest_mlchaos.crashes.verdicts import CrashJudge
from pytest_mlchaos.engine import inotify
from pytest_mlchaos.errors import BadArgument, NotRecovered
from pytest_mlchaos.runs.traces import Divergence, StepRecord, Trace

SAVED = ("last.pt",)


def steps(first, count=6):
    """A run of steps from that one on."""
    return Trace(
        [StepRecord({"parameters": b"%d" % number}) for number in range(first, count)],
        {"parameters": b"end"},
    )


def state(number, **tree):
    """A crash state."""
    name = f"a#{number}" if number else "start#0"
    return CrashState(
        name,
        number,
        "a",
        "a complete",
        {path: File(Content(1, digest)) for path, digest in tree.items()},
        until=number,
    )


def judged(golden, runs, states=None):
    """The outcomes of these runs."""
    judge = CrashJudge(golden)
    judge.differs(golden)
    states = states or [
        state(number, **({"last.pt": b"x"} if number else {})) for number in range(len(runs))
    ]
    return judge.finish([judge.outcome(*pair) for pair in zip(states, runs, strict=True)])


def verdicts(*args):
    """Their verdicts."""
    return [outcome.verdict for outcome in judged(*args)]


def report(outcomes):
    """Their report."""
    return CrashReport(
        steps=6,
        writes=1,
        states=[outcome.state for outcome in outcomes],
        outcomes=outcomes,
        duration=1.0,
    )


GOLDEN = RunResult(value=1, trace=steps(0), saved=SAVED)


def test_a_job_whose_runs_all_begin_from_scratch_is_restarted_in_every_state():
    """It saved, and not even the finished job's files were gone on from."""
    outcomes = judged(GOLDEN, [RunResult(value=1, trace=steps(0), read=frozenset())] * 3)
    assert [outcome.verdict for outcome in outcomes] == ["restarted"] * 3
    assert "written and never read: last.pt" in str(report(outcomes))
    assert "looks for another" in str(report(outcomes))


def test_a_job_that_resumes_once_is_not_accused_of_never_resuming():
    """The finished job's state is enough: a marker may say that what was saved before is not
    complete.
    """
    assert (
        verdicts(GOLDEN, [GOLDEN, GOLDEN, RunResult(value=1, trace=steps(6))]) == ["recovered"] * 3
    )


def test_a_job_that_saves_nothing_after_its_first_step_has_nothing_to_resume():
    """Downloads, configurations and a checkpoint of step 0 do not count as progress."""
    golden = RunResult(value=1, trace=steps(0))
    assert verdicts(golden, [golden, golden]) == ["recovered"] * 2


def test_parameters_that_the_golden_run_never_had_were_loaded():
    """The run resumed, if wrongly: its divergence is the cause."""
    other = Trace([StepRecord({"parameters": b"x"})], {"parameters": b"y"})
    assert verdicts(GOLDEN, [GOLDEN, RunResult(value=2, trace=other)]) == ["recovered", "diverged"]


def test_files_that_differ_are_a_consequence_and_an_error_is_not():
    """A run that starts again among old files leaves different files. An error has its own cause."""
    runs = [GOLDEN, RunResult(value=2, trace=steps(0)), RunResult(error=FileExistsError("x"))]
    outcomes = judged(GOLDEN, runs)
    assert [outcome.verdict for outcome in outcomes] == ["restarted", "restarted", "failed"]
    assert outcomes[1].divergence is not None


def test_from_scratch_excuses_a_job_that_never_resumes_and_nothing_else():
    """Not a result that differs, and not a checkpoint that is lost by a job that does resume."""
    outcomes = judged(GOLDEN, [GOLDEN] * 2)
    with pytest.raises(NotRecovered, match="from_scratch=True"):
        report(outcomes).assert_recovers()
    report(outcomes).assert_recovers(from_scratch=True)
    with pytest.raises(NotRecovered, match="different result"):
        report(judged(GOLDEN, [GOLDEN, RunResult(value=2, trace=steps(0))])).assert_recovers(
            from_scratch=True
        )
    with pytest.raises(NotRecovered, match="although a checkpoint had been complete"):
        report(
            judged(GOLDEN, [GOLDEN, RunResult(value=1, trace=steps(3)), GOLDEN])
        ).assert_recovers(from_scratch=True)
    with pytest.raises(BadArgument, match="from_scratch"):
        report(outcomes).assert_recovers(from_scratch="yes")


@pytest.mark.parametrize(
    ("resumed", "verdict"),
    [
        ({"read": frozenset()}, "restarted"),
        ({"read": frozenset({"model"})}, "recovered"),
        ({"read": frozenset({"input"})}, "restarted"),
        ({"read": frozenset(), "completed": ()}, "recovered"),
        ({"read": None}, "recovered"),
    ],
)
def test_without_steps_reading_or_skipping_tells_that_a_run_resumed(resumed, verdict):
    """Files from before the job are its input. A run that cannot be observed is not blamed."""
    written = {"completed": (("model", b"2"),), "saved": ("model",)}
    golden = RunResult(value=1, **written)
    states = [state(0, input=b"i"), state(1, input=b"i", model=b"2")]
    runs = [
        RunResult(value=1, read=frozenset({"input"}), **written),
        RunResult(value=1, **written | resumed),
    ]
    assert verdicts(golden, runs, states) == [verdict] * 2


def test_divergences_of_state_keep_their_name():
    """A generator that was lost is the cause also where no run resumed."""
    outcomes = judged(
        GOLDEN, [GOLDEN, RunResult(value=2, trace=Trace(steps(0).steps[:-1], {"parameters": b"x"}))]
    )
    assert outcomes[1].divergence == Divergence(
        5, "number of steps", "it took 1 fewer than the run without a crash"
    )
    assert outcomes[1].verdict == "diverged"


needs_events = pytest.mark.skipif(not inotify.available(), reason="reads are seen by inotify")


def read(folder, actions):
    """Return the reads of a, b and sub/c by these actions."""
    (folder / "sub").mkdir()
    for name in ("a", "b", "sub/c"):
        (folder / name).write_text("text")
    (folder / "empty").touch()
    with InotifyReadLog.of(folder) as reads:
        actions(folder)
    return reads.files


def mapped(folder):
    """A file that is mapped into memory."""
    with open(folder / "a", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        assert memory[0]


def cut(folder):
    """A file whose torn last record is cut off before it is read."""
    with open(folder / "a", "ab") as file:
        file.truncate(3)
        assert (folder / "a").read_text() == "tex"


def moved(folder):
    """A file that was put aside before it is read, in a directory that was, too."""
    (folder / "sub").rename(folder / "old")
    (folder / "old" / "c").rename(folder / "old" / "d")
    (folder / "old" / "d").read_text()


@needs_events
@pytest.mark.parametrize(
    ("actions", "found"),
    [
        (lambda folder: (folder / "a").read_text(), {"a"}),
        (mapped, {"a"}),
        (moved, {"sub/c"}),
        (
            lambda folder: subprocess.run(
                [sys.executable, "-c", f"open({str(folder / 'b')!r}).read()"], check=True
            ),
            {"b"},
        ),
        (
            lambda folder: [
                (folder / "a").exists(),
                list(folder.iterdir()),
                (folder / "a").stat(),
                (folder / "empty").read_text(),
            ],
            set(),
        ),
        (lambda folder: [(folder / "a").write_text("new"), (folder / "a").read_text()], set()),
        (
            lambda folder: [
                (folder / "new").write_text("new"),
                (folder / "new").replace(folder / "a"),
                (folder / "a").read_text(),
            ],
            set(),
        ),
        (lambda folder: print("more", file=(folder / "a").open("a")), set()),
        (cut, {"a"}),
    ],
    ids=["read", "mapped", "moved", "child", "looked at", "own", "replaced", "appended", "cut"],
)
def test_what_a_run_reads_of_an_earlier_one(tmp_path, actions, found):
    """Whatever reads it, and by whichever name; but not what the run wrote itself."""
    assert read(tmp_path, actions) == found


SUBJECTS = '''
import json, os, pathlib, pickle, subprocess, sys
import pytest

def put(file, state):
    tmp = file.with_name(file.name + ".tmp")
    tmp.write_bytes(pickle.dumps(state))
    os.replace(tmp, file)

def boosted(workdir, looks_for="last.pkl", rounds=4):
    """Adds a number in each round."""
    file = workdir / looks_for
    state = pickle.loads(file.read_bytes()) if file.exists() else []
    while len(state) < rounds:
        state = [*state, len(state) ** 2]
        put(workdir / "last.pkl", state)
    return state

def never(workdir):
    total = []
    for number in range(4):
        total.append(number ** 2)
        put(workdir / f"model-{number}.pkl", total)
    return total

def idempotent(workdir):
    """Skips what is there, and reads none of it."""
    for number in range(4):
        if not (workdir / f"part-{number}.pkl").exists():
            put(workdir / f"part-{number}.pkl", number)
    return 4

def marked(workdir):
    """Nothing counts before the marker is there."""
    if (workdir / "DONE").exists():
        return pickle.loads((workdir / "model.pkl").read_bytes())
    put(workdir / "model.pkl", [1, 2, 3])
    (workdir / "DONE").touch()
    return [1, 2, 3]

def cached(workdir):
    """A download, a configuration that is read back, and a checkpoint."""
    if not (workdir / "data.json").exists():
        (workdir / "data.tmp").write_text("[1, 2]"); os.replace(workdir / "data.tmp", workdir / "data.json")
    data = json.loads((workdir / "data.json").read_text())
    (workdir / "config.tmp").write_text(json.dumps({"rounds": 4})); os.replace(workdir / "config.tmp", workdir / "config.json")
    return [data, boosted(workdir, rounds=json.loads((workdir / "config.json").read_text())["rounds"])]

def appends(workdir):
    """Cuts off a torn last record before it reads the others."""
    file = workdir / "records.bin"
    with file.open("ab") as records:
        records.truncate(records.tell() // 8 * 8)
        for number in range(len(file.read_bytes()) // 8, 4):
            records.write(b"%8d" % number)
            records.flush()
    return file.read_bytes()

def logs(workdir):
    """Never loads, and appends to a log that it has not read."""
    with (workdir / "log.txt").open("a") as log:
        for number in range(4):
            log.write(f"{number}\\n")
            log.flush()
            put(workdir / "last.pkl", number)
    return 4

def by_a_child(workdir):
    """What a crashed run wrote is read by a child process alone."""
    code = "import os, sys; r = sys.argv[1]; f = r + '/n'; n = int(open(f).read()) if os.path.exists(f) else 0; " \\
        "[(open(f + '.tmp', 'w').write(str(k)), os.replace(f + '.tmp', f)) for k in range(n + 1, 4)]"
    subprocess.run([sys.executable, "-c", code, str(workdir)], check=True)
    return 3
'''


@pytest.fixture
def project(example):
    """A project with these subjects."""
    return lambda tests: example.with_tests(SUBJECTS + textwrap.dedent(tests))


@pytest.mark.slow
@needs_events
def test_jobs_without_steps_that_never_resume_are_found(project):
    """One that loads nothing, and one that looks for another name; the reported line finds it
    again.
    """
    project("""
        import functools

        @pytest.mark.parametrize("job", [never, logs, functools.partial(boosted, looks_for="latest.pkl")])
        def test_unsound(mlchaos, tmp_path, job):
            report = mlchaos.explore_crashes(job, tmp_path)
            assert {outcome.verdict for outcome in report.outcomes} == {"restarted"}
            report.assert_recovers(from_scratch=True)
            report.assert_recovers()

        @chaos.crash(state="model-0.pkl#0")
        def test_again(mlchaos, tmp_path):
            (outcome,) = mlchaos.explore_crashes(never, tmp_path).outcomes
            assert outcome.verdict == "restarted"
    """).run(failed=3, passed=1).has(
        "written and never read: last.pkl", "log.txt", "written and never read: model-0.pkl"
    )


@pytest.mark.slow
def test_jobs_without_steps_that_resume_in_their_own_ways_are_sound(project):
    """By a marker, by what they skip, by what a child process reads, and beside downloads and
    configurations.
    """
    project("""
        @pytest.mark.parametrize("job", [boosted, idempotent, marked, cached, appends, by_a_child])
        def test_sound(mlchaos, tmp_path, job):
            mlchaos.explore_crashes(job, tmp_path).assert_recovers()
    """).run(passed=6)


TRAINING = '''
import json, os, pytest, torch

def train(wd, looks_for="last.pt", *, every=2, zero=False):
    """Six steps; a download, a configuration that is read back; ``zero``: a checkpoint before the first step, too."""
    torch.manual_seed(0)
    config, data = wd / "config.json", wd / "data.txt"
    if not config.exists():
        (wd / "c").write_text('{"steps": 6}'); os.replace(wd / "c", config)
    if not data.exists():
        (wd / "d").write_text("1 2 3"); os.replace(wd / "d", data)
    steps, target = json.loads(config.read_text())["steps"], torch.tensor([float(x) for x in data.read_text().split()])
    w = torch.nn.Parameter(torch.zeros(3)); opt = torch.optim.SGD([w], lr=0.1)
    start = 0
    def save(step):
        torch.save((step, w.detach()), wd / "t.tmp"); os.replace(wd / "t.tmp", wd / "last.pt")
    if (wd / looks_for).exists():
        start, saved = torch.load(wd / looks_for); w.data.copy_(saved)
    elif zero:
        save(0)
    for step in range(start, steps):
        opt.zero_grad(); (w - step * target).square().sum().backward(); opt.step()
        if every and (step + 1) % every == 0:
            save(step + 1)
    return w.detach()
'''


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="its subjects are trained by torch"
)
def test_training_jobs_are_judged_by_where_their_steps_begin(example):
    """Reading a configuration or a download is not a resumption, and a checkpoint of step 0 is not
    progress.
    """
    example.with_tests(
        TRAINING
        + textwrap.dedent("""
        import functools

        @pytest.mark.parametrize("keywords", [{}, {"zero": True}, {"zero": True, "every": 0}, {"every": 0}])
        def test_sound(mlchaos, tmp_path, keywords):
            mlchaos.explore_crashes(functools.partial(train, **keywords), tmp_path).assert_recovers()

        def test_unsound(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(functools.partial(train, looks_for="latest.pt"), tmp_path)
            assert {outcome.verdict for outcome in report.outcomes} == {"restarted"}
            assert "(written and never read: last.pt)" in str(report)
    """)
    ).run(passed=5)
