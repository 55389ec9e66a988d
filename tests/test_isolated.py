"""``mlchaos.run(isolation="process")``: attempts are fresh processes, and a crash is a real one.
Torch-free subjects.
"""

from __future__ import annotations

import textwrap

import pytest

from tests.test_run import COUNTER

MORE = (
    COUNTER
    + '''
import signal, subprocess, sys, time

DONE = []

def in_memory(path):
    """Resumes from what only a process that lives on can have."""
    while len(DONE) < 6:
        visit("train.step")
        DONE.append(len(DONE))
    return list(DONE)
'''
)
PROCESS = 'pytestmark = chaos.settings(isolation="process")\n'


@pytest.fixture
def isolated(example):
    """A project whose tests run their subjects in processes."""
    pytest.importorskip("cloudpickle")
    return lambda tests: example.with_tests(MORE + PROCESS + textwrap.dedent(tests))


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["in-process", "process"])
def test_runs_attempts_and_strikes_are_the_same_in_both(example, isolation):
    """Steps, lost steps, the journal with its numbers, the golden run."""
    example.with_tests(
        MORE
        + textwrap.dedent(f"""
        @chaos.crash(at=[4, 9])
        def test_it(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path, isolation={isolation!r})
            assert run.value == list(range(10))
            assert (run.restarts, run.steps, run.lost_steps) == (2, 12, 2)
            assert [a.steps for a in run.attempts] == [4, 4, 4]
            assert [a.ended for a in run.attempts] == [
                f"the process died at train.step {{n}} (injected by mlchaos)" for n in (4, 9)] + ["returned"]
            assert [(s.fault, s.site, s.visit) for s in run.faults] == [("crash(at=[4, 9])", "train.step", n) for n in (4, 9)]
            assert list(mlchaos.journal) == list(run.faults)
            assert (run.golden.steps, run.golden.restarts, run.golden.faults) == (10, 0, ())
            assert run.duration > 0
            run.assert_recovered()
        """)
    ).run(passed=1)


@pytest.mark.slow
def test_a_modules_state_does_not_survive_a_crash(example):
    """A test that passes in process, and should not."""
    tests = """
        @chaos.crash(at=3)
        def test_it(mlchaos, tmp_path):
            run = mlchaos.run(in_memory, tmp_path)
            assert run.steps == 6, f"{run.steps} steps"
    """
    project = example.with_tests(MORE + textwrap.dedent(tests))
    project.run(passed=1)
    project.run("--mlchaos-isolation=process", failed=1).has("AssertionError: 9 steps")


@pytest.mark.slow
def test_each_attempt_and_the_golden_run_is_a_process_of_its_own(isolated):
    """None of them is the test's."""
    isolated("""
        def who(path):
            with open(path / "pids", "a") as file:
                print(os.getpid(), file=file)
            visit("train.step")
            return (path / "pids").read_text().split()

        @chaos.crash(at=0)
        def test_it(mlchaos, tmp_path):
            run = mlchaos.run(who, tmp_path)
            pids = {os.getpid(), *map(int, run.value), *map(int, run.golden.value)}
            assert len(pids) == 4
            assert len((tmp_path / "pids").read_text().split()) == 2
    """).run(passed=1)


def test_a_crash_is_a_sigkill(isolated):
    """No ``finally`` runs, nothing is flushed, no code can swallow it, and its child processes end
    too.
    """
    isolated("""
        def train(path):
            if (path / "pid").exists():
                return (path / "log").read_text(), (path / "pid").read_text()
            (path / "pid").write_text(str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid))
            file = open(path / "log", "w")
            file.write("buffered")
            try:
                visit("train.step")
            except BaseException:
                (path / "log").write_text("swallowed")
            finally:
                (path / "log").write_text("finally")

        @chaos.crash(at=0)
        def test_it(mlchaos, tmp_path):
            log, pid = mlchaos.run(train, tmp_path).value
            assert log == ""
            with pytest.raises(ProcessLookupError):
                os.kill(int(pid), 0)
    """).run(passed=1)


