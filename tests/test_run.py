"""``mlchaos.run``: restarts, the golden run, and what ended each attempt. Torch-free subjects."""

from __future__ import annotations

import asyncio
import gc
import sys
import textwrap

import pytest

from pytest_mlchaos.runs.inputs import deep_copy

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


@pytest.mark.slow
def test_a_sound_subject_recovers_from_a_crash_at_any_step(counter):
    """Explored: every schedule ends in the golden run's state."""
    counter("""
        @chaos.crash
        def test_it(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()
    """).run(passed=1)


@pytest.mark.slow
def test_an_unsound_subject_is_found_with_the_earliest_crash(counter):
    """And the report tells the story of the attempts."""
    outcome = counter("""
        @chaos.crash
        def test_it(mlchaos, tmp_path):
            mlchaos.run(forgets, tmp_path).assert_recovered()
    """).run(failed=1)
    assert outcome.reproduce == ["@chaos.crash(at=1)"]
    outcome.has(
        "did not end in the state of its golden run",
        "returned value: 9 entries instead of 10",
        "attempt 1: 1 step, then the process died",
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


@pytest.mark.slow
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
    """However the directory reaches the subject: it starts as the trial's did, and leaves the
    trial's alone.
    """
    counter(f"""
        @chaos.crash(at=5)
        def test_it(mlchaos, tmp_path, monkeypatch):
            (tmp_path / "count.json").write_text("[0]")
            run = {call}
            before = {{p.name: p.read_text() for p in tmp_path.iterdir()}}
            assert run.golden.steps == 9, "it found what was there at the start, and not what the run left"
            assert {{p.name: p.read_text() for p in tmp_path.iterdir()}} == before
            run.assert_recovered()
        def test_after(tmp_path):
            assert [p.name for p in tmp_path.parent.rglob("mlchaos-golden*")] == [], "copies are gone when the test is over"
    """).run(passed=2)


@pytest.mark.slow
def test_a_restart_finds_memory_fresh_and_the_disk_as_it_was(counter):
    """Objects that were passed start over; so does what a closure holds; random numbers are others
    than before.
    """
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
            assert mlchaos.run(subject, [], threading.Lock()).restarts == 1
            (first, one), (second, other) = seen
            assert first == second == [] and one != other
    """).run(passed=1)


def test_the_golden_run_draws_the_random_numbers_that_the_run_drew(counter):
    """A subject that seeds nothing is still comparable, and the trial's own generator does not
    move.
    """
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
    """A scheduler would restart it. The report names the reason."""
    counter("""
        @chaos.call_failure(target="json:dumps", error=OSError("disk"), at=1)
        def test_it(mlchaos, tmp_path):
            run = mlchaos.run(train, tmp_path)
            assert [a.ended for a in run.attempts] == ["the process ended with OSError: disk", "returned"]
            run.assert_recovered()
    """).run(passed=1)


@pytest.mark.slow
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
            mlchaos.run(torn, tmp_path, max_restarts=1)
    """).run(failed=1).has(
        "JSONDecodeError",
        "the subject's own error, in attempt 2 of mlchaos.run",
        "@chaos.crash(at=0)",
    )


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
    outcome.has(
        "did not finish within 2 restarts",
        "attempt 3: 0 steps, then the process died at train.step 2",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "swallow",
    [
        "try: visit('train.step')\n        except: pass",
        "try: visit('train.step')\n        finally: continue",
    ],
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
""").run(failed=1).has(
        "CrashSwallowed", "but immortal() swallowed it at", "catch Exception instead of everything"
    )


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


@pytest.mark.slow
def test_a_crash_in_a_thread_that_the_main_one_waits_for_ends_the_wait(counter):
    """The process is gone, with every thread that waited."""
    counter("""
        @chaos.settings(timeout=20)
        @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
        @chaos.crash(site="worker.step", at=0)
        def test_it(mlchaos):
            def subject():
                done = threading.Event()
                threading.Thread(target=lambda: (visit("worker.step"), done.set())).start()
                done.wait()
                return "done"
            assert mlchaos.run(subject).restarts == 1
    """).run(passed=1)


def test_a_subject_that_fails_without_faults_is_told_apart(counter):
    """In an exploration the first trial says so; in a golden run it is an error of its own."""
    outcome = counter("""
        def broken():
            visit("train.step"); raise KeyError("own")
        @chaos.crash
        def test_explored(mlchaos):
            mlchaos.run(broken)
        calls = []
        def flaky(path):
            calls.append(1)
            visit("train.step")
            if len(calls) == 3: raise KeyError("own")
            return 1
        @chaos.crash(at=0)
        def test_golden(mlchaos, tmp_path):
            mlchaos.run(flaky, tmp_path).assert_recovered()
    """).run(failed=2)
    outcome.has(
        "this is the first trial, without any fault",
        "GoldenRunFailed: the subject fails without any fault: KeyError: 'own'",
    )


def test_there_must_be_something_to_judge(counter):
    """A subject that returns nothing cannot be found sound."""
    counter("""
        @chaos.crash(at=0)
        def test_it(mlchaos):
            mlchaos.run(lambda: visit("train.step") and None).assert_recovered()
    """).run(failed=1).has("assert_recovered has nothing to judge", "Return the final state")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("mlchaos.run('train.py')", "mlchaos.run: subject must be a plain callable, got str"),
        ("mlchaos.run(coroutine)", "a coroutine function. Run it with asyncio.run"),
        (
            "mlchaos.run(train, tmp_path, max_restarts=-1)",
            "max_restarts must be 0 or more, got -1 (int)",
        ),
        (
            "mlchaos.run(train, tmp_path, isolation='vm')",
            "isolation must be 'in-process' or 'process', got 'vm' (str)",
        ),
        (
            "mlchaos.run(train, tmp_path).assert_converged(below=1)",
            "a dict that holds them under 'losses', got int",
        ),
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


@pytest.mark.slow
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


SHARED = '''
class Model:
    def __init__(self): self.weight = 0
class Optimizer:
    def __init__(self, model): self.model = model
    def step(self): visit("train.step"); self.model.weight += 1

def resume(model, optimizer, path):
    """Sound: the weight is in the file."""
    file = path / "weight"
    if file.exists(): model.weight = int(file.read_text())
    while model.weight < 6:
        optimizer.step()
        file.write_text(str(model.weight))
    return model.weight

def forget(model, optimizer, path):
    """Unsound: nothing is loaded."""
    for _ in range(6): optimizer.step()
    return model.weight
'''


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        "mlchaos.run(f, model, optimizer, tmp_path)",
        "mlchaos.run(lambda: f(model, optimizer, tmp_path))",
        "mlchaos.run(functools.partial(f, model, optimizer), tmp_path)",
        "mlchaos.run(lambda both: f(*both, tmp_path), [model, optimizer])",
    ],
)
def test_a_model_and_its_optimizer_belong_together_in_a_restart(counter, call):
    """The copies are linked as the originals are, however they reach the subject."""
    counter(f"""{SHARED}
@chaos.crash(at=3)
@pytest.mark.parametrize("f", [resume, forget])
def test_it(mlchaos, tmp_path, f):
    model = Model(); optimizer = Optimizer(model)
    run = {call}
    assert run.restarts == 1 and run.golden.value == 6
    run.assert_recovered()
""").run(passed=2)  # forget: it starts over, and ends in the same state


LOSES = '''
class Job:
    def __init__(self, path): self.path = path
    def fit(self):
        """Unsound: a resume starts its sum anew."""
        file = self.path / "step"
        done = int(file.read_text()) if file.exists() else 0
        total = 0
        for step in range(done, 6):
            visit("train.step"); total += step; file.write_text(str(step + 1))
        return total
'''


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        "mlchaos.run(Job(tmp_path).fit)",
        "mlchaos.run(lambda job=Job(tmp_path): job.fit())",
        "(os.environ.__setitem__('OUT', str(tmp_path)), mlchaos.run(lambda: "
        "Job(pathlib.Path(os.environ['OUT'])).fit()))[1]",
        "mlchaos.run(lambda argv: Job(pathlib.Path(argv[0].split('=')[1])).fit(), "
        "[f'--out={tmp_path}'])",
        "(globals().__setitem__('OUT', tmp_path), mlchaos.run(lambda: Job(OUT).fit()))[1]",
    ],
)
def test_a_golden_run_never_finds_what_the_run_left(counter, call):
    """Or a broken resume would be compared with itself."""
    counter(f"""{LOSES}
@chaos.crash(at=3)
def test_it(mlchaos, tmp_path):
    {call}.assert_recovered()
""").run(failed=1).has("returned value: differs by 3 (int)")


@pytest.mark.slow
def test_a_golden_run_that_cannot_be_separated_is_an_error(counter):
    """A directory of the project's that nothing names: nothing is compared rather than the wrong
    thing.
    """
    counter(f"""{LOSES}
@chaos.crash(at=3)
def test_it(mlchaos):
    pathlib.Path("out").mkdir()
    mlchaos.run(lambda: Job(pathlib.Path("ou" + "t")).fit()).assert_recovered()
""").run(failed=1).has("the golden run took no step, because it found the files of this run")


@pytest.mark.slow
def test_paths_keep_their_names_in_the_golden_run(counter):
    """A subject may return where its best checkpoint lies."""
    counter("""
        def subject(path):
            visit("train.step")
            (path / "best.ckpt").write_text("x")
            return {"best": str(path / "best.ckpt"), "where": os.getcwd()}
        @chaos.crash(at=0)
        def test_it(mlchaos, tmp_path):
            mlchaos.run(subject, tmp_path).assert_recovered()
    """).run(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        "finally: save()",
        "except BaseException: save(); raise",
        "except BaseException: save(); raise RuntimeError",
    ],
)
def test_a_dead_process_writes_nothing(counter, how):
    """Effects of code that runs while the crash unwinds do not count, for example a save in
    ``finally``.
    """
    counter(f"""
def subject(path):
    file = path / "step"
    start = step = int(file.read_text()) if file.exists() else 0
    def save(): file.write_text(str(step))
    try:
        while step < 6:
            visit("train.step"); step += 1
    {how}
    return start

@chaos.crash(at=3)
def test_it(mlchaos, tmp_path):
    (tmp_path / "input").write_text("kept")
    run = mlchaos.run(subject, tmp_path)
    assert (run.value, run.lost_steps) == (0, 3)
    assert (tmp_path / "input").read_text() == "kept"
""").run(passed=1)


@pytest.mark.slow
def test_a_new_process_has_the_directory_and_environment_of_the_first(counter):
    """And the next test finds both as they were."""
    counter("""
        import os
        def subject():
            assert "SET_BY_IT" not in os.environ
            os.environ["SET_BY_IT"] = "1"
            os.mkdir(f"d{random.random()}"); os.chdir("..")
            visit("train.step")
            return 1
        here = os.getcwd()
        @chaos.crash(at=[0, 1])
        def test_it(mlchaos):
            assert mlchaos.run(subject).restarts == 2
        def test_after(): assert os.getcwd() == here and "SET_BY_IT" not in os.environ
    """).run(passed=2)


@pytest.mark.slow
def test_what_cannot_be_copied_is_an_error_where_a_copy_is_needed(counter):
    """Not a silent survivor of its process; a lock is copied as a new one."""
    outcome = counter("""
        def subject(memory, other):
            if not memory: memory.append(1)
            visit("train.step"); return list(memory)
        @chaos.crash(at=0)
        def test_generator(mlchaos):
            mlchaos.run(subject, [], (n for n in range(3)))
        def test_not_needed(mlchaos):
            assert mlchaos.run(subject, [], (n for n in range(3))).value == [1]
        @chaos.crash(at=0)
        def test_lock(mlchaos):
            assert mlchaos.run(subject, [], threading.RLock()).restarts == 1
    """).run(failed=1, passed=2)
    outcome.has(
        "an argument of the subject cannot be copied (generator:", "Create it inside the subject"
    )


@pytest.mark.slow
def test_an_argument_that_is_copied_in_part_raises_nothing_of_its_own(monkeypatch):
    """An event loop cannot be copied, and its half copy has no state that its finaliser could look
    at.
    """
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    loop = asyncio.new_event_loop()
    assert deep_copy(([loop],))[1]
    gc.collect()
    loop.close()
    assert not heard


@pytest.mark.slow
def test_a_value_is_judged_as_it_was_when_it_was_returned(counter):
    """A module-level list that two runs return is not compared with itself."""
    counter("""
        HISTORY = []
        def subject():
            HISTORY.append(len(HISTORY)); visit("train.step"); return HISTORY
        @chaos.crash(at=0)
        def test_it(mlchaos):
            mlchaos.run(subject).assert_recovered()
    """).run(failed=1).has("returned value: 2 entries instead of 3")


@pytest.mark.slow
def test_an_exit_because_of_an_injected_error_ends_the_process(counter):
    """``sys.exit(1)`` in a handler is how scripts report a failure."""
    counter("""
        import sys
        def subject():
            try: json.dumps({})
            except OSError: sys.exit(1)
            return 1
        @chaos.call_failure(target="json:dumps", error=OSError, at=0)
        def test_it(mlchaos):
            assert mlchaos.run(subject).restarts == 1
    """).run(passed=1)


@pytest.mark.slow
def test_files_of_the_project_are_never_touched(counter):
    """Whatever a subject is given: only what lies below the test's own temporary directory is
    copied or moved.
    """
    project = counter("""
        here = pathlib.Path(__file__).parent
        def subject(data, path, config, golden=[]):
            data_dir = here / "data"
            assert [p.name for p in data_dir.iterdir()] == ["kept"] and data_dir.stat().st_ino == inode
            visit("train.step")
            (path / "out").write_text("x")
            return 1
        inode = 0
        @chaos.crash(at=0)
        def test_it(mlchaos, tmp_path):
            global inode
            (here / "data").mkdir(exist_ok=True); (here / "data" / "kept").touch()
            inode = (here / "data").stat().st_ino
            run = mlchaos.run(subject, here / "data", tmp_path, {"split": "data", "root": str(here)})
            run.assert_recovered()
            assert (here / "data" / "kept").exists() and (here / "data").stat().st_ino == inode
    """)
    project.run(passed=1)


@pytest.mark.slow
def test_the_tests_own_tools_and_modules_in_a_closure_are_no_part_of_the_subject(counter):
    """``mlchaos.batches`` inside, ``request``, an imported module: nothing of the session is copied
    or moved.
    """
    counter("""
        @chaos.crash(at=2)
        def test_it(mlchaos, request, tmp_path_factory, tmp_path):
            import time
            other = tmp_path_factory.mktemp("other"); (other / "kept").touch()
            inode = other.stat().st_ino
            def subject():
                assert request.node.name == "test_it" and time.time() > 0
                for _ in mlchaos.batches([1, 2, 3]): visit("train.step")
                return 1
            run = mlchaos.run(subject)
            run.assert_recovered()
            assert run.restarts == 1 and other.stat().st_ino == inode and (other / "kept").exists()
        def test_after(tmp_path): assert tmp_path.exists()
    """).run(passed=2)


@pytest.mark.slow
def test_a_restart_in_the_working_directory_finds_it_there(counter):
    """Also when what was written while the crash unwound had to be undone, and the directory put
    back.
    """
    counter("""
        def subject():
            step = int(open("step").read()) if os.path.exists("step") else 0
            try:
                while step < 6:
                    visit("train.step"); step += 1; open("step", "w").write(str(step))
            finally: open("late", "a").write("x")
            return step, sorted(os.listdir("."))
        @chaos.crash(at=3)
        def test_it(mlchaos, tmp_path, monkeypatch):
            monkeypatch.chdir(tmp_path)
            run = mlchaos.run(subject)
            run.assert_recovered()
            assert os.getcwd() == str(tmp_path) and (tmp_path / "late").read_text() == "x" and run.lost_steps == 0
    """).run(passed=1)


@pytest.mark.slow
def test_a_directory_that_was_removed_before_the_golden_run_stays_removed(counter):
    """Files that the golden run makes there are removed again."""
    counter("""
        import shutil
        @chaos.crash(at=2)
        def test_it(mlchaos, tmp_path_factory):
            path = tmp_path_factory.mktemp("work")
            run = mlchaos.run(train, path)
            shutil.rmtree(path)
            run.assert_recovered()
            assert not path.exists()
    """).run(passed=1)


@pytest.mark.slow
def test_a_directory_is_found_beside_an_argument_that_holds_much(example):
    """The golden run has its own copy of it, whatever else is passed."""
    example.with_tests("""
        import pytest
        @pytest.fixture
        def out(tmp_path_factory): return tmp_path_factory.mktemp("out")
        def job(out, client):
            with (out / "log.txt").open("a") as file: file.write("x\\n")
            visit("sensor")
            return (out / "log.txt").read_text()
        @chaos.settings(allow_quiet=True)
        def test_it(mlchaos, out):
            mlchaos.run(job, out, [[number] for number in range(10_001)]).assert_recovered()
    """).run(passed=1)
