"""GitHub Actions: the summary of a step, and annotations at the user's lines."""

from __future__ import annotations

import pytest

from pytest_mlchaos.core import entries
from pytest_mlchaos.errors import BadArgument
from pytest_mlchaos.reports.exports import github
from pytest_mlchaos.reports.exports.repository import Repository
from tests.session_logs import CRASHES, OWN, PASSED, everything, session


def decoded(line):
    """Read a workflow command as GitHub's runner does."""
    command, properties, text = line.removeprefix("::").partition(" ")[0], {}, ""
    rest = line.removeprefix(f"::{command} ")
    told, _, text = rest.partition("::")
    for one in told.split(","):
        name, _, value = one.partition("=")
        for code, sign in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            value = value.replace(code, sign)
        properties[name] = value
    for code, sign in (("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, sign)
    return command, properties, text


def rendered(markdown):
    """Return Markdown as HTML, as GitHub renders it."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False})
    return parser.render(markdown)


def failing(test, **rest):
    """One failed test."""
    end = entries.Test(outcome="failed", file=test.partition("::")[0], line=7, trials=1, **rest)
    return (test, 0, end)


def test_each_failure_is_an_annotation_at_the_users_line():
    """The command is one line, and has the text of the report."""
    lines = list(github.lines(everything()))
    assert len(lines) == 7
    assert all("\n" not in line for line in lines)
    command, properties, text = decoded(lines[0])
    assert (command, properties) == (
        "error",
        {"file": "src/train.py", "line": "12", "title": "test_any_moment[a|b]: crash-failed"},
    )
    assert text.splitlines()[0] == "crash state failed: EOFError: Ran out of input"
    assert 'Reproduce: @chaos.crash(state="last.ckpt@0#3")' in text


def test_signs_of_commands_are_encoded():
    """A test's name and a text cannot end the command or add a property."""
    test = "tests/a,b.py::test_it[x::y,line=3 100%]"
    (line,) = github.lines(session(failing(test, error="X", message="50% done\r\n::error::no")))
    command, properties, text = decoded(line)
    assert command == "error"
    assert properties == {
        "file": "tests/a,b.py",
        "line": "7",
        "title": "test_it[x::y,line=3 100%]: own-error",
    }
    assert text == "50% done\r\n::error::no"


def test_what_github_drops_is_said():
    """GitHub shows ten annotations of a step."""
    many = session(*(failing(f"t.py::test_{number:02}", error="X") for number in range(13)))
    lines = list(github.lines(many))
    assert [line.startswith("::error ") for line in lines] == [True] * 10 + [False]
    assert "3 more failures" in lines[-1]
    assert not list(github.lines(session()))


def test_the_summary_has_a_row_for_each_test_and_its_failures():
    """Passed tests have a row, and failed ones also a text that opens by a click."""
    text = github.summary(everything())
    assert text.startswith("## Chaos tests: 1 passed, 5 failed\n")
    page = rendered(text)
    assert page.count("<tr>") == 1 + 6
    assert "<td><code>test_passes</code></td>\n<td>2 trials</td>" in page.replace("&#95;", "_")
    assert "4 do not recover" in page
    assert "<td>at most 3 steps</td>" in page
    assert page.count("<details>") == 7
    assert '@chaos.crash(state="last.ckpt@0#3")' in page
    assert "failures/#neverstruck" in page


def test_nothing_in_a_text_is_markup():
    """A name or a message cannot change the page."""
    test = "t.py::test_it[a|b<img src=x>*c*_d_`e`]"
    message = "<b>bold</b> </pre> **x**\n\n# head\n| a | b |"
    page = rendered(github.summary(session(failing(test, error="X", message=message))))
    assert "<img" not in page
    assert "<b>" not in page
    assert "<em>" not in page
    assert page.count("<h1>") == 0
    assert page.count("<table>") == 1
    assert page.count("</pre>") == 1
    assert page.count("<tr>") == 2
    assert "test_it[a|b&lt;img src=x&gt;*c*_d_`e`]" in page


def test_a_long_summary_is_cut():
    """GitHub rejects more than 1 MiB, so what does not fit is counted."""
    message = "x" * 10_000
    ends = [failing(f"t.py::test_{number}", error="X", message=message) for number in range(300)]
    text = github.summary(session(*ends))
    assert len(text.encode()) < 2**20
    assert "The limit of GitHub left out" in text
    assert text.count("<pre>") > 200


def test_problems_of_the_journal_are_in_the_summary():
    """The summary says what could not be read."""
    text = github.summary(session(failing("t.py::test_it"), problems=["line 3 was skipped"]))
    assert "line 3 was skipped" in text


def test_the_summary_is_appended(tmp_path, monkeypatch):
    """Other tools write to the same file. Without a chaos test, nothing is written."""
    file = tmp_path / "summary.md"
    file.write_text("# before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    github.check("GITHUB_STEP_SUMMARY")
    github.write(session(), "GITHUB_STEP_SUMMARY")
    assert file.read_text() == "# before\n"
    github.write(everything(), "GITHUB_STEP_SUMMARY")
    assert file.read_text().startswith("# before\n## Chaos tests: 1 passed")
    github.write(everything(), str(tmp_path / "own.md"))
    assert (tmp_path / "own.md").read_text().startswith("## Chaos tests")


def test_a_missing_variable_is_said(monkeypatch):
    """The option without a file needs GitHub's variable."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    with pytest.raises(
        BadArgument, match=r"needs a file, because \$GITHUB_STEP_SUMMARY is not set"
    ):
        github.check("GITHUB_STEP_SUMMARY")


def test_paths_begin_at_the_repository(tmp_path, monkeypatch):
    """The root directory of pytest may be a folder of the repository."""
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    (tmp_path / ".git").mkdir()
    (tmp_path / "ml" / "tests").mkdir(parents=True)
    (tmp_path / "ml" / "tests" / "test_job.py").touch()
    for folder, prefix in (("ml/tests", "ml/"), ("ml", "ml/"), (".", "")):
        assert Repository.of(everything(), tmp_path / folder).prefix == prefix
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "ml"))
    assert Repository.of(everything(), tmp_path / "ml" / "tests").prefix == ""
    assert Repository.of(session(), tmp_path / "ml" / "tests").prefix == ""
    assert Repository.of(everything(), tmp_path.parent) == Repository()


def test_code_outside_of_the_project_is_shown_at_the_test(tmp_path, monkeypatch):
    """The path of such a file is its name alone, and GitHub would show it nowhere."""
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("t.py", "src/inside.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for place, shown in (("outside.py:3 in f", "t.py,line=7"), ("src/inside.py:3 in f", None)):
        (line,) = github.lines(session(failing("t.py::test_it", error="X", place=place)))
        assert f"file={shown or 'src/inside.py,line=3'}," in line


def test_names_are_those_of_the_journal():
    """The rows are in the order of the journal."""
    text = github.summary(everything()).replace("&#95;", "_")
    names = [test.rpartition("::")[2].partition("[")[0] for test in (CRASHES, OWN, PASSED)]
    assert sorted(names, key=text.index) == names
