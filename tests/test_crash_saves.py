"""Causes that a crash state shows: files of different saves, a finished job that is started again,
runs that hang. Torch-free.
"""

from __future__ import annotations

import textwrap

import pytest

SUBJECTS = '''
import json, os, pathlib, threading, time
import pytest

def put(file, data):
    part = file.with_name(file.name + ".tmp")
    part.write_text(json.dumps(data))
    os.replace(part, file)

def get(file, otherwise):
    return json.loads(file.read_text()) if file.exists() else otherwise

def two_files(workdir):
    """Replaces one file after the other: weights, and the number of rounds."""
    weights, rounds = get(workdir / "weights.json", 0.5), get(workdir / "meta.json", 0)
    for number in range(rounds, 3):
        weights = weights * 2 + number
        put(workdir / "weights.json", weights)
        put(workdir / "meta.json", number + 1)
    return {"weights": weights}

def once_more(workdir):
    """The average of a finished job is taken again."""
    state = get(workdir / "state.json", {"round": 0, "sum": 0.0})
    for number in range(state["round"], 3):
        state = {"round": number + 1, "sum": state["sum"] + number}
        put(workdir / "state.json", state)
    put(workdir / "state.json", {**state, "sum": state["sum"] / 3})
    return {"mean": state["sum"] / 3}

def locked(workdir):
    """Waits for a lock that a crashed run has left, while a worker dies of it."""
    lock = workdir / "lock"
    if lock.exists():
        worker = threading.Thread(target=int, args=("no number",), name="loader")
        worker.start(); worker.join()
        while lock.exists():
            time.sleep(0.01)
    lock.touch()
    for number in range(get(workdir / "state.json", -1) + 1, 6):
        put(workdir / "state.json", number)
    lock.unlink()
    return 0.5
'''


@pytest.fixture
def project(example):
    """A project with these subjects."""
    return lambda tests: example.with_tests(SUBJECTS + textwrap.dedent(tests))


def test_files_of_different_saves_are_named(project):
    """Which file is of which save; only in the states between the two, and not as a divergence of
    the training.
    """
    project("""
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(two_files, tmp_path, isolation="in-process")
            assert {o.divergence.component for o in report.failures} == {"files of different saves"}
            assert "weights.json is from save 2, meta.json from save 1" in str(report)
            report.assert_recovers()
    """).run(failed=1).has("files of different saves")


@pytest.mark.slow
def test_a_finished_job_that_is_started_again_is_named(project):
    """It has a group of its own, whatever it does then."""
    project("""
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(once_more, tmp_path, isolation="in-process")
            assert [o.finished for o in report.failures] == [True]
            report.assert_recovers()
    """).run(failed=1).has("(the job had finished, and was started again)")


@pytest.mark.slow
def test_hung_states_of_one_cause_cost_the_time_limit_once(project):
    """The others are ended early, and are said to be; what ended a worker thread is told."""
    project("""
        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(locked, tmp_path, isolation="in-process", timeout=5, torn_writes=False)
            hung = [o for o in report.outcomes if o.verdict == "hung"]
            assert len(hung) > 5 and len(report.examples) == 1
            assert 1 <= sum(not o.detail for o in hung) <= 4 < len(hung) and not hung[0].detail  # once for each place in the loop
            assert "thread loader raised ValueError" in str(report)
            report.assert_recovers()
    """).run("--mlchaos-clock=real", failed=1).has(
        "of them stopped early, after 1.0 s, where an earlier run hung"
    )