@pytest.mark.slow
def test_schedules_are_explored_and_shrunk_as_in_process(isolated):
    """The probe tells the visits of the process; the report is the same."""
    outcome = isolated("""
        @chaos.settings(max_trials=12)
        @chaos.crash
        def test_unsound(mlchaos, tmp_path):
            mlchaos.run(forgets, tmp_path).assert_recovered()

        @chaos.settings(max_trials=12)
        @chaos.crash
        def test_sound(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()
    """).run(passed=1, failed=1)
    assert outcome.reproduce == ["@chaos.crash(at=1)"]
    outcome.has(
        "did not end in the state of its golden run", "attempt 1: 1 step, then the process died"
    )


@pytest.mark.slow
def test_injected_errors_restart_and_the_subjects_own_are_raised_with_the_traceback_of_there(
    isolated,
):
    """And the story so far."""
    isolated("""
        def fails_later(path):
            if (path / "x").exists():
                raise KeyError("mine")
            (path / "x").write_text("")
            (path / "y").read_text()

        @chaos.flaky_storage(op="write", at=0)
        def test_injected(mlchaos, tmp_path):
            def save(path):
                with open(path / "a", "w") as file:
                    file.write("a")
                return (path / "a").read_text()
            run = mlchaos.run(save, tmp_path)
            assert run.restarts == 1
            assert run.attempts[0].ended.startswith("the process ended with OSError")
            assert run.value == "a"

        @chaos.flaky_storage(op="open", at=1)
        def test_own(mlchaos, tmp_path):
            with pytest.raises(KeyError, match="mine") as caught:
                mlchaos.run(fails_later, tmp_path)
            notes = "".join(caught.value.__notes__)
            assert "in fails_later" in notes
            assert "the subject's own error, in attempt 2" in notes
    """).run(passed=2)


@pytest.mark.slow
def test_a_hang_is_a_timeout_with_the_place_there(isolated):
    """The line is the user's, and the process is ended."""
    isolated("""
        def hangs(path):
            visit("train.step")
            (path / "pid").write_text(str(os.getpid()))
            time.sleep(600)

        @chaos.settings(timeout=4)
        @chaos.crash(at=0)
        def test_it(mlchaos, tmp_path_factory):
            mlchaos.run(hangs, tmp_path_factory.mktemp("of_hanging"))

        def test_afterwards(tmp_path_factory):
            pid, = tmp_path_factory.getbasetemp().glob("of_hanging0/pid")
            with pytest.raises(ProcessLookupError):
                os.kill(int(pid.read_text()), 0)
    """).run(passed=1, failed=1).has(
        "TrialTimeout: the trial took longer than 4 s (setting timeout). The subject's process was "
        "in hangs ("
    )


@pytest.mark.slow
def test_visits_go_on_across_runs_and_in_the_tests_own_process(isolated):
    """A site has one count in a trial, in all processes together."""
    isolated("""
        def three(path):
            return [visit("mine", number) for number in range(3)]

        @chaos.crash(site="mine", at=[1, 8])
        def test_it(mlchaos, tmp_path):
            mlchaos.visit("mine")
            run = mlchaos.run(three, tmp_path)
            assert run.value == [0, 1, 2]
            mlchaos.visit("mine")
            again = mlchaos.run(three, tmp_path)
            assert [s.visit for s in run.faults] == [1]
            assert [s.visit for s in again.faults] == [8]
            assert again.golden.restarts == 0
            assert [s.visit for s in mlchaos.journal] == [1, 8]
    """).run(passed=1)


@pytest.mark.slow
def test_faults_strike_in_the_tests_own_process_too(isolated):
    """Pinned to what only the test passes."""
    isolated("""
        @chaos.flaky_storage(op="open", path="*mine*", at=0)
        def test_it(mlchaos, tmp_path):
            with pytest.raises(OSError, match="injected"):
                open(tmp_path / "mine.txt", "w")
            assert mlchaos.run(train, tmp_path).value == list(range(10))
    """).run(passed=1)


