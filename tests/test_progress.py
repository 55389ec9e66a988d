"""The progress line of an exploration, on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from pytest_mlchaos.core.progress import Step
from pytest_mlchaos.plugin.progress_line import text_of

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
SHOWN = re.compile(rb"\x1b\[K (test_[^\x1b]*)\x1b\[(\d+)D")


def command(*arguments):
    """Return the command line of a pytest that loads few plugins."""
    options = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:randomly", "--tb=no")
    return [sys.executable, "-m", "pytest", *options, *arguments]


@pytest.fixture
def on_terminal(tmp_path):
    """Run pytest on a pseudo-terminal, and return all that it wrote there."""

    def run(source, *arguments):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(source))
        ours, theirs = pty.openpty()
        written = []

        def read():
            try:
                while data := os.read(ours, 65536):
                    written.append(data)
            except OSError:  # the other end is closed
                pass

        reader = threading.Thread(target=read)
        reader.start()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        environment.pop("CI", None)
        try:
            subprocess.run(
                command(*arguments),
                cwd=tmp_path,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=environment,
                check=False,
                timeout=120,
            )
        finally:
            os.close(theirs)
            reader.join(10)
            os.close(ours)
        return b"".join(written)

    return run


def screen(written):
    """Return the lines as a terminal shows them: it knows the few sequences that occur."""
    lines, column = [""], 0
    for part in re.findall(
        r"\x1b\[\d*(?:;\d+)*[A-Za-z]|.|\n", written.decode().replace("\r\n", "\n")
    ):
        if part == "\n":
            lines.append("")
            column = 0
        elif part == "\r":
            column = 0
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif part.startswith("\x1b["):
            column -= int(part[2:-1]) if part.endswith("D") else 0
        else:
            lines[-1] = f"{lines[-1][:column]}{part}{lines[-1][column + 1 :]}"
            column += 1
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize(
    "mode",
    [[], pytest.param(["-v"], marks=pytest.mark.slow), ["-n2"]],
    ids=["plain", "verbose", "xdist"],
)
def test_exploration_shows_its_progress(on_terminal, mode):
    """It says the test, the states, the failures and the time, and the cursor goes back."""
    shown = SHOWN.findall(on_terminal(JOB, *mode))
    assert all(len(text.decode()) + 1 == int(back) for text, back in shown)
    texts = [text.decode() for text, _ in shown]
    assert any(
        re.fullmatch(r"test_any_moment · crash states \d+/\d+ · 1 bad · ~0:0\d left", text)
        for text in texts
    ), texts


def test_progress_does_not_garble_the_dots(on_terminal):
    """When pytest ends, its line is as it would be without a progress line."""
    lines = screen(on_terminal(JOB))
    assert [line for line in lines if line.startswith("test_it.py")] == [
        f"test_it.py .F{' ' * 80}[100%]"
    ]
    assert not any("·" in line for line in lines)


def test_search_shows_its_schedules(on_terminal):
    """The trials of a search count as schedules."""
    texts = [text.decode() for text, _ in SHOWN.findall(on_terminal(SEARCH))]
    assert any(text.startswith("test_search · schedules ") for text in texts), texts


def test_search_over_worlds_counts_worlds(on_terminal):
    """If each trial runs one."""
    pytest.importorskip("torch")
    texts = [text.decode() for text, _ in SHOWN.findall(on_terminal(WORLD))]
    assert any(re.match(r"test_ranks · worlds \d/4", text) for text in texts), texts


def test_quiet_shows_no_progress(on_terminal):
    """``-q`` switches it off."""
    assert "crash states" not in on_terminal(JOB, "-q", "--no-summary").decode()


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


@pytest.mark.parametrize(("option", "count"), [("-q", 1), ("-qq", 0)])
def test_quiet_summary_is_one_line(tmp_path, option, count):
    """``-q`` has the total alone, without what was not tried. ``-qq`` has nothing."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(JOB + SEARCH))
    options = (option, "--mlchaos-max-trials=2", "-k", "not plain")
    ran = subprocess.run(
        command(*options), cwd=tmp_path, capture_output=True, text=True, check=False
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
