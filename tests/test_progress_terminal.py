"""The progress line on a real pseudo-terminal, as its screen shows it."""

from __future__ import annotations

import re
import subprocess
import textwrap

import pytest

from tests.progress_jobs import CTRL_C, JOB, SEARCH, SOUND, WORLD, command

pytest.importorskip("pexpect", reason="the terminal needs pexpect and pyte")
pytest.importorskip("pyte", reason="the terminal needs pexpect and pyte")
from tests.terminal import Terminal

SHOWN = re.compile(rb"\x1b\[K ([^\x1b]+)\x1b\[(\d+)D")
MODES = [
    pytest.param([], id="plain"),
    pytest.param(["-s"], id="no-capture", marks=pytest.mark.slow),
    pytest.param(["-v"], id="verbose", marks=pytest.mark.slow),
    pytest.param(["-n2"], id="xdist"),
]
OFTEN = """
    from pytest_mlchaos.plugin import progress_line
    progress_line.SECONDS_BETWEEN_SCROLLED_LINES = 0.1
    progress_line.SECONDS_BETWEEN_PLAIN_LINES = 0.1
"""


@pytest.fixture
def on_terminal(tmp_path):
    """Start pytest on a terminal."""

    def start(source, *arguments, often=False, **keywords):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(source))
        (tmp_path / "conftest.py").write_text(textwrap.dedent(OFTEN) if often else "")
        return Terminal(command(*arguments), tmp_path, **keywords)

    return start


def shown_by(terminal):
    """The texts that the progress line has shown."""
    terminal.end()
    found = SHOWN.findall(terminal.written)
    assert all(len(text.decode()) + 1 == int(back) for text, back in found)
    return [text.decode() for text, _ in found]


@pytest.mark.parametrize(
    "mode", [[], ["-v"], ["-n2"], pytest.param(["-n2", "-v"], marks=pytest.mark.slow)]
)
def test_exploration_shows_its_progress(on_terminal, mode):
    """It says the test, the states, the failures and the time.

    With ``-v``, pytest has written the name of the test, but not with xdist.
    """
    texts = shown_by(on_terminal(JOB, *mode, columns=120))
    name = "" if mode == ["-v"] else "test_any_moment · "
    assert any(
        re.fullmatch(rf"{name}crash states \d+/\d+ · 1 bad · ~0:0\d left", text) for text in texts
    ), texts


@pytest.mark.slow
def test_exploration_shows_its_golden_run(on_terminal):
    """The first states appear after it, which may take long."""
    texts = shown_by(on_terminal(JOB))
    assert texts[0] == "test_any_moment · in the golden run"


@pytest.mark.slow
def test_screen_shows_the_progress_after_the_dots(on_terminal):
    """While the test runs, and nothing of it when the test is over."""
    terminal = on_terminal(JOB)
    terminal.wait_for(" left\x1b")
    (line,) = terminal.find("^test_it.py.*")
    assert re.fullmatch(r"test_it.py \. test_any_moment · crash states \d+/10 .* left", line)
    assert terminal.end() == pytest.ExitCode.TESTS_FAILED
    assert terminal.find("^test_it.py.*") == [f"test_it.py .F{' ' * 80}[100%]"]
    assert not terminal.find("·")


@pytest.mark.slow
def test_screen_of_a_passing_exploration(on_terminal):
    """The row in the summary stays."""
    terminal = on_terminal(JOB + SOUND, "-k", "plain or sound")
    assert terminal.end() == pytest.ExitCode.OK
    assert terminal.find("^test_it.py.*") == [f"test_it.py ..{' ' * 80}[100%]"]
    assert len(terminal.find(r"^test_sound   25 crash states   all recover +\d+\.\d s$")) == 1
    assert not terminal.find("·")


@pytest.mark.parametrize("columns", [40, 60])
@pytest.mark.parametrize(
    "mode", [[], pytest.param(["-v"], marks=pytest.mark.slow)], ids=["plain", "verbose"]
)
def test_narrow_terminal_is_not_garbled(on_terminal, columns, mode):
    """The line is cut, or left out if too little of it would fit. It never wraps."""
    terminal = on_terminal(JOB, *mode, columns=columns)
    texts = shown_by(terminal)
    used = len("test_it.py::test_any_moment ") if mode else len("test_it.py .")
    assert texts or used + 22 > columns
    assert all(used + 1 + len(text) < columns for text in texts)
    assert not terminal.find("·")
    again = on_terminal(JOB, *mode, "-p", "no:mlchaos-progress", columns=columns)
    assert not shown_by(again)

    def untimed(terminal):
        text = re.sub(r"\d+\.\d+\s*s\b|[=!]+", "", "\n".join(terminal.lines))
        return [line.rstrip() for line in text.splitlines()]

    assert untimed(terminal) == untimed(again)


