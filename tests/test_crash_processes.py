"""Explorations in one process that lives on: their verdicts are those of fresh processes, or the
report says that it was not checked.
"""

from __future__ import annotations

import textwrap

import pytest

SUBJECTS = '''
import builtins, contextvars, functools, os, pathlib, threading
import pytest

class Box: pass
BOX = Box()
VAR = contextvars.ContextVar("VAR")
LOCAL = threading.local()
STEPS = 2

def of_instance(): return vars(BOX)
def of_class():
    Box.kept = getattr(Box, "kept", {})
    return Box.kept
def of_function(): return vars(of_function)
def of_builtins():
    builtins._test_kept = getattr(builtins, "_test_kept", {})
    return builtins._test_kept
def of_context():
    VAR.set(VAR.get({}))
    return VAR.get()
def of_thread(): return vars(LOCAL)
@functools.lru_cache
def of_cache(): return {}

def put(file, text):
    part = file.with_name(file.name + ".tmp")
    part.write_text(text)
    os.replace(part, file)

def forgets(workdir, keep):
    """Saves the step alone: the sum is in the process."""
    kept, file = keep(), workdir / "step"
    done = int(file.read_text()) if file.exists() else 0
    total = kept[f"total{done}"] if done else 0
    for number in range(done, 2):
        total = kept[f"total{number + 1}"] = total + number + 1
        put(file, str(number + 1))
    return total

def sound(workdir, *unused):
    file = workdir / "step"
    done, total = map(int, file.read_text().split()) if file.exists() else (0, 0)
    for number in range(done, STEPS):
        total += number + 1
        put(file, f"{number + 1} {total}")
    return total
'''


@pytest.fixture
def project(example):
    """A project with these subjects."""
    return lambda tests: example.with_tests(SUBJECTS + textwrap.dedent(tests))


@pytest.mark.slow
def test_state_in_the_process_does_not_help_a_run_to_resume(project):
    """Whatever holds it: what no new process would find is not there."""
    project("""
        @pytest.mark.parametrize("keep", [of_instance, of_class, of_function, of_builtins, of_context, of_thread, of_cache])
        def test_it(mlchaos, tmp_path, keep):
            report = mlchaos.explore_crashes(forgets, tmp_path, keep)
            assert {(o.verdict, str(o.error)) for o in report.failures} == {("failed", f"'total{done}'") for done in (1, 2)}
            assert "fresh process: in one process for all runs" in str(report)
    """).run(passed=7)


@pytest.mark.slow
def test_a_subject_that_fresh_processes_cannot_run_is_said_to_be_unchecked(project):
    """It holds a lock, or the test has changed what it reads: a note, and no failure."""
    project("""
        def test_lock(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(sound, tmp_path, threading.Lock())
            report.assert_recovers()
            assert "not checked in a fresh process" in str(report) and "the subject and its arguments cannot be sent there" in str(report)

        def test_patched(mlchaos, tmp_path, monkeypatch):
            monkeypatch.setitem(globals(), "STEPS", 3)
            report = mlchaos.explore_crashes(sound, tmp_path)
            report.assert_recovers()
            assert "there the subject has a different result, even without a crash" in str(report)

        def test_checked(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(sound, tmp_path)
            report.assert_recovers()
            assert "fresh process" not in str(report)
    """).run(passed=3)


@pytest.mark.slow
def test_a_lock_that_names_the_test_s_own_process_is_explored_in_fresh_ones(project):
    """A killed process is gone, and the process of the test is not."""
    project("""
        import os

        def alive(pid):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return False
            return True

        def locked(workdir):
            lock, new = pathlib.Path(workdir) / "pid", pathlib.Path(workdir) / "pid.new"
            if lock.exists() and alive(int(lock.read_text())):
                raise RuntimeError("another job runs")
            new.write_text(str(os.getpid()))
            new.replace(lock)
            (pathlib.Path(workdir) / "result").write_text("done")
            lock.unlink()
            return 0.5

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(locked, tmp_path)
            report.assert_recovers()
            assert "pid names this process, which is not killed" in str(report)

        def test_here(mlchaos, tmp_path):
            assert mlchaos.explore_crashes(locked, tmp_path, isolation="in-process").failures
    """).run(passed=2)
