"""A project that many workers test, and the runs of it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
"""The plugins of this environment take longer to import than the tests take."""

TRAIN = """
import json
import os

from pytest_mlchaos import visit


def train(folder):
    path = folder / "checkpoint.json"
    state = json.loads(path.read_text()) if path.exists() else {"step": 0, "total": 0}
    for step in range(state["step"], 8):
        state = {"step": step + 1, "total": state["total"] + step}
        visit("train.step")
        if step % 2:
            WRITE
    return state["total"]


def test_sound(mlchaos, tmp_path):
    mlchaos.explore_crashes(train, tmp_path).assert_recovers()


def test_plain():
    CHECK
"""
SAFE = """temporary = folder / "new.json"
            temporary.write_text(json.dumps(state))
            os.replace(temporary, path)"""
UNSAFE = "path.write_text(json.dumps(state))"


@dataclasses.dataclass(frozen=True)
class Ended:
    """The end of a run: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def project(folder: Path, *, write: str = SAFE, check: str = "pass") -> Path:
    """Write the project, and return its directory."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '-p mlchaos'\n")
    (folder / "test_train.py").write_text(TRAIN.replace("WRITE", write).replace("CHECK", check))
    return folder


def command(*arguments: str) -> list[str]:
    """The command line of ``run``."""
    return [sys.executable, "-m", "pytest_mlchaos", "run", *arguments]


def run(folder: Path, *arguments: str, **variables: str) -> Ended:
    """Run it to its end."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def alone(folder: Path, report: Path) -> int:
    """Test the project on one machine. Write its report without times, and return the exit code."""
    journal = folder.parent / "alone.jsonl"
    arguments = ["-m", "pytest", "-q", f"--mlchaos-journal={journal}"]
    environment = {**os.environ, **ENVIRONMENT}
    ran = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=False)
    merge = ["-m", "pytest_mlchaos", "merge", str(journal), "-o", os.devnull]
    subprocess.run([sys.executable, *merge, f"--report={report}"], env=environment, check=False)
    return ran.returncode


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start it in a session of its own, so that its processes can be found."""
    return subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_with(text: str) -> list[int]:
    """The processes that have a text in their environment: those that a run has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_until(condition, seconds: float = 60.0) -> bool:
    """Wait for a condition, and return True if it came true."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
