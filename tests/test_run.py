"""``mlchaos.run``: restarts, the golden run, and what ended each attempt. Torch-free subjects."""

from __future__ import annotations

import textwrap

import pytest

COUNTER = '''
import functools, json, os, pathlib, random, threading
import pytest

def train(path, steps=10, every=3):
    """Counts; keeps its count in a file."""
    file = pathlib.Path(path) / "count.json"
    done = json.loads(file.read_text()) if file.exists() else []
    while len(done) < steps:
        visit("train.step")
        done.append(len(done))
        if len(done) % every == 0:
            file.write_text(json.dumps(done))
    return done

def forgets(path):
    """Skips a step after each resume."""
    file = pathlib.Path(path) / "steps.json"
    steps = json.loads(file.read_text()) if file.exists() else []
    number = len(steps) + (1 if steps else 0)
    while number < 10:
        visit("train.step")
        steps.append(number)
        number += 1
        file.write_text(json.dumps(steps))
    return steps
'''


@pytest.fixture
def counter(example):
    """A project with a subject that counts."""
    return lambda tests: example.with_tests(COUNTER + textwrap.dedent(tests))


def test_a_sound_subject_recovers_from_a_crash_at_any_step(counter):
    """Explored: every schedule ends in the golden run's state."""
    counter("""
        @chaos.crash
        def test_it(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()
    """).run(passed=1)


def test_an_unsound_subject_is_found_with_the_earliest_crash(counter):
    """And the report tells the story of the attempts."""
    outcome = counter("""
        @chaos.crash
        def test_it(mlchaos, tmp_path):
            mlchaos.run(forgets, tmp_path).assert_recovered()
    """).run(failed=1)
    assert outcome.reproduce == ["@chaos.crash(at=1)"]
    outcome.has(
        "did not end in the state of its golden run", "returned value[1]: differs by 1 (int)", "attempt 1: 1 step, then the process died"
    )


def test_a_run_tells_restarts_steps_and_what_struck(counter):
    """Steps that were done again are lost ones; the golden run has none."""
    counter("""
        @chaos.crash(at=[4, 9])
        def test_it(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            assert run.value == list(range(10))
            assert (run.restarts, run.steps, run.lost_steps) == (2, 12, 2)
            assert [a.steps for a in run.attempts] == [4, 4, 4]
            assert [(s.fault, s.site, s.visit) for s in run.faults] == [("crash(at=[4, 9])", "train.step", n) for n in (4, 9)]
            assert (run.golden.steps, run.golden.restarts, run.golden.lost_steps, run.golden.faults) == (10, 0, 0, ())
            assert run.golden.golden is run.golden
            assert run.duration >= 0
    """).run(passed=1)


@pytest.mark.parametrize(
    "call",
    [
        "mlchaos.run(train, tmp_path)",
        "mlchaos.run(train, str(tmp_path))",
        "mlchaos.run(lambda: train(tmp_path))",
        "mlchaos.run(functools.partial(train, path=tmp_path))",
        "mlchaos.run(lambda config: train(config['dirs'][0]), {'dirs': [tmp_path]})",
        "(monkeypatch.chdir(tmp_path), mlchaos.run(train, '.'))[1]",
        "(monkeypatch.chdir(tmp_path), mlchaos.run(lambda: train('.')))[1]",
    ],
)
def test_the_golden_run_has_directories_of_its_own(counter, call):
    """However the directory reaches the subject: it starts as the trial's did, and leaves the trial's alone."""
    counter(f"""
        @chaos.crash(at=5)
        def test_it(mlchaos, tmp_path, monkeypatch):
            (tmp_path / "count.json").write_text("[0]")
            run = {call}
            before = {{p.name: p.read_text() for p in tmp_path.iterdir()}}
            assert run.golden.steps == 9, "it found what was there at the start, and not what the run left"
            assert {{p.name: p.read_text() for p in tmp_path.iterdir()}} == before
            run.assert_recovered()
            left = [p.name for p in tmp_path.parent.parent.rglob("mlchaos-golden*")]
            assert left == []
    """).run(passed=1)


