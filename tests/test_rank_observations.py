"""One rank's own uses of a directory that several processes share."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from pytest_mlchaos.crashes.recording import own_events
from pytest_mlchaos.crashes.recording.own_events import OwnEvents, is_available
from pytest_mlchaos.crashes.recording.read_log import InotifyReadLog

pytestmark = pytest.mark.skipif(
    not is_available("/tmp"), reason="the kernel does not tell ranks apart"
)


@pytest.fixture
def work(tmp_path):
    """A directory with two files."""
    (tmp_path / "work").mkdir()
    for name in "ab":
        (tmp_path / "work" / name).write_text(name * 10_000)
    return tmp_path / "work"


@pytest.fixture
def other(work):
    """Let a shell that runs already execute a command in the directory."""
    with subprocess.Popen(
        ["sh"], cwd=work, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as shell:

        def execute(command):
            shell.stdin.write(f"({command}) > /dev/null; echo done\n")
            shell.stdin.flush()
            assert shell.stdout.readline() == "done\n"

        yield execute
        shell.stdin.close()


def list_unseen(path):
    """List a directory by C code."""
    libc = ctypes.CDLL(None)
    libc.opendir.restype, libc.readdir.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    folder = libc.opendir(os.fsencode(path))
    libc.readdir(folder)
    libc.closedir(ctypes.c_void_p(folder))


def test_a_read_by_a_different_rank_is_not_this_one_s(work, other):
    """Both together have read both files."""
    with InotifyReadLog.of(work, shared=True) as reads:
        other("cat a")
        (work / "b").read_text()
    assert reads.observed_alone.read == {"b"}
    assert reads.observed.read == {"a", "b"}


def test_a_read_in_this_process_counts_between_those_of_others(work, other):
    """Events that are read together count as this process's own."""
    with InotifyReadLog.of(work, shared=True) as reads:
        other("cat a")
        (work / "a").read_text()
        other("cat a")
    assert reads.observed_alone.read == {"a"}


def test_a_file_that_a_different_rank_rewrites_was_not_read(work, other):
    """It knows that itself. This rank takes the file for kept."""
    with InotifyReadLog.of(work, shared=True) as reads:
        other("echo new > a; mv b c")
    assert reads.observed_alone.read == frozenset()
    assert "a" in reads.observed_alone.kept


def test_a_listing_by_a_different_rank_is_not_this_one_s(work, other):
    """A listing by C code may ask for all sizes."""
    with InotifyReadLog.of(work, shared=True) as reads:
        other("ls -l")
        os.listdir(work)
        (work / "a").stat()
    assert reads.observed_alone.asked == {"a"}
    assert reads.observed.asked is None


def test_an_unseen_listing_by_this_rank_counts(work, other):
    """It may have asked for all sizes."""
    with InotifyReadLog.of(work, shared=True) as reads:
        other("ls")
        list_unseen(work)
    assert reads.observed_alone.asked is None


def test_nothing_is_known_alone_of_a_rank_that_starts_a_process(work, other):
    """The process is not told from other ranks."""
    with InotifyReadLog.of(work, shared=True) as reads:
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert reads.observed_alone is None


def test_nothing_is_known_alone_if_the_owner_of_an_event_is_not(work, other, monkeypatch):
    """It may have been this rank."""
    monkeypatch.setattr(OwnEvents, "_drain", lambda queue: None)
    monkeypatch.setattr(own_events, "_MAX_WAIT_SECONDS", 0.0)
    with InotifyReadLog.of(work, shared=True) as reads:
        (work / "a").read_text()
    assert reads.observed_alone is None
    assert reads.observed.read == {"a"}
