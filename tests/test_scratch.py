"""The directory of an exploration, and the processors that it uses."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from pytest_mlchaos.crashes.scratch import exploration_home, remove_abandoned
from pytest_mlchaos.processes import processors as module
from pytest_mlchaos.processes.processors import idle_processors, processors

KILLED = """
import os, pathlib, signal, sys
from pytest_mlchaos.crashes.scratch import exploration_home
with exploration_home(pathlib.Path(sys.argv[1])) as home:
    (home / "contents").write_bytes(b"x" * 100)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_directory_of_an_exploration_is_removed(tmp_path):
    """Also after an error, and with nothing beside it."""
    with contextlib.suppress(KeyboardInterrupt), exploration_home(tmp_path) as home:
        (home / "contents").touch()
        raise KeyboardInterrupt
    assert not [*tmp_path.iterdir()]


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_what_a_killed_session_has_left_is_removed(tmp_path):
    """By an exploration of a later session, in the directories of pytest. A running one keeps its
    own.
    """
    killed, running, new = (
        tmp_path / "pytest-of-me" / name for name in ("pytest-1", "pytest-2/popen-gw0", "pytest-3")
    )
    for folder in (killed, running, new):
        folder.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", KILLED, str(killed)], check=False)
    assert len([*killed.iterdir()]) == 2
    with exploration_home(running) as home:
        remove_abandoned(new)
        assert home.is_dir()
        assert not [*killed.iterdir()]


def test_other_directories_are_never_removed(tmp_path):
    """Only those with the lock of an exploration."""
    (tmp_path / "mlchaos-golden-of-the-user").mkdir()
    (tmp_path / "pytest-1").mkdir()
    (tmp_path / "pytest-1/mlchaos-golden-0.lock").touch()
    remove_abandoned(tmp_path)
    assert (tmp_path / "mlchaos-golden-of-the-user").is_dir()
    assert (tmp_path / "pytest-1/mlchaos-golden-0.lock").exists()  # not of pytest-of-…


@pytest.mark.parametrize(
    ("quota", "count"), [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("?", 8)]
)
def test_a_container_may_have_fewer_processors(monkeypatch, tmp_path, quota, count):
    """The limit of cgroups v2 is in a file. A strange file limits nothing."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(module, "CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    monkeypatch.delenv("MLCHAOS_PROCESSORS", raising=False)
    (tmp_path / "cpu.max").write_text(quota)
    assert processors() == count
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    assert processors() == max(1, count // 2)


@pytest.mark.parametrize(("load", "count"), [(0.2, 8), (1.0, 8), (4.1, 5), (30.0, 1)])
def test_processors_that_other_programs_use_are_left_to_them(monkeypatch, load, count):
    """The load of 1 is this process."""
    monkeypatch.setattr(module, "processors", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    monkeypatch.delenv("MLCHAOS_PROCESSORS", raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    assert idle_processors() == count
