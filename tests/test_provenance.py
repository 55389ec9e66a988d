"""The journal says what each test ran with: commit, configuration, settings, limits of faults."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess

import pytest

from .example import entries_in

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
TESTS = """
    import json
    import pytest

    @chaos.register
    class Plain(Fault):
        site = "own.site"

        def apply(self, visit):
            visit.note(struck=True)

    @pytest.mark.robustness
    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    @chaos.settings(seed=3)
    def test_one():
        with pytest.raises(ConnectionError):
            json.dumps(1)

    @chaos.plain(at=0)
    def test_own():
        visit("own.site")

    @chaos.crash(at=0)
    @pytest.mark.skip
    def test_skipped(): pass
"""


def git(folder, *arguments):
    """Run git in a folder, as somebody, and return what it prints."""
    name = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", *name, *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def project(example, pytester):
    """A project in a repository, with a lock file. Its tests are committed by ``committed``."""
    return (
        example.with_tests(TESTS)
        .with_file("uv.lock", "version = 1\n")
        .with_ini("markers = robustness")
    )


def committed(project):
    """Run the project once, so that its files exist, and commit them."""
    project.run("--co", "-q")
    folder = project.pytester.path
    git(folder, "init", "-q")
    git(folder, "add", "test_it.py", "uv.lock", "pytest.ini")
    git(folder, "commit", "-q", "-m", "all")
    return folder


def provenances(path):
    """Return the entries by the names of their tests."""
    found = entries_in(path, "provenance")
    return {entry["test"].rpartition("::")[2]: entry for entry in found}


def test_the_journal_names_commit_files_settings_and_limits(project):
    """It does so for each test, also for one that was skipped."""
    folder = committed(project)
    project.run("--mlchaos-journal=j.jsonl", passed=2, skipped=1)
    found = provenances(folder / "j.jsonl")
    one = found["test_one"]
    assert one["commit"] == git(folder, "rev-parse", "HEAD")
    assert one["tree"] == git(folder, "rev-parse", "HEAD^{tree}")
    assert "changed" not in one  # the journal itself is neither tracked nor code
    lock = hashlib.sha256((folder / "uv.lock").read_bytes()).hexdigest()
    assert one["files"]["uv.lock"] == lock
    assert "pytest.ini" in one["files"]
    assert one["settings"] == "seed=3"
    assert one["marks"] == ["robustness"]
    assert "Copies of the function" in one["fidelity"]["call_failure"]
    assert found["test_own"]["fidelity"] == {"plain": ""}
    assert found["test_skipped"]["commit"] == one["commit"]


@pytest.mark.slow
def test_changed_and_new_code_is_counted(project):
    """The commit alone does not say what ran then."""
    folder = committed(project)
    changed = project.with_file("uv.lock", "version = 2\n").with_file("new.py", "")
    changed.run("--mlchaos-journal=j.jsonl", passed=2)
    assert provenances(folder / "j.jsonl")["test_one"]["changed"] == 2


@pytest.mark.slow
def test_a_project_without_git_has_no_commit(project):
    """The configuration is known all the same."""
    project.run("--mlchaos-journal=j.jsonl", "--mlchaos-off", passed=1, failed=1)
    one = provenances(project.pytester.path / "j.jsonl")["test_own"]
    assert "commit" not in one
    assert one["settings"] == "off"
    assert "fidelity" not in one


@pytest.mark.slow
def test_a_project_that_a_repository_ignores_has_no_commit(project):
    """The commit around it says nothing about its code."""
    folder = committed(project)
    (folder / "inner").mkdir()
    (folder / ".gitignore").write_text("inner\n")
    (folder / "inner" / "pytest.ini").write_text((folder / "pytest.ini").read_text())
    shutil.copy(folder / "test_it.py", folder / "inner")
    options = ("--rootdir=inner", "-c", "inner/pytest.ini", "inner", "--mlchaos-seed=5")
    replay = ("-k", "own", "--mlchaos-replay", "plain(at=0)")
    project.run("--mlchaos-journal=j.jsonl", *options, *replay, passed=1)
    one = provenances(folder / "j.jsonl")["test_own"]
    assert "commit" not in one
    assert one["settings"] == "seed=5, replay=plain(at=0)"


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("xdist"), reason="needs xdist")
def test_workers_of_xdist_find_the_same(project):
    """The journal has the same bytes."""
    folder = committed(project)
    project.run("--mlchaos-journal=a.jsonl", passed=2, skipped=1)
    project.run("--mlchaos-journal=b.jsonl", "-n", "2", passed=2, skipped=1)
    assert (folder / "a.jsonl").read_bytes() == (folder / "b.jsonl").read_bytes()