def test_random_numbers_go_on_from_the_tests_and_differ_after_a_restart(isolated):
    """The golden run draws what the first attempt drew."""
    isolated("""
        def draws(path):
            with open(path / "drawn", "a") as file:
                print(random.random(), file=file)
            visit("train.step")
            return (path / "drawn").read_text().split()

        @chaos.crash(at=0)
        def test_it(mlchaos, tmp_path):
            random.seed(5)
            run = mlchaos.run(draws, tmp_path)
            assert run.value[0] != run.value[1]
            assert run.golden.value == run.value[:1]
            random.seed(5)
            assert float(run.value[0]) == random.random()
    """).run(passed=1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "os.kill(os.getpid(), signal.SIGTERM)",
            "ChildProcessError: the subject's process was killed by SIGTERM before the subject "
            "returned",
        ),
        (
            "os._exit(3)",
            "ChildProcessError: the subject's process exited with code 3 before the subject "
            "returned",
        ),
        (
            "return (i for i in ())",
            "BadArgument: mlchaos.run: the subject's return value (generator) cannot be sent back",
        ),
    ],
)
def test_what_ends_it_otherwise_is_said(isolated, body, message):
    """Its own death, and a value that cannot travel."""
    isolated(f"""
        def subject():
            {body}

        def test_it(mlchaos):
            mlchaos.run(subject)
    """).run(failed=1).has(message)


@pytest.mark.slow
def test_what_cannot_be_sent_there_is_refused(isolated):
    """Before anything runs."""
    isolated("""
        def test_it(mlchaos):
            mlchaos.run(lambda lock: 1, threading.Lock())
    """).run(failed=1).has(
        "cannot be sent to its process: TypeError: cannot pickle '_thread.lock' object"
    )


def test_a_golden_run_that_fails_is_said(isolated):
    """The error is the same as in process, and it is the cause."""
    isolated("""
        def once(path):
            if (path.parent / "seen").exists():
                raise KeyError("second")
            (path.parent / "seen").touch()

        def test_it(mlchaos, tmp_path):
            run = mlchaos.run(once, tmp_path)
            assert run.restarts == 0
            with pytest.raises(Exception, match="the subject fails without any fault: KeyError: 'second'") as caught:
                run.golden
            assert type(caught.value).__name__ == "GoldenRunFailed"
            assert "in once" in caught.value.__cause__.__notes__[0]
    """).run(passed=1)


@pytest.mark.slow
def test_a_model_in_a_modules_global_recovers_in_process_and_not_in_processes(example):
    """It survives the crash that it is to be restored from; the trained parameters of a process are
    judged as in process.
    """
    pytest.importorskip("torch")
    project = example.with_tests("""
        import torch

        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        steps = []

        def train(path):
            while len(steps) < 5:
                model(torch.full((2, 2), float(len(steps)))).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                steps.append(None)
                torch.save(len(steps), path / "steps.pt")

        @chaos.crash(at=3)
        def test_it(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            assert run.steps == 5

        @chaos.settings(allow_quiet=True)
        def test_sound(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            assert run.steps == 5
            run.assert_recovered()
            assert [tuple(p.shape) for p in run.parameters[0]] == [(1, 2), (1,)]
    """)
    project.run("-k", "test_it", fresh=True, passed=1)
    project.run("--mlchaos-isolation=process", fresh=True, passed=1, failed=1).has("assert 8 == 5")


@pytest.mark.slow
def test_what_it_prints_is_the_tests_output(isolated):
    """On both streams."""
    outcome = isolated("""
        def talks():
            print("said there")
            print("to stderr there", file=sys.stderr)

        def test_it(mlchaos):
            mlchaos.run(talks)
            assert 0
    """).run(failed=1)
    outcome.has("said there", "to stderr there", "Captured stdout call", "Captured stderr call")


def test_a_mistyped_isolation_names_the_choices(example):
    """In the mark."""
    example.with_tests(
        """
        @chaos.settings(isolation="vm")
        @chaos.crash(at=0)
        def test_it(mlchaos): pass
        """
    ).run(failed=1).has("isolation must be 'in-process' or 'process', got 'vm' (str)")
