"""The limits ``memory=``, ``cpu=`` and ``disk=`` of runs in fresh processes."""

from __future__ import annotations

import os

import pytest

from pytest_mlchaos.core.limits import Limits
from pytest_mlchaos.processes import limit_watch
from pytest_mlchaos.processes.limit_watch import LimitWatch

pytest.importorskip("psutil")
pytest.importorskip("cloudpickle")

SUBJECT = """
    import json, pathlib, pytest, time

    def totals(workdir, resumed=lambda: None):
        file = pathlib.Path(workdir) / "totals.json"
        day = 0
        if file.exists():
            day = json.loads(file.read_text())
            resumed()
        while day < 2:
            day += 1
            file.with_suffix(".tmp").write_text(json.dumps(day))
            file.with_suffix(".tmp").replace(file)
        return day
"""


@pytest.fixture
def watch(monkeypatch):
    """Return a function that looks at this process at once."""
    monkeypatch.setattr(limit_watch, "SECONDS_BETWEEN_LOOKS", 0.0)
    return lambda limits, *folders: LimitWatch(limits, os.getpid(), folders).exceeded()


def test_a_limit_that_is_not_reached_says_nothing(watch, tmp_path):
    """Each is compared with what all processes use together."""
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert watch(Limits(memory=2**50, cpu=1e9, disk=100), str(tmp_path)) == ""
    assert watch(Limits()) == ""


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(memory=1000), " of memory, and memory= allows 1000 B"),
        (Limits(cpu=0.001), " of processor time, and cpu= allows 1 ms"),
        (Limits(disk=99), "has 100 B in its work directory, and disk= allows 99 B"),
    ],
)
def test_an_exceeded_limit_is_named_with_the_use(watch, tmp_path, limits, text):
    """The message says how much was used, and what the setting allows."""
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert text in watch(limits, str(tmp_path))


@pytest.mark.parametrize("setting", ["memory='much'", "cpu=0", "disk='-1 GB'"])
def test_a_wrong_limit_is_refused(example, setting):
    """The error names the setting and the value."""
    example.with_tests(f"""
        @chaos.settings({setting})
        def test_it(mlchaos, tmp_path):
            mlchaos.run(print)
    """).run(failed=1).has("BadArgument: chaos.settings: " + setting.partition("=")[0])


def test_limits_refuse_an_exploration_in_process(example):
    """A limit that cannot hold is not ignored."""
    example.with_tests(f"""{SUBJECT}
    @chaos.settings(memory="4GiB")
    def test_it(mlchaos, tmp_path):
        mlchaos.explore_crashes(totals, tmp_path, isolation="in-process").assert_recovers()
    """).run(failed=1).has("the setting memory= needs fresh processes")


def test_a_run_in_process_warns_that_nothing_is_limited(example):
    """The limits are for fresh processes."""
    example.with_tests("""
        @chaos.settings(memory="4GiB", cpu="1m")
        def test_it(mlchaos, tmp_path):
            mlchaos.run(dict)
    """).run().has("memory=, cpu= limits nothing here")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "resumed", "text"),
    [
        ("memory='1GiB'", "b'x' * (2 << 30), time.sleep(5)", "of memory, and memory= allows 1 GiB"),
        ("cpu='1s'", "[0 for _ in iter(int, 1)]", "of processor time, and cpu= allows 1 s"),
        (
            "disk='1MB'",
            "pathlib.Path(workdir, 'x').write_bytes(b'x' * 2_000_000), time.sleep(5)",
            "in its work directory, and disk= allows 976.6 KiB",
        ),
    ],
)
def test_a_resumed_run_that_reaches_a_limit_has_no_verdict(example, setting, resumed, text):
    """It is not reported as a failed recovery. ``xfail`` does not hide it, and the state is named."""
    example.with_tests(f"""{SUBJECT}
    @pytest.mark.xfail
    @chaos.settings({setting})
    def test_it(mlchaos, tmp_path):
        def resumed(workdir=str(tmp_path)): {resumed}
        mlchaos.explore_crashes(totals, tmp_path, resumed).assert_recovers()
    """).run(failed=1, xfailed=0).has(
        "LimitReached: mlchaos.explore_crashes: a run ", text, "resumed from the crash state"
    )


@pytest.mark.slow
def test_a_run_within_its_limits_recovers(example):
    """The limits change nothing else."""
    example.with_tests(f"""{SUBJECT}
    @chaos.settings(memory="8GiB", cpu="1h", disk="1GB")
    def test_it(mlchaos, tmp_path):
        mlchaos.explore_crashes(totals, tmp_path).assert_recovers()
    """).run(passed=1)


@pytest.mark.slow
def test_a_limit_ends_the_search_with_its_schedule(example):
    """The search does not shrink it like a failure of the subject."""
    example.with_tests("""
        import json, time

        def work():
            try:
                json.dumps(1)
            except OSError:
                b"x" * (2 << 30), time.sleep(5)
            return 1

        @chaos.call_failure(target="json:dumps", error=OSError("no"))
        @chaos.settings(memory="1GiB")
        def test_it(mlchaos):
            mlchaos.run(work, isolation="process").assert_recovered()
    """).run(failed=1).has(
        "LimitReached: mlchaos.run: the subject's process used", "call_failure(at=0"
    )


@pytest.mark.slow
def test_processes_that_a_run_starts_count(example):
    """A limit holds for all of them together."""
    example.with_tests("""
        import subprocess, sys

        def work():
            subprocess.run([sys.executable, "-c", "for _ in iter(int, 1): pass"])

        @chaos.settings(cpu="1s")
        def test_it(mlchaos):
            mlchaos.run(work, isolation="process")
    """).run(failed=1).has("LimitReached: mlchaos.run: the subject's process used")