@pytest.mark.parametrize(
    ("option", "statement"),
    [
        ("-s", "print('working')"),
        pytest.param("--capture=tee-sys", "print('working')", marks=pytest.mark.slow),
        pytest.param(
            "--log-cli-level=INFO",
            "import logging; logging.warning('working')",
            marks=pytest.mark.slow,
        ),
        pytest.param("--setup-show", "pass", marks=pytest.mark.slow),
    ],
)
def test_output_during_the_test_gives_the_progress_lines_of_its_own(on_terminal, option, statement):
    """It would be written over a line that stays where it is."""
    begin = "def test_any_moment(mlchaos, tmp_path):"
    source = JOB.replace(begin, f"{begin}\n        {statement}")
    terminal = on_terminal(source, option, often=True)
    assert terminal.end() == pytest.ExitCode.TESTS_FAILED
    assert len(terminal.find(r"^mlchaos: test_any_moment · crash states \d+/10.*$")) > 1
    if statement != "pass":
        assert terminal.find("working$")
    assert not terminal.find("working.*·")
    assert b"\x1b[K" not in terminal.written


@pytest.mark.slow
def test_dumb_terminal_gets_plain_lines(on_terminal):
    """It knows no escape sequence."""
    terminal = on_terminal(JOB, often=True, TERM="dumb")
    assert terminal.end() == pytest.ExitCode.TESTS_FAILED
    assert len(terminal.find(r"^mlchaos: test_any_moment · crash states \d+/10.*$")) > 1
    assert b"\x1b" not in terminal.written


@pytest.mark.slow
@pytest.mark.parametrize("ci", ["true", ""])
def test_log_gets_plain_lines_in_ci(tmp_path, ci):
    """They say the test, because nothing else in the log does. Other pipes get none."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(JOB))
    (tmp_path / "conftest.py").write_text(textwrap.dedent(OFTEN))
    log = subprocess.run(
        ["env", f"CI={ci}", *command("-v")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    lines = re.findall(r"^mlchaos: test_any_moment · .*$", log, re.MULTILINE)
    if ci:
        assert any("· crash states " in line for line in lines)
    else:
        assert not lines


@pytest.mark.slow
def test_log_gets_a_plain_line_each_30_seconds(tmp_path):
    """A short test has none."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(JOB))
    log = subprocess.run(
        ["env", "CI=true", *command("-v")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert "test_any_moment FAILED" in log
    assert "·" not in log


def test_search_shows_its_schedules(on_terminal):
    """The trials of a search count as schedules."""
    texts = shown_by(on_terminal(SEARCH))
    assert any(re.match(r"test_search · schedules \d+/12", text) for text in texts), texts


@pytest.mark.slow
def test_search_over_worlds_counts_worlds(on_terminal):
    """If each trial runs one."""
    pytest.importorskip("torch")
    texts = shown_by(on_terminal(WORLD))
    assert any(re.match(r"test_ranks · worlds \d/4", text) for text in texts), texts


@pytest.mark.slow
def test_quiet_shows_no_progress(on_terminal):
    """``-q`` switches it off."""
    terminal = on_terminal(JOB, "-q", "--no-summary")
    assert not shown_by(terminal)
    assert not terminal.find("crash states")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("test", "text"),
    [
        ("test_states", r"^  interrupted: \d of \d+ crash states have no verdict$"),
        pytest.param(
            "test_schedules",
            r"^mlchaos: test_schedules was interrupted.*: \d schedules tried",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_ctrl_c_on_a_terminal(on_terminal, tmp_path, mode, test, text):
    """First the report of what was found, then pytest's own message. The line is gone."""
    terminal = on_terminal(CTRL_C, "-k", test, *mode)
    terminal.wait_until((tmp_path / "started").exists)
    terminal.press_ctrl_c()
    assert terminal.end() == pytest.ExitCode.INTERRUPTED
    found = terminal.find(f"{text}|KeyboardInterrupt !+$")
    assert [re.match("KeyboardInterrupt", one) is not None for one in found] == [False, True]
    assert terminal.find("^  reproduce: @chaos")
    assert not terminal.find("·")
