"""Points that some trial must reach: ``mlchaos.reachable`` and ``mlchaos.sometimes``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_mlchaos.core.declared_points import declared_points
from pytest_mlchaos.core.entries import Line, Point
from pytest_mlchaos.core.points import Points, listen, reachable, sometimes, stop_listening
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.reports.journal_reader import session_of
from pytest_mlchaos.reports.points import missed_points

PRODUCT = """
import pytest_mlchaos as mlchaos
from pytest_mlchaos import reachable as point

def load(client):
    try:
        client()
    except OSError:
        mlchaos.reachable("the fallback")
    except ValueError:
        point("the second fallback")
    mlchaos.sometimes(client is None, "no client")
"""
TESTS = """
import product

def fetch():
    return 1

@chaos.call_failure(target="test_it:fetch", error=OSError(5, "no"), at=0)
def test_it(mlchaos):
    product.load(lambda: fetch())
    mlchaos.sometimes(True, "in the test")
    assert True
"""


def points_of(*entries):
    """The session with these points."""
    return session_of([Line("a", 0, entry) for entry in entries])


def test_points_do_nothing_outside_of_a_trial():
    """Not even for a name that is not a text."""
    reachable(3)
    sometimes(1, object())


def test_points_load_little():
    """Product code imports them, so they load neither pytest nor the journal."""
    code = (
        "import sys; from pytest_mlchaos import reachable, sometimes; reachable('a'); "
        "print([name for name in sys.modules if name.startswith(('pytest_mlchaos.', 'pytest.'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['pytest_mlchaos.core', 'pytest_mlchaos.core.points']"


def test_points_are_counted_in_a_trial():
    """With their line, and how often the condition held."""
    points = Points()
    listen(points)
    try:
        for number in range(3):
            reachable("here")
            sometimes(number > 1, "the last one")
        reachable("made of" + str(len("data")))
        with pytest.raises(BadArgument, match="name must be a text, got int"):
            reachable(3)
    finally:
        stop_listening(points)
    shown = [(one.name, one.condition, one.reached, one.held) for one in points.entries()]
    assert shown == [
        ("<name>", False, 1, 1),
        ("here", False, 3, 3),
        ("the last one", True, 3, 1),
    ]
    assert all(one.place.startswith("test_points.py:") for one in points.entries())


def test_points_of_a_different_process_are_told_at_doubling_numbers():
    """The first time at once, and the first time that the condition holds."""
    told = []
    points = Points(lambda *what: told.append(what))
    for number in range(9):
        points.add("a", True, "b:1", 1, int(number == 5))
    assert [(reached, held) for *_, reached, held in told] == [(1, 0), (1, 0), (2, 0), (2, 1)]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from pytest_mlchaos import reachable\nreachable('a')\n", [("a", False, "f.py:2")]),
        ("from pytest_mlchaos import sometimes as s\ns(x, 'a')\n", [("a", True, "f.py:2")]),
        ("import pytest_mlchaos as m\nm.sometimes(x, name='a')\n", [("a", True, "f.py:2")]),
        ("import pytest_mlchaos\npytest_mlchaos.reachable('a')\n", [("a", False, "f.py:2")]),
        ("def test(mlchaos):\n    mlchaos.reachable('a')\n", [("a", False, "f.py:2")]),
        ("from pytest_mlchaos import reachable\nreachable(name)\n", []),
        ("from other import reachable\nreachable('a')\nx.reachable('b')\n", []),
        ("reachable(", []),
    ],
)
def test_declared_points(source, found):
    """Constant names are found under each name that the functions were imported by."""
    assert [(p.name, p.condition, p.place) for p in declared_points(source, "/x/f.py")] == found


def test_missed_points():
    """A point counts by its name. A condition must have held."""
    missed = missed_points(
        points_of(
            Point(name="a", place="f.py:1"),
            Point(name="a", place="f.py:1", reached=2, held=2),
            Point(name="b", place="f.py:2"),
            Point(name="c", condition=True, place="f.py:3", reached=4),
            Point(name="d", condition=True, place="f.py:4"),
        )
    )
    assert [str(one) for one in missed] == [
        "no trial reached 'b' (f.py:2)",
        "'c' was never true (f.py:3), checked 4 times",
        "no trial reached the condition 'd' (f.py:4)",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("-n2",)])
def test_session_names_missed_points(example, more):
    """The summary names them with their lines, and the session passes."""
    project = example.with_file("product.py", PRODUCT.strip() + "\n").with_tests(TESTS)
    outcome = project.run(*more, passed=1)
    outcome.has(
        "mlchaos: no trial reached 'the second fallback' (product.py:10)",
        "mlchaos: 'no client' was never true (product.py:11), checked 1 time",
    )
    assert "the fallback'" not in outcome.text
    assert "in the test" not in outcome.text
    assert outcome.exit_code == 0


@pytest.mark.slow
def test_session_fails_for_missed_points_on_request(example):
    """By option, and by the ini file. Switched off, nothing is known of them."""
    project = example.with_file("product.py", PRODUCT.strip() + "\n").with_tests(TESTS)
    outcome = project.run("--mlchaos-require-points", passed=1)
    outcome.has("FAIL mlchaos: some points were missed")
    assert outcome.exit_code == 1
    project = project.with_ini("mlchaos_require_points = true")
    assert project.run(passed=1).exit_code == 1
    outcome = project.run("--mlchaos-off", passed=1)
    assert outcome.exit_code == 0
    assert "no trial reached" not in outcome.text


@pytest.mark.slow
def test_points_in_other_processes_count(example):
    """A forked child and a fresh process report what they reach."""
    outcome = example.with_tests(
        """
        import os
        import pytest_mlchaos as mlchaos_points

        def forks():
            visit("here")
            pid = os.fork()
            if not pid:
                for _ in range(3):
                    mlchaos_points.reachable("in the child")
                mlchaos_points.reachable("too")
                os._exit(0)
            os.waitpid(pid, 0)
            mlchaos_points.sometimes(False, "never")

        @chaos.register
        class Nudge(Fault):
            site = "here"
            def apply(self, visit):
                return 1

        @chaos.nudge(at=0)
        def test_forks():
            forks()

        def subject():
            mlchaos_points.reachable("in a fresh process")

        def test_fresh(mlchaos):
            assert mlchaos.run(subject, isolation="process").restarts == 0
        """
    ).run("--mlchaos-journal=j.jsonl", passed=2)
    outcome.has("'never' was never true")
    assert "no trial reached 'in" not in outcome.text
    entries = [
        line.entry
        for line in map(_line, (example.pytester.path / "j.jsonl").read_text().splitlines())
        if isinstance(line.entry, Point) and line.entry.reached
    ]
    assert {(one.name, one.reached) for one in entries} >= {
        ("in the child", 2),
        ("in a fresh process", 1),
    }


def _line(text):
    from pytest_mlchaos.core.entries import parse_line

    return parse_line(text)
