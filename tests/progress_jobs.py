"""Test files whose explorations and searches take long enough to be watched."""

from __future__ import annotations

import sys

JOB = """
    import json, os, time
    def job(workdir):
        end = os.times().elapsed + 0.06  # the other clocks of a test are virtual
        while os.times().elapsed < end: pass
        state = workdir / "state.json"
        steps = json.loads(state.read_text()) if state.exists() else 0
        while steps < 8:
            steps += 1
            state.write_text(json.dumps(steps))
        return steps
    def test_plain(): pass
    def test_any_moment(mlchaos, tmp_path):
        mlchaos.explore_crashes(job, tmp_path).assert_recovers()
"""
SOUND = """
    def sound(workdir):
        state = workdir / "state.json"
        steps = json.loads(state.read_text()) if state.exists() else 0
        while steps < 8:
            steps += 1
            (workdir / "part").write_text(json.dumps(steps))
            os.replace(workdir / "part", state)
        return steps
    def test_sound(mlchaos, tmp_path):
        mlchaos.explore_crashes(sound, tmp_path).assert_recovers()
    def test_budget(mlchaos, tmp_path):
        mlchaos.explore_crashes(sound, tmp_path, max_states=3, require_all=True).assert_recovers()
"""
STOP = """
    def stopped(workdir):
        log = os.open(__file__ + ".runs", os.O_CREAT | os.O_RDWR | os.O_APPEND)
        os.write(log, b".")
        if os.fstat(log).st_size == 7: os.kill(os.getpid(), 2)
        os.close(log)
        return job(workdir)
    def test_stop(mlchaos, tmp_path):
        mlchaos.explore_crashes(stopped, tmp_path, isolation="in-process", exhaustive=True).assert_recovers()
"""
SEARCH = """
    import time
    from pytest_mlchaos import chaos, visit
    @chaos.call_delay(target="json:dumps", delay=0.001)
    @chaos.settings(max_trials=12)
    def test_search():
        import json
        time.sleep(0.05)
        for _ in range(20): json.dumps({})
"""
FAILING = """
    import os
    from pytest_mlchaos import chaos
    count = 0
    def calls(stop_at):
        global count
        import json
        count += 1
        for number in range(40):
            try:
                json.dumps(number)
            except ValueError:
                if number > 20: raise RuntimeError from None
        if count == stop_at: os.kill(os.getpid(), 2)
    @chaos.call_failure(target="json:dumps", error="ValueError")
    def test_fails(): calls(0)
    @chaos.call_failure(target="json:dumps", error="ValueError")
    @chaos.settings(seed=0)
    def test_stopped(): calls(15)
"""
WORLD = """
    import json
    from pytest_mlchaos import chaos, visit
    @chaos.call_delay(target="json:dumps", delay=0.001)
    @chaos.settings(max_trials=4)
    def test_ranks(mlchaos):
        mlchaos.world(ranks=2).run(work).assert_finished()
    def work():
        for _ in range(20): json.dumps({})
"""
WAITS = """
    import time
    from pathlib import Path
    def wait():  # for Ctrl-C, after some runs
        folder = Path(__file__).parent
        with open(folder / "runs", "a") as log: log.write(".")
        if (folder / "runs").stat().st_size == 7:
            (folder / "started").touch()
            end = os.times().elapsed + 60
            while os.times().elapsed < end: pass
    def waiting(workdir):
        wait()
        return job(workdir)
    def test_states(mlchaos, tmp_path):
        mlchaos.explore_crashes(waiting, tmp_path, isolation="in-process", exhaustive=True)
    def test_jobs(mlchaos, tmp_path):
        mlchaos.explore_crashes(waiting, tmp_path, jobs=2, exhaustive=True)
    @chaos.call_failure(target="json:dumps", error="ValueError")
    def test_schedules():
        wait()
        calls(0)
    def swallows(workdir):
        end = os.times().elapsed + 60
        try: wait()
        except KeyboardInterrupt:
            while os.times().elapsed < end:
                try: time.sleep(0.1)
                except KeyboardInterrupt: pass
        return job(workdir)
    def test_swallows(mlchaos, tmp_path):
        mlchaos.explore_crashes(swallows, tmp_path, isolation="in-process", exhaustive=True)
    def test_golden(mlchaos, tmp_path):
        (Path(__file__).parent / "runs").write_text("." * 6)
        mlchaos.explore_crashes(waiting, tmp_path)
"""
CTRL_C = JOB + FAILING + WAITS


def command(*arguments):
    """Return the command line of a pytest that loads few plugins."""
    options = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:randomly", "--tb=no")
    return [sys.executable, "-m", "pytest", *options, *arguments]