def test_a_restart_finds_memory_fresh_and_the_disk_as_it_was(counter):
    """Objects that were passed start over; so does what a closure holds; random numbers are others than before."""
    counter("""
        @chaos.crash(at=2)
        def test_it(mlchaos, tmp_path):
            memory, closed, lock, seen = [], [], threading.Lock(), []
            def subject(path, memory, lock):
                seen.append((list(memory), list(closed), random.random()))
                for i in range(4):
                    memory.append(i); closed.append(i)
                    visit("train.step")
                return True
            mlchaos.run(subject, tmp_path, memory, lock)
            (first, second) = seen
    """).run(failed=1)  # `seen` itself was copied with the closure: the restart wrote into a copy
    counter("""
        seen = []
        def subject(memory, lock):
            seen.append((list(memory), random.random()))
            for i in range(4):
                memory.append(i)
                visit("train.step")
        @chaos.crash(at=2)
        def test_it(mlchaos):
            mlchaos.run(subject, [], threading.Lock())
            (first, one), (second, other) = seen
            assert first == second == [] and one != other
    """).run(passed=1)


def test_the_golden_run_draws_the_random_numbers_that_the_run_drew(counter):
    """A subject that seeds nothing is still comparable, and the trial's own generator does not move."""
    counter("""
        @chaos.crash(at=99, site="train.step")
        @chaos.settings(seed=4)
        def test_it(mlchaos):
            def subject():
                for _ in range(100):
                    visit("train.step") if False else None
                return random.random()
            run = mlchaos.run(subject)
            after = random.getstate()
            assert run.golden.value == run.value
            assert random.getstate() == after
            for _ in range(100):
                try: visit("train.step")
                except BaseException: raise
    """).run(failed=1).has("the process died at train.step 99")


def test_an_injected_error_that_nobody_handles_ends_the_process_and_restarts_it(counter):
    """As a scheduler does; the reason is told."""
    counter("""
        @chaos.call_failure(target="json:dumps", error=OSError("disk"), at=1)
        def test_it(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            assert [a.ended for a in run.attempts] == ["the process ended with OSError: disk", "returned"]
            run.assert_recovered()
    """).run(passed=1)


def test_an_error_of_the_subjects_own_is_raised_at_once_with_the_story(counter):
    """It is the finding: a resume that cannot read what the crash left."""
    counter("""
        def torn(path):
            file = path / "state"
            if file.exists():
                json.loads(file.read_text())
            for i in range(5):
                file.write_text("{")
                visit("train.step")
                file.write_text("{}")
        @chaos.crash
        def test_it(mlchaos, tmp_path):
            mlchaos.run(torn, tmp_path)
    """).run(failed=1).has("JSONDecodeError", "the subject's own error, in attempt 2 of mlchaos.run", "@chaos.crash(at=0)")


def test_an_error_raised_from_an_injected_one_counts_as_injected(counter):
    """``raise ... from error`` is how code reports a failure; an error in its handler is its own."""
    counter("""
        def wraps(path):
            try:
                json.dumps({})
            except OSError as error:
                raise RuntimeError("cannot save") from error
        def breaks(path):
            try:
                json.dumps({})
            except OSError:
                undefined_name
        @chaos.call_failure(target="json:dumps", error=OSError, at=0)
        def test_wraps(mlchaos, tmp_path):
            assert mlchaos.run(wraps, tmp_path).restarts == 1
        @chaos.call_failure(target="json:dumps", error=OSError, at=0)
        def test_breaks(mlchaos, tmp_path):
            with pytest.raises(NameError):
                mlchaos.run(breaks, tmp_path)
    """).run(passed=2)


def test_a_run_gives_up_after_its_restarts_and_says_why_each_attempt_ended(counter):
    """One line an attempt."""
    outcome = counter("""
        @chaos.crash(at=chaos.EVERY)
        def test_it(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path, max_restarts=2)
    """).run(failed=1)
    outcome.has("did not finish within 2 restarts", "attempt 3: 0 steps, then the process died at train.step 2")


@pytest.mark.parametrize(
    "swallow",
    ["try: visit('train.step')\n        except: pass", "try: visit('train.step')\n        finally: continue"],
    ids=["except", "finally"],
)
def test_a_subject_that_swallows_its_death_is_found_out_with_the_line(counter, swallow):
    """Neither a bare except nor a jump out of finally survives SIGKILL."""
    counter(f"""
def immortal():
    for _ in range(5):
        {swallow}
    return "alive"

@chaos.crash(at=2)
def test_it(mlchaos):
    mlchaos.run(immortal)
""").run(failed=1).has("CrashSwallowed", "but immortal() swallowed that at", "catch Exception instead of everything")


