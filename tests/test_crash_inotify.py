"""Test that a queue of inotify events can be reused, and that none of its past shows."""

import os

import pytest

from pytest_mlchaos.engine import inotify
from pytest_mlchaos.engine.inotify import Inotify

pytestmark = pytest.mark.skipif(not inotify.available(), reason="needs inotify")


@pytest.fixture(autouse=True)
def spare(monkeypatch):
    """The instances that are kept for reuse. At first there are none."""
    found = []
    monkeypatch.setattr(inotify, "_spare", found)
    yield found
    for _, fd in found:
        os.close(fd)


def test_closed_queue_is_reused_without_its_events_and_watches(tmp_path):
    """Neither an unread event nor a later change in an old directory arrives."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    first = Inotify()
    first.add(str(tmp_path / "old"))
    (tmp_path / "old/unread").touch()
    fd = first.fd
    first.close()

    second = Inotify()
    watch = second.add(str(tmp_path / "new"))
    (tmp_path / "old/later").touch()
    (tmp_path / "new/seen").touch()
    events = list(second.read())
    second.close()
    assert second.fd == -1
    assert {event.name for event in events} == {"seen"}
    assert {event.watch for event in events} == {watch}
    assert fd in [kept for _, kept in inotify._spare]


def test_closed_queue_reports_nothing_of_its_successor(tmp_path):
    """A thread that outlived its run still asks the old queue."""
    first = Inotify()
    first.close()
    second = Inotify()
    second.add(str(tmp_path))
    (tmp_path / "file").touch()
    assert second.pending()
    assert not first.pending()
    assert list(first.read()) == []
    second.close()


def test_open_queues_never_share_an_instance(tmp_path):
    """A recorder and a read log follow one directory at the same time."""
    Inotify().close()
    one, other = Inotify(), Inotify()
    one.add(str(tmp_path))
    (tmp_path / "file").touch()
    assert one.fd != other.fd
    assert one.pending()
    assert not other.pending()
    one.close()
    other.close()


@pytest.mark.parametrize("forked", [0, 1])
def test_forked_process_takes_no_instance_of_its_parent(tmp_path, forked):
    """It would take the parent's events away. Nor does its close end the parent's watches."""
    Inotify().close()
    parent = Inotify()
    if forked:
        parent.close()
    else:
        parent.add(str(tmp_path))
    pid = os.fork()
    if pid == 0:
        try:
            if forked:
                ours = [fd for _, fd in inotify._spare]
                os._exit(Inotify().fd in ours)
            parent.close()
            os._exit(0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    if not forked:
        (tmp_path / "file").touch()
        assert "file" in {event.name for event in parent.read()}
        parent.close()


def test_instance_that_the_subject_closed_is_not_reused(tmp_path):
    """Some programs close all descriptors. The number may then belong to a file."""
    Inotify().close()
    (_, fd) = inotify._spare[0]
    with open(tmp_path / "file", "w") as file:
        os.dup2(file.fileno(), fd)
        again = Inotify()
        assert again.fd != fd
        again.close()
    os.close(fd)
