"""Nine kinds of projects (``examples/kinds``) are explored, seen while they run, and reported."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from examples.kinds.conftest import NEEDED
from pytest_mlchaos.core.entries import Exploration
from pytest_mlchaos.reports.journal_reader import read_journals

pytest.importorskip("pexpect", reason="the terminal needs pexpect and pyte")
pytest.importorskip("pyte", reason="the terminal needs pexpect and pyte")
from tests.terminal import Terminal

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", NEEDED)
def test_a_project_is_explored_and_reported(kind, tmp_path):
    """A progress line while it runs, a row in the summary, and a section in the HTML report."""
    for package in (*NEEDED[kind], "jinja2", "vl_convert"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "pytest", f"examples/kinds/test_{kind}.py", "--mlchaos-seed=1"]
    options = (f"--mlchaos-report={tmp_path}/r.html", f"--mlchaos-journal={tmp_path}/j.jsonl")
    quiet = ("-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function")
    terminal = Terminal([*command, *options, *quiet], ROOT, columns=140)
    assert terminal.end() == 0, terminal.lines
    (test,) = read_journals([tmp_path / "j.jsonl"]).tests.values()
    name = test.nodeid.rpartition("::")[2]
    what, row = "schedules", rf"{name} +\d+ trials +all pass +(recovers in [\d.]+ s +)?[\d.]+ s"
    if test.explorations:
        what, row = "crash states", rf"{name} +\d+ crash states +all recover"
    assert re.search(rf"{name} · {what} \d+".encode(), terminal.written), terminal.written
    assert terminal.find(row), terminal.lines
    page = (tmp_path / "r.html").read_text()
    assert re.search(
        rf'<article [^>]*class="test" data-outcome="passed".*?<h3>{name}</h3>.*?</article>',
        page,
        re.DOTALL,
    )
    assert test.all(Exploration) or len(test.trials) > 3


def test_no_kind_is_missing():
    """Each example has its entry here."""
    found = {path.stem.removeprefix("test_") for path in ROOT.glob("examples/kinds/test_*.py")}
    assert found == set(NEEDED)
