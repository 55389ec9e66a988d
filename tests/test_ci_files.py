"""The files for CI that users copy: ``action.yml`` and ``examples/ci/``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parent.parent
ACTION = ROOT / "action.yml"
WORKFLOWS = sorted((ROOT / "examples/ci").glob("*.yml"))
FILES = [ACTION, *WORKFLOWS]
PAGE = ROOT / "docs/howto/nightly.md"
EXPRESSION = re.compile(r"\$\{\{.*?\}\}")


def steps(file):
    """Return the steps of a workflow or action of GitHub."""
    content = yaml.safe_load(file.read_text())
    owners = [content["runs"]] if "runs" in content else content.get("jobs", {}).values()
    return [step for owner in owners for step in owner["steps"]]


def scripts(file):
    """Return the shell scripts of a file."""
    content = yaml.safe_load(file.read_text())
    if "runs" in content or "jobs" in content:
        return [step["run"] for step in steps(file) if "run" in step]
    return [line for job in content.values() for line in job["script"]]


def script_of(name):
    """Return the script of a step of the action."""
    return next(step["run"] for step in steps(ACTION) if step["name"] == name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_option_of_the_plugin_exists(file, pytestconfig):
    """A renamed option would break the jobs of users in the night."""
    known = {
        name
        for option in [*pytestconfig._parser._groups, pytestconfig._parser._anonymous]
        for one in option.options
        for name in one.names()
    }
    found = set(re.findall(r"--mlchaos-[a-z-]+|--junitxml", file.read_text()))
    assert found <= known
    assert found or file.name.startswith("github")


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_script_is_valid(file):
    """``bash -n`` reads it, and runs nothing."""
    found = scripts(file)
    assert found
    for script in found:
        text = EXPRESSION.sub("x", script)
        result = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert not result.returncode, f"{result.stderr}\n{text}"


def test_the_action_passes_its_inputs_as_variables():
    """An expression in a script would let a branch's name run commands."""
    for script in scripts(ACTION):
        assert not EXPRESSION.search(script)
    inputs = set(yaml.safe_load(ACTION.read_text())["inputs"])
    assert set(re.findall(r"inputs\.([\w-]+)", ACTION.read_text())) == inputs


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_give_the_action_inputs_that_it_has(file):
    """GitHub ignores an unknown input."""
    if file.name.startswith("github"):
        inputs = set(yaml.safe_load(ACTION.read_text())["inputs"])
        uses = [step for step in steps(file) if "pytest-mlchaos@" in step.get("uses", "")]
        assert uses
        assert all(set(step["with"]) <= inputs for step in uses)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_the_page_shows_the_files_as_they_are(file):
    """Give the file to those who copy from the page."""
    assert f"```yaml\n{file.read_text()}```" in PAGE.read_text()


@pytest.mark.skipif(not shutil.which("actionlint"), reason="needs actionlint")
def test_actionlint_accepts_the_workflows():
    """It knows the schema of workflows, and runs shellcheck if it is there."""
    files = [str(file) for file in WORKFLOWS if file.name.startswith("github")]
    result = subprocess.run(["actionlint", *files], capture_output=True, text=True)
    assert not result.returncode, result.stdout


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_script_of_the_action_runs_tests(tmp_path):
    """With quotes and spaces in its inputs, it writes the files that the next step uploads."""
    pytest.importorskip("jinja2")
    pytest.importorskip("vl_convert")
    (tmp_path / "my tests").mkdir()
    (tmp_path / "my tests/test_it.py").write_text(
        "from pytest_mlchaos import chaos\n"
        "import json, pytest\n"
        '@chaos.call_failure(target="json:dumps", error=OSError("no"), at=0)\n'
        "def test_it():\n"
        "    with pytest.raises(OSError):\n"
        "        json.dumps(1)\n"
        "def test_plain(): pass\n"
    )
    defaults = yaml.safe_load(ACTION.read_text())["inputs"]
    given = {
        "ARGUMENTS": "-k 'it or plain'",
        "TESTS": '"my tests/test_it.py"',
        "SHARD": "",
        **{
            name: defaults[name.lower().replace("_", "-")]["default"]
            for name in ("BUDGET", "OUTPUT", "REQUIRE_ALL", "SELECT")
        },
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script_of("Run the chaos tests")],
        cwd=tmp_path,
        env={**os.environ, **given, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert "1 passed, 1 deselected" in result.stdout, result.stdout + result.stderr
    written = {file.name for file in (tmp_path / "mlchaos").iterdir()}
    assert {"journal.jsonl", "report.html", "chaos.sarif", "junit.xml"} <= written
