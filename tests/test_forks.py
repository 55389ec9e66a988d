"""Processes that the subject forks are part of the trial: visits are counted together, and strikes
are told.
"""

from __future__ import annotations

# Pytester forgets what a test imports first, and its classes are pickled by name
import concurrent.futures.process  # noqa: F401
import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

SUBJECT = """
import multiprocessing, os, signal, threading
from concurrent.futures import ProcessPoolExecutor

from pytest_mlchaos import chaos

FORK = multiprocessing.get_context("fork")

def work(x):
    return x + 1

def in_pool(processes=1, fn=work):
    with FORK.Pool(processes) as pool:
        return pool.map(fn, [1, 2, 3, 4], chunksize=1)

def in_executor():
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        return list(pool.map(work, [1, 2, 3, 4]))

def in_fork():
    return nested(lambda: [work(1)])

def in_grandchild():
    return nested(in_fork)

def nested(function):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, bytes(function()))
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as file:
        found = file.read()
    if not found:
        raise ChildProcessError("the child gave nothing")
    return list(found)

def tried(x):
    try:
        return work(x)
    except MemoryError:
        return None
"""


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["in_pool", "in_executor", "in_fork", "in_grandchild"])
def test_a_strike_in_a_forked_process_is_a_strike_of_the_trial(example, subject):
    """It is in the journal with its visit and its process, whichever way the process was forked."""
    example.with_tests(
        SUBJECT
        + f"""
@chaos.call_failure(target="test_it:work", error="MemoryError", at=0)
def test_it(mlchaos):
    mlchaos.pipeline({subject}).assert_same_output()
    (strike,) = mlchaos.journal
    assert (strike.site, strike.visit) == ("call", 0)
    assert strike.details["process"] == {"child 1.1" if subject == "in_grandchild" else "child 1"!r}
"""
    ).run(passed=1)


def test_visits_are_counted_over_all_processes(example):
    """Each call has a number of its own, and ``at=[1, 4]`` strikes two calls in any process."""
    example.with_tests(
        SUBJECT
        + """
@chaos.call_failure(target="test_it:work", error="MemoryError", at=[1, 4])
def test_it(mlchaos):
    assert work(0) == 1
    values = in_pool(3, tried)
    assert values.count(None) == 2 - (tried(0) is None)
    assert sorted(strike.visit for strike in mlchaos.journal) == [1, 4]
"""
    ).run(passed=1)


def test_times_bounds_the_strikes_of_all_processes(example):
    """``times=1`` is one strike, not one in each process."""
    example.with_tests(
        SUBJECT
        + """
@chaos.call_failure(target="test_it:work", error="MemoryError", at=chaos.EVERY, times=1)
def test_it(mlchaos):
    assert (in_pool(2, tried) + in_pool(2, tried)).count(None) == 1
    assert len(mlchaos.journal) == 1
"""
    ).run(passed=1)


@pytest.mark.slow
def test_an_injected_error_that_comes_home_from_a_pool_restarts_the_run(example):
    """The copy of it that the pool raises is the fault's doing, not the subject's own error."""
    example.with_tests(
        SUBJECT
        + """
@chaos.call_failure(target="test_it:work", error="MemoryError", at=2)
def test_it(mlchaos):
    run = mlchaos.run(in_pool)
    assert run.restarts == 1 and len(run.faults) == 1
    run.assert_recovered()
"""
    ).run(passed=1)


def test_a_workers_own_error_is_not_the_faults(example):
    """An error of another text is the subject's own, although a fault struck in that process."""
    example.with_tests(
        SUBJECT
        + """
def clumsy(x):
    try:
        return work(x)
    except MemoryError:
        raise ValueError("a mistake in the handler") from None

@chaos.call_failure(target="test_it:work", error="MemoryError", at=2)
def test_it(mlchaos):
    mlchaos.run(lambda: in_pool(fn=clumsy)).assert_recovered()
"""
    ).run(failed=1).has("ValueError: a mistake in the handler")


@pytest.mark.slow
def test_a_search_sees_the_visits_of_forked_processes(example):
    """A bare fault is tried at the calls that only a worker makes."""
    example.with_tests(
        SUBJECT
        + """
def careless(x):
    try:
        return work(x)
    except MemoryError:
        return 0

@chaos.call_failure(target="test_it:work", error="MemoryError")
def test_it(mlchaos):
    mlchaos.pipeline(in_pool, 1, careless).assert_same_output()
"""
    ).run(failed=1).has("SilentlyDifferent", "process=child 1")


