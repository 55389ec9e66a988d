"""The summary of a session, what Ctrl-C leaves, and the progress in words."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import textwrap
import time

import pytest

from pytest_mlchaos.core.progress import Step
from pytest_mlchaos.plugin.progress_line import text_of
from tests.progress_jobs import CTRL_C, FAILING, JOB, SEARCH, SOUND, STOP, command


@pytest.mark.slow
def test_no_terminal_shows_no_progress(tmp_path):
    """A pipe gets pytest's output alone."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(JOB))
    environment = {**os.environ, "CI": ""}
    ran = subprocess.run(
        command("--no-summary"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert "test_it.py .F" in ran.stdout
    assert "·" not in ran.stdout


def rows(text):
    """Return the rows of the summary, with their times left out."""
    found = re.findall(r"^(test_\w+   .*?)\s+\d+\.\d s$", text, re.MULTILINE)
    return [re.sub(r"  +", " | ", row) for row in found]


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["-n2"]], ids=["plain", "xdist"])
def test_summary_has_a_row_for_each_test(tmp_path, mode):
    """In the order of the ids, for explorations that pass and that fail, and for searches."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(JOB + SOUND))
    (tmp_path / "test_a.py").write_text(textwrap.dedent(SEARCH))
    ran = subprocess.run(
        command(*mode), cwd=tmp_path, capture_output=True, text=True, check=False
    ).stdout
    assert rows(ran) == [
        "test_search | 13 trials | all pass",
        "test_any_moment | 10 crash states | 1 does not recover",
        "test_budget | 25 crash states | 3 tried, these recover, the test fails",
        "test_sound | 25 crash states | all recover",
    ]
    assert "3 of 25 crash states were tried" in ran.partition("test_budget   ")[2]
    assert "mlchaos: 4 chaos tests" in ran


@pytest.mark.slow
@pytest.mark.parametrize(("option", "count"), [("-q", 1), ("-qq", 0)])
def test_quiet_summary_is_one_line(tmp_path, option, count):
    """``-q`` has the total alone, without what was not tried. ``-qq`` has nothing."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(JOB + SEARCH))
    options = (option, "--mlchaos-max-trials=2", "-k", "not plain")
    ran = subprocess.run(
        command(*options),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        # In CI, pytest writes whole messages in its own summary.
        env={
            name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")
        },
    )
    assert not rows(ran.stdout)
    told = re.findall("^.*(?:mlchaos:|not tried).*$", ran.stdout, re.MULTILINE)
    assert len(told) == count
    assert all(line.startswith("mlchaos: 2 chaos tests, ") for line in told)


