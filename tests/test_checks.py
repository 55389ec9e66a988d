"""Which statements of a test count as checks of what happened before."""

from __future__ import annotations

import textwrap

import pytest

from pytest_mlchaos.core.checks import last_check


def checked(body: str, *, rest: str = "", ignored: tuple[str, ...] = ()) -> int:
    """Return the last checked line of a test with this body, counted from the line of its def."""
    source = "import pytest\n\ndef test_it():\n" + textwrap.indent(textwrap.dedent(body), "    ")
    found = last_check(f"{source}\n\n{textwrap.dedent(rest)}", 3, ignored)
    return found and found - 3


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("run()\n", 0),
        ("run()\nassert True\nrun()\n", 2),
        ("run()\nraise ValueError\nrun()", 2),
        ("with pytest.raises(OSError):\n    run()\nrun()\n", 2),
        ("pytest.raises(OSError, run)\nrun()\n", 1),
        ("with self.assertRaises(OSError):\n    run()\nrun()\n", 1),
        ("run()\nnp.testing.assert_allclose(1, 1)\n", 2),
        ("run()\nif bad():\n    pytest.fail('x')\nrun()\n", 3),
        ("for i in (1, 2):\n    assert i\n    run()\nrun()\n", 3),
        ("while True:\n    for i in (1, 2):\n        assert i\n    run()\nrun()\n", 4),
        ("def subject():\n    assert True\nrun(subject)\n", 0),
        ("assert all(\n    one\n    for one in run()\n)\nrun()\n", 4),
    ],
)
def test_last_check_finds_each_kind(body, line):
    """A check covers what happened up to its last line, and a loop covers its whole body."""
    assert checked(body) == line


def test_last_check_follows_helpers_of_the_file():
    """A helper that asserts is a check, also through a second one, and recursion ends."""
    rest = "def judge(x):\n    look(x)\n\ndef look(x):\n    assert x\n    judge(x)\n"
    assert checked("run()\njudge(1)\nrun()\n", rest=rest) == 2
    assert checked("run()\nprint(1)\n", rest="def print(x):\n    return x\n") == 0


def test_last_check_ignores_recorded_methods():
    """Assertions of results are recorded with their result, so the text of the test says less."""
    assert checked("run()\na.assert_recovered()\n", ignored=("assert_recovered",)) == 0


def test_last_check_of_a_decorated_function():
    """The first line of a function is that of its first decorator."""
    assert last_check("@one\n@two\ndef test_it():\n    run()\n    assert True\n", 1) == 5
    assert last_check("not python(", 1) == 0