def test_a_pool_that_lives_on_is_not_struck_in_the_golden_run(example):
    """The golden run uses the workers that were forked under faults, and nothing strikes in them
    meanwhile.
    """
    example.with_tests(
        SUBJECT
        + """
POOL = []

def in_one_pool():
    POOL.append(FORK.Pool(1)) if not POOL else None
    return POOL[0].map(work, [1, 2])

@chaos.call_failure(target="test_it:work", error="MemoryError", at=range(100), times=1)
def test_it(mlchaos):
    run = mlchaos.pipeline(in_one_pool)
    run.assert_same_output()
    assert [strike.visit for strike in mlchaos.journal] == [0]
    POOL[0].terminate()
"""
    ).run(passed=1)


@pytest.mark.slow
def test_forked_processes_of_a_fresh_one_are_part_of_the_trial(example):
    """Under ``isolation="process"`` the subject's process hands on what its children tell."""
    pytest.importorskip("cloudpickle")
    example.with_tests(
        SUBJECT
        + """
@chaos.call_failure(target="test_it:work", error="MemoryError", at=1)
def test_it(mlchaos):
    run = mlchaos.run(in_pool, isolation="process")
    assert run.restarts == 1
    assert [(strike.visit, strike.details["process"]) for strike in run.faults] == [(1, "child 1")]
"""
    ).run(passed=1)


@pytest.mark.slow
def test_a_fault_that_ends_the_process_leaves_forked_ones_alone(example):
    """The process that a crash ends is the subject's own, and the error says so."""
    example.with_tests(
        SUBJECT
        + """
def passing(x):
    return CHAOS[0].visit("my.site", x)

CHAOS = []

@chaos.crash(site="my.site", at=0)
def test_it(mlchaos):
    CHAOS[:] = [mlchaos]
    mlchaos.run(in_pool, 1, passing)
"""
    ).run(failed=1).has(
        "never struck",
        "a fault that ends the process does not strike in a process that the subject forked",
    )


def test_the_error_names_processes_that_were_started_afresh(example):
    """A predicate cannot be sent to a new interpreter.

    NeverStruck names the start method, and the one that is part of the trial.
    """
    example.with_tests(
        SUBJECT
        + """
@chaos.call_failure(target="math:sqrt", error="MemoryError", where=lambda visit: True, at=0)
def test_it(mlchaos):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(abs, (-1,)) == 1
"""
    ).run(failed=1).has(
        "1 new process (start method 'spawn')", "multiprocessing.get_context('fork')"
    )


@pytest.mark.slow
def test_a_strike_in_a_spawned_process_is_a_strike_of_the_trial(example):
    """The process is armed as it starts, and its visits count with those of the others."""
    example.with_file(
        "readers.py",
        """
        def read(path):
            try:
                return len(path.read_bytes())
            except OSError:
                return 0
        """,
    ).with_tests(
        """
        import multiprocessing, readers

        @chaos.flaky_storage(path="*.bin", op="read", at=1)
        def test_it(mlchaos, tmp_path):
            paths = [tmp_path / f"{number}.bin" for number in range(2)]
            for path in paths:
                path.write_bytes(b"12345")
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                assert pool.map(readers.read, paths) == [5, 0]
            (strike,) = mlchaos.journal
            assert strike.details["process"] == "child 1"
        """
    ).run(passed=1)


def test_a_worker_of_an_executor_dies_at_its_task(example):
    """The executor raises, which is an outcome of the fault."""
    example.with_tests(
        SUBJECT
        + """
@chaos.worker_death(of="pool", at=1)
def test_it(mlchaos):
    run = mlchaos.pipeline(in_executor)
    run.assert_same_output()
    assert "BrokenProcessPool" in str(type(run.error))
    (strike,) = mlchaos.journal
    assert (strike.site, strike.visit) == ("pool.task", 1)
"""
    ).run(passed=1)


@pytest.mark.slow
def test_a_pool_that_waits_for_a_dead_worker_times_out(example):
    """The error names the line that waits, and the fault."""
    example.with_tests(
        SUBJECT
        + """
@chaos.settings(timeout=5)
@chaos.worker_death(of="pool", at=1)
def test_it(mlchaos):
    mlchaos.pipeline(in_pool)
"""
    ).run(failed=1).has("TrialTimeout", "called by in_pool", "worker_death(at=1, of='pool')")