def test_interrupted_search_reports_its_failures(tmp_path):
    """Ctrl-C shows the smallest failing schedule so far, and the lines to paste."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(FAILING))
    ran = subprocess.run(
        command("-k", "stopped"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == pytest.ExitCode.INTERRUPTED
    assert re.search(
        r"^mlchaos: test_stopped was interrupted(?: while shrinking)?: \d+ schedules tried, \d+ fail",
        ran.stdout,
        re.MULTILINE,
    ), ran.stdout
    for text in (
        "RuntimeError (test_it.py:",
        "smallest so far: call_failure(",
        "reproduce: @chaos.call_failure(at=",
        "--mlchaos-replay",
        "! KeyboardInterrupt",
    ):
        assert text in ran.stdout


def test_interrupt_reports_what_was_found(tmp_path):
    """Ctrl-C shows the failures so far and the line to paste, and ends the session as usual."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(JOB + STOP))
    ran = subprocess.run(
        command("-k", "stop"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == pytest.ExitCode.INTERRUPTED
    for text in (
        "interrupted: ",
        "resume raised JSONDecodeError",
        'reproduce: @chaos.crash(state="state.json@0#0")',
        "! KeyboardInterrupt",
    ):
        assert text in ran.stdout


@pytest.fixture
def interrupted(tmp_path):
    """Start pytest, press Ctrl-C when a file exists, and return the exit code and the output."""

    def run(source, *arguments, to_all=True):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(source))
        started = tmp_path / "started"
        with subprocess.Popen(
            command(*arguments),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            end = time.monotonic() + 60
            while not started.exists() and time.monotonic() < end:
                time.sleep(0.05)
            (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
            output = process.communicate(timeout=60)[0]
        return process.returncode, output

    return run


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["-n2"]], ids=["plain", "xdist"])
@pytest.mark.parametrize(
    ("test", "texts"),
    [
        (
            "test_states",
            [
                r"^  interrupted: \d of \d+ crash states have no verdict$",
                r"^  reproduce: @chaos.crash\(state=",
            ],
        ),
        ("test_jobs", [r"^  interrupted: [1-9] of \d+ crash states have no verdict$"]),
        (
            "test_schedules",
            [
                r"^mlchaos: test_schedules was interrupted(?: while shrinking)?: \d schedules tried",
                r"^  reproduce: @chaos.call_failure\(at=",
            ],
        ),
        (
            "test_golden",
            [
                r"^mlchaos: mlchaos.explore_crashes was in the golden run, for .*; "
                r"the code was at test_it.py:\d+ in wait$"
            ],
        ),
    ],
)
def test_ctrl_c_reports_what_was_found(interrupted, mode, test, texts):
    """Also in a worker of xdist. Then pytest ends as usual."""
    code, output = interrupted(CTRL_C, "-k", test, *mode)
    assert code == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt !" in output, output
    ends = output.index("KeyboardInterrupt !")
    for text in texts:
        found = re.findall(text, output, re.MULTILINE)
        assert len(found) == 1, (text, output)
        assert output.index(found[0]) < ends


@pytest.mark.slow
def test_ctrl_c_for_one_process_reaches_the_workers(interrupted):
    """``kill -INT`` reaches no worker, so the main process interrupts them."""
    code, output = interrupted(CTRL_C, "-k", "test_states", "-n2", to_all=False)
    assert code == pytest.ExitCode.INTERRUPTED
    assert len(re.findall("interrupted: . of .+ crash states have no verdict", output)) == 1


@pytest.mark.slow
def test_ctrl_c_that_a_worker_swallows_shows_the_last_step(interrupted):
    """The main process waits for some seconds, and then says what it knows."""
    code, output = interrupted(CTRL_C, "-k", "test_swallows", "-n2")
    assert code == pytest.ExitCode.INTERRUPTED
    assert re.search(
        r"^mlchaos: test_swallows was interrupted at crash states \d/\d+, 1 bad$", output, re.M
    ), output


def test_failed_exploration_is_not_reported_as_interrupted(tmp_path):
    """``pytest.fail`` raises no ``Exception``, but the session goes on."""
    source = """
        import pytest
        def test_fails(mlchaos, tmp_path):
            mlchaos.explore_crashes(job, tmp_path).failures
            pytest.fail("too slow")
    """
    (tmp_path / "test_it.py").write_text(textwrap.dedent(JOB) + textwrap.dedent(source))
    ran = subprocess.run(
        command("-k", "test_fails"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "test_fails   10 crash states" in ran.stdout
    assert "reproduce:" not in ran.stdout


@pytest.mark.parametrize(
    ("step", "seconds", "text"),
    [
        (Step("crash states", 37, 133, 2), 37.5, "t · crash states 37/133 · 2 bad · ~1:40 left"),
        (
            Step("schedules", 12, 50, 1, "shrinking"),
            9,
            "t · schedules 12/50 · 1 failing · shrinking",
        ),
        (Step("worlds", 1, 40), 3, "t · worlds 1/40"),
        (Step("worlds", 8, 40, 1), 7, "t · worlds 8/40 · 1 failing · ~0:32 left"),
        (Step("crash states", 0, note="in the golden run"), 3, "t · in the golden run"),
        (Step("crash states", 3), 3, "t · crash states 3"),
    ],
)
def test_progress_in_words(step, seconds, text):
    """The time left follows from the states after the first one."""
    assert text_of("t", step, seconds) == text
