"""One rank's own changes in a directory that several processes share."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading

import pytest

from pytest_mlchaos.crashes.ranks.rank_call import events_in_order
from pytest_mlchaos.crashes.ranks.rank_recorder import RankRecorder
from pytest_mlchaos.crashes.ranks.timelines import Look, Op, Waited
from pytest_mlchaos.crashes.recording import own_events
from pytest_mlchaos.crashes.recording.content_store import ContentStore
from pytest_mlchaos.crashes.recording.own_events import is_available

pytestmark = pytest.mark.skipif(
    not is_available("/tmp"), reason="the kernel does not tell ranks apart"
)


@pytest.fixture
def work(tmp_path):
    """A directory that exists when the recorder starts."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def recorder(tmp_path, work):
    """A recorder of this process's changes."""
    contents = ContentStore(tmp_path / "contents")
    found = RankRecorder(work, contents)
    yield found
    found.close()
    contents.close()


def others(command):
    """Let a different process change something."""
    subprocess.run(["sh", "-c", command], check=True)


def seen(recorder):
    """The changes of this process: what happened, and where."""
    recorder.drain()
    return [(one.kind, one.path) for one in recorder.changes if one.kind != "closed"]


def test_changes_of_other_processes_are_left_out(work, recorder):
    """Only their names are known."""
    others(f"echo a > {work}/a; mkdir {work}/d; echo b > {work}/d/b")
    (work / "mine").write_text("x")
    assert seen(recorder) == [("created", "mine"), ("grew", "mine")]
    assert recorder.is_complete


def test_a_thread_of_this_process_counts(work, recorder):
    """An asynchronous save runs in a thread."""
    thread = threading.Thread(target=(work / "mine").write_text, args=("x",))
    thread.start()
    thread.join()
    assert ("created", "mine") in seen(recorder)


def test_a_file_in_a_directory_of_a_different_process_counts(work, recorder):
    """A new directory of any process is watched."""
    others(f"mkdir -p {work}/d/e")
    recorder.drain()
    (work / "d" / "e" / "mine").write_text("x")
    assert ("created", "d/e/mine") in seen(recorder)


def test_files_of_a_different_process_can_be_removed_and_renamed(work, recorder):
    """One rank removes an old checkpoint of all ranks, and renames a new one."""
    others(f"mkdir {work}/old {work}/new; echo a > {work}/old/a; echo b > {work}/new/b")
    recorder.drain()
    shutil.rmtree(work / "old")
    os.rename(work / "new", work / "done")
    assert seen(recorder) == [("removed", "old/a"), ("removed", "old"), ("moved", "done")]
    others(f"echo c > {work}/done/c")
    (work / "done" / "mine").write_text("x")
    assert seen(recorder)[3:] == [("created", "done/mine"), ("grew", "done/mine")]


def test_own_files_follow_a_rename_by_a_different_process(work, recorder):
    """The rename is not this process's change."""
    (work / "new").mkdir()
    (work / "new" / "mine").write_text("x")
    before = seen(recorder)
    others(f"mv {work}/new {work}/done")
    assert seen(recorder) == before
    with open(work / "done" / "mine", "a") as file:
        file.write("y")
    assert seen(recorder)[len(before) :] == [("grew", "done/mine")]


def test_a_write_to_a_file_of_a_different_process_counts(work, recorder):
    """Two ranks may write one log."""
    others(f"echo a > {work}/log")
    recorder.drain()
    with open(work / "log", "a") as file:
        file.write("mine\n")
    recorder.drain()
    (change,) = [one for one in recorder.changes if one.kind == "arrived"]
    assert change.after["log"].content.size == len("a\nmine\n")


def test_each_change_has_the_times_between_which_it_happened(work, recorder):
    """The windows are in order, and one for each change."""
    for name in "abc":
        (work / name).write_text("x")
        recorder.drain()
    assert len(recorder.windows) == len(recorder.changes)
    assert all(first <= last for first, last in recorder.windows)
    assert recorder.windows == sorted(recorder.windows)


def test_a_listed_directory_takes_no_wait(work, recorder, monkeypatch):
    """The two queues name the directory differently, so its event must not be waited for."""
    (work / "d").mkdir()
    recorder.drain()
    waits = []
    monkeypatch.setattr(own_events, "sleep", waits.append)
    os.listdir(work / "d")
    recorder.drain()
    assert not waits


def test_looks_and_waits_keep_their_order(work, recorder):
    """A rank that looks at a file after a wait need not have seen it before."""
    first, second = Waited(1), Waited(2)
    recorder.look(str(work / "a"))
    recorder.waits = 1
    recorder.look(str(work / "b"))
    recorder.look(str(work / "b"))
    (work / "mine").write_text("x")
    recorder.drain()
    recorder.waits = 2
    recorder.look(str(work / "b"))
    found = list(events_in_order(recorder, [(0, [first]), (len(recorder.changes), [second])]))
    names = [one.path if isinstance(one, (Look, Op)) else one for one in found]
    places = [names.index("a"), names.index(first), names.index("b"), names.index("mine")]
    assert places == [0, 1, 2, 3]
    assert names[-2:] == [second, "b"]
