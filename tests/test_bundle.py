"""``--mlchaos-bundle``: a folder for each failing test."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import textwrap

import pytest

from pytest_mlchaos.core.slugs import slug_of
from pytest_mlchaos.reports.bundle.repro import repro_text
from pytest_mlchaos.reports.journal_reader import read_journals

COUNTED = '''
    """A job that counts, and overwrites its file in place."""
    QUOTES = """it's a "quote" with \'\'\' and a backslash \\\\n"""

    def count(folder):
        file = folder / "count.txt"
        number = int(file.read_text()) if file.exists() else 0
        for number in range(number + 1, 4):
            file.write_text(f"{number}\\n")
        return number
'''
TESTS = """
    from jobs.counting import count
    from helpers import LIMIT

    def test_unsound(mlchaos, tmp_path, folder):
        mlchaos.explore_crashes(count, folder).assert_recovers()

    @chaos.call_failure(target="jobs.counting:count", at=1)
    def test_call(tmp_path):
        from jobs import counting
        for number in range(LIMIT): counting.count(tmp_path)

    @chaos.call_failure(target="jobs.counting:count", at=1)
    def test_sound(tmp_path):
        from jobs import counting
        counting.count(tmp_path)
        try: counting.count(tmp_path)
        except Exception: counting.count(tmp_path)
"""


@pytest.fixture
def project(example):
    """A project with a package below src, a helper, a conftest file and an ini file."""
    return (
        example.with_file("src/jobs/__init__.py", "")
        .with_file("src/jobs/counting.py", COUNTED)
        .with_file("src/jobs/unused.py", "raise SystemExit")
        .with_file("tests/helpers.py", "LIMIT = 3\n")
        .with_file(
            "tests/conftest.py",
            """
            import pytest
            @pytest.fixture
            def folder(tmp_path): return tmp_path / "work"
            """,
        )
        .with_file(
            "tests/test_it.py",
            "from pytest_mlchaos import chaos\n" + textwrap.dedent(TESTS),
        )
        .with_ini("pythonpath = src\naddopts = --strict-markers")
    )


@pytest.mark.slow
def test_each_failing_test_gets_a_folder(project):
    """With an issue, a script, the journal, the versions, and the crash state."""
    outcome = project.run("--mlchaos-bundle=bundle", fresh=True, failed=2, passed=1)
    bundle = project.pytester.path / "bundle"
    names = {path.name for path in bundle.iterdir()}
    assert names == {"tests.test_it.py.test_unsound", "tests.test_it.py.test_call"}
    folder = bundle / "tests.test_it.py.test_unsound"
    issue = (folder / "ISSUE.md").read_text()
    assert "# tests/test_it.py::test_unsound fails: NotRecovered" in issue
    assert "The first cause is at `src/jobs/counting.py:7 in count`." in issue
    line = next(line for line in outcome.text.splitlines() if "reproduce: @chaos.crash" in line)
    assert line.partition("reproduce: ")[2] in issue
    assert "pytest tests/test_it.py::test_unsound --mlchaos-replay" in issue
    assert "python" in (folder / "versions.txt").read_text()
    assert list(read_journals([folder / "journal.jsonl"]).tests) == [
        "tests/test_it.py::test_unsound"
    ]
    with tarfile.open(folder / "state.tar.gz") as archive:
        assert {one.name for one in archive} == {"state", "state/count.txt"}
    assert not (bundle / "tests.test_it.py.test_call" / "state.tar.gz").exists()


@pytest.mark.slow
def test_the_script_needs_no_other_file(project, tmp_path):
    """It repeats the failure anywhere, says so, and exits as pytest does."""
    project.run("--mlchaos-bundle=bundle", fresh=True, failed=2, passed=1)
    for name, error in (("test_unsound", "NotRecovered"), ("test_call", "RuntimeError")):
        script = (
            project.pytester.path / "bundle" / f"tests.test_it.py.{name}" / "repro.py"
        ).read_text()
        assert "unused" not in script
        alone = tmp_path / f"{name}.py"
        alone.write_text(script)
        ran = subprocess.run([sys.executable, alone], cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 1, ran.stdout
        assert f"\nrepeated: {error}" in ran.stdout
    mended = script.replace("for number in range(LIMIT): counting.count(tmp_path)", "pass")
    mended = mended.replace("at=1", "at=0")
    alone.write_text(mended)
    ran = subprocess.run([sys.executable, alone], cwd=tmp_path, capture_output=True, text=True)
    assert "not repeated, expected RuntimeError but found NeverStruck" in ran.stdout
    passing = script.replace('@chaos.call_failure(target="jobs.counting:count", at=1)', "")
    alone.write_text(passing.replace("REPLAY = ", "REPLAY = '' and "))
    ran = subprocess.run([sys.executable, alone], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert "not repeated, expected RuntimeError but found no error" in ran.stdout


@pytest.mark.slow
def test_folders_of_tests_that_pass_now_are_removed(project):
    """A bundle shows the last session."""
    project.run("--mlchaos-bundle=bundle", fresh=True, failed=2)
    folder = project.pytester.path / "bundle" / "tests.test_it.py.test_call"
    assert folder.is_dir()
    mended = project.with_file("tests/helpers.py", "LIMIT = 1\n")
    mended.run("--mlchaos-bundle=bundle", "--mlchaos-allow-quiet=true", fresh=True, failed=1)
    assert not folder.exists()


@pytest.mark.slow
def test_lost_work_is_repeated_too(project):
    """A state that recovers with too much work done again is the one to paste."""
    pytest.importorskip("torch")
    project = project.with_file(
        "tests/test_it.py",
        """
import torch

def train(folder):
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    start, file = 0, folder / "w.pt"
    if file.exists():
        with torch.no_grad(): weight.copy_(torch.load(file)["w"])
        start = torch.load(file)["step"]
    for step in range(start, 8):
        optimizer.zero_grad(); (weight - step).pow(2).sum().backward(); optimizer.step()
        if step % 4 == 3:
            torch.save({"w": weight.detach(), "step": step + 1}, folder / "w.tmp")
            (folder / "w.tmp").rename(file)
    return weight.detach()

def test_it(mlchaos, tmp_path):
    mlchaos.explore_crashes(train, tmp_path).assert_recovers(max_lost_steps=2)
""",
    )
    outcome = project.run("--mlchaos-bundle=bundle", fresh=True, failed=1)
    issue = (project.pytester.path / "bundle" / "tests.test_it.py.test_it" / "ISSUE.md").read_text()
    line = next(line for line in outcome.text.splitlines() if "reproduce: @chaos.crash" in line)
    assert line.partition("reproduce: ")[2] in issue


def test_a_bundle_must_be_a_directory(project):
    """One clear line at the start."""
    outcome = project.run("--mlchaos-bundle=pytest.ini")
    assert "--mlchaos-bundle must be a directory, got 'pytest.ini'" in outcome.text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.py::test[x/y]", "a.py::test[x:y]"),
        ("a.py::test[é]", "a.py::test[è]"),
        ("a.py::test[" + "x" * 200 + "1]", "a.py::test[" + "x" * 200 + "2]"),
    ],
)
def test_folders_have_different_plain_names(one, other):
    """Any node id, on any filesystem."""
    assert slug_of(one) != slug_of(other)
    for name in (slug_of(one), slug_of(other)):
        assert name.isascii()
        assert len(name) < 120
        assert not set(name) & set("/\\:[] ")


@pytest.mark.slow
def test_what_a_script_lacks_is_said(project, tmp_path):
    """Data files, and modules that cannot be read."""
    project.run("--mlchaos-journal=j.jsonl", fresh=True, failed=2)
    session = read_journals([project.pytester.path / "j.jsonl"])
    test = session.tests["tests/test_it.py::test_call"]
    _, left_out = repro_text(test, project.pytester.path)
    assert left_out == ["Data files that the test reads are not in it."]
    _, left_out = repro_text(test, tmp_path)
    assert "`tests/test_it.py` is not in it, because the file is missing" in left_out[0]