def test_a_crash_in_a_thread_of_the_subjects_ends_the_process_too(counter):
    """The main thread does not survive it, though its own code never saw the exception."""
    counter("""
        @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
        @chaos.crash(site="worker.step", at=0)
        def test_it(mlchaos):
            def subject():
                thread = threading.Thread(target=visit, args=("worker.step",))
                thread.start(); thread.join()
                return "done"
            run = mlchaos.run(subject)
            assert run.restarts == 1 and run.value == "done"
    """).run(passed=1)


def test_a_subject_that_fails_without_faults_is_told_apart(counter):
    """In an exploration the first trial says so; in a golden run it is an error of its own."""
    outcome = counter("""
        def broken():
            visit("train.step"); raise KeyError("own")
        @chaos.crash
        def test_explored(mlchaos):
            mlchaos.run(broken)
        def flaky(path, calls=[]):
            calls.append(1)
            visit("train.step")
            if len(calls) == 3: raise KeyError("own")
            return 1
        @chaos.crash(at=0)
        def test_golden(mlchaos, tmp_path):
            mlchaos.run(flaky, tmp_path).assert_recovered()
    """).run(failed=2)
    outcome.has("this is the first trial, without any fault", "GoldenRunFailed: the subject fails without any fault: KeyError: 'own'")


def test_there_must_be_something_to_judge(counter):
    """A subject that returns nothing cannot be found sound."""
    counter("""
        @chaos.crash(at=0)
        def test_it(mlchaos):
            mlchaos.run(lambda: visit("train.step") and None).assert_recovered()
    """).run(failed=1).has("assert_recovered has nothing to judge", "return the final state")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("mlchaos.run('train.py')", "expects a plain callable as its subject but got a str"),
        ("mlchaos.run(coroutine)", "a coroutine function; run it with asyncio.run"),
        ("mlchaos.run(train, tmp_path, max_restarts=-1)", "expected max_restarts to be 0 or more but got -1 (int)"),
        ("mlchaos.run(train, tmp_path, isolation='vm')", "expected isolation to be 'in-process' but got 'vm' (str)"),
        ("mlchaos.run(train, tmp_path).assert_converged(below=1)", "a dict that holds them under 'losses', but it returned int"),
    ],
)
def test_wrong_arguments_get_a_line_that_says_what_was_expected(counter, call, message):
    """With the value and its type."""
    counter(f"""
        async def coroutine(): pass
        train = lambda path: 1
        def test_it(mlchaos, tmp_path):
            {call}
    """).run(failed=1).has(message)


def test_losses_are_judged_where_the_subject_returned_them(counter):
    """The value itself, or its entry."""
    counter("""
        def test_it(mlchaos):
            mlchaos.run(lambda: [1.0, 0.1]).assert_converged(below=0.5, by=1)
            mlchaos.run(lambda: {"losses": [1.0, 0.1]}).assert_converged(below=0.5)
            mlchaos.run(lambda: {"history": [1.0, 0.1]}).assert_converged(below=0.5, key="history")
            with pytest.raises(AssertionError):
                mlchaos.run(lambda: {"loss": [1.0, float("nan")]}).assert_converged(below=0.5)
    """).run(passed=1)


def test_the_memory_of_a_dead_process_is_freed_before_the_next_attempt(counter):
    """A model on the device, or a loader's workers, must not live beside their successors."""
    counter("""
        import gc, weakref
        class Model: pass
        alive = weakref.WeakSet()
        def subject():
            gc.collect()
            assert not alive, "the one before is still in memory"
            model = Model(); alive.add(model)
            visit("train.step")
            try: json.dumps({})
            except OSError: pass
            visit("train.step")
            return 1
        @chaos.crash(at=[1, 2])
        @chaos.call_failure(target="json:dumps", error=OSError, at=0)
        def test_it(mlchaos):
            assert mlchaos.run(subject).restarts == 2
    """).run(passed=1)
