"""A directory that is followed by comparing it, as elsewhere than on Linux: what is told of was
there, and nothing is made up.
"""

import errno
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from pytest_mlchaos.crashes.recording import (
    audit_events,
    listing,
    polling_recorder,
    stat_poll,
)
from pytest_mlchaos.crashes.recording.content_store import ContentStore
from pytest_mlchaos.crashes.recording.location import LocalDirectory
from pytest_mlchaos.crashes.recording.polling_recorder import PollingRecorder
from pytest_mlchaos.crashes.runners import open_store
from pytest_mlchaos.engine import inotify
from pytest_mlchaos.errors import BadArgument
from tests.crashes import Recorded, plain, really, walked
from tests.test_explore_crashes import SUBJECTS


@pytest.fixture
def follow(tmp_path):
    """Return the recorded changes between two snapshots as (kind, path, start), and their contents.

    No snapshot is taken in between.
    """
    stores = []

    def follow(*actions, prepare=None):
        root = tmp_path / f"work{len(stores)}"
        root.mkdir()
        if prepare is not None:
            prepare(root)
        stores.append(ContentStore(tmp_path / f"store{len(stores)}"))
        recorder = PollingRecorder(root, stores[-1])
        really = [walked(root)]
        for action in actions:
            action(root)
            recorder.drain()
            really.append(walked(root))
        recorder.close()
        for change in recorder.changes:
            before, after = plain(change.before, stores[-1]), plain(change.after, stores[-1])
            # A file that was created was empty first.
            assert before in really or change.kind == "grew"
            assert after in really or change.kind == "created"
        assert plain(recorder.tree(), stores[-1]) == really[-1]
        return [(change.kind, change.path, change.start) for change in recorder.changes]

    yield follow
    for store in stores:
        store.close()


def write(name, data=b"data"):
    """Writes a file in place."""
    return lambda root: (root / name).write_bytes(data)


def append(name, data=b"more"):
    """Adds to a file."""

    def append(root):
        with open(root / name, "ab") as file:
            file.write(data)

    return append


def both(*actions):
    """Do both in a row, without a snapshot in between."""

    def both(root):
        for action in actions:
            action(root)

    return both


def rename(source, target):
    """Renames."""
    return lambda root: os.replace(root / source, root / target)


def remove(name):
    """Removes."""
    return lambda root: os.unlink(root / name)


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (write("new"), [("created", "new", 0), ("grew", "new", 0)]),
        (write("new", b""), [("created", "new", 0)]),
        (append("a"), [("grew", "a", 3)]),
        (write("a", b"other"), [("rewritten", "a", 0)]),
        (write("a", b""), [("truncated", "a", 0)]),
        (remove("a"), [("removed", "a", 0)]),
        (rename("a", "new"), [("moved", "new", 0)]),
        (rename("a", "b"), [("moved", "b", 0)]),
        (rename("d", "e"), [("moved", "e", 0)]),
        (lambda root: os.mkdir(root / "new"), [("folder", "new", 0)]),
        (lambda root: os.makedirs(root / "new/er"), [("arrived", "new", 0)]),
        (lambda root: os.symlink("a", root / "new"), [("link", "new", 0)]),
        (lambda root: os.link(root / "a", root / "new"), [("arrived", "new", 0)]),
        (lambda root: os.chmod(root / "a", 0o600), []),
        (both(write("tmp"), rename("tmp", "new")), [("arrived", "new", 0)]),
        (both(write("tmp"), rename("tmp", "a")), [("arrived", "a", 0)]),
        (both(write("x"), write("y")), [("arrived", "y", 0)]),
        (both(remove("a"), remove("b")), [("arrived", "", 0)]),
        (both(append("a"), append("b")), [("arrived", "b", 0)]),
        (both(append("a"), rename("a", "new")), [("arrived", "new", 0)]),
        (both(rename("a", "x"), rename("b", "y")), [("arrived", "y", 0)]),
        (both(write("journal"), append("a"), remove("journal")), [("grew", "a", 7)]),
        (append("a", bytes(5000)), [("grew", "a", 5003)]),
        (lambda root: os.truncate(root / "a", 9000), [("grew", "a", 9000)]),
        (write("new", bytes(600)), [("created", "new", 0), ("grew", "new", 600)]),
    ],
)
def test_one_change_is_told_and_of_several_that_they_happened(action, told, follow, monkeypatch):
    """A certain change is recorded as it is, and all others as one change.

    A file that grew has earlier lengths unless something contradicts that.
    """
    monkeypatch.setattr(polling_recorder, "has_fine_times", lambda folder: True)

    def prepare(root):
        (root / "a").write_bytes(b"one")
        (root / "b").write_bytes(b"two")
        (root / "d/in").mkdir(parents=True)
        (root / "d/in/c").write_bytes(b"three")

    assert [one for one in follow(action, prepare=prepare) if one[0] != "closed"] == told


def test_a_file_is_closed_once_nobody_has_it_open(follow):
    """In front of what happens next, or as soon as it was seen open and is so no more."""
    opened = []
    told = follow(
        lambda root: opened.append(open(root / "a", "wb", buffering=0)),
        lambda root: opened[0].write(b"one"),
        lambda root: opened[0].close(),
        write("b"),
        remove("a"),
    )
    assert told == [
        *(("created", "a", 0), ("grew", "a", 0), ("closed", "a", 0)),
        *(("created", "b", 0), ("grew", "b", 0), ("closed", "b", 0), ("removed", "a", 0)),
    ]


def test_a_database_that_another_opened_is_not_cut_without_its_journal(follow):
    """A call that writes a journal, the database, and removes the journal has changed the
    directory's names.
    """
    sizes = {0}

    def commit(root):
        with sqlite3.connect(root / "db") as db:
            db.execute("create table if not exists t (x)")
            db.execute("insert into t values (?)", (b"x" * 20_000,))
        db.close()
        sizes.add((root / "db").stat().st_size)

    told = follow(commit, commit, commit)
    assert [kind for kind, _, start in told if kind == "created" or start not in sizes] == []
    assert ("grew", "db", min(sizes - {0})) not in told  # from the length that it had


def test_where_times_tick_slowly_no_content_is_supposed(tmp_path, monkeypatch):
    """Two writes of one length within a tick: what comes behind them is told with what the file
    held then.
    """
    real = listing.status_of

    def ticking(path):
        status = real(path)
        return status and status._replace(
            mtime=status.mtime // 10**9 * 10**9, ctime=status.ctime // 10**9 * 10**9
        )

    def program(root):
        for number in range(4):
            with open(root / "tmp", "wb", buffering=0) as file:
                file.write(b"head 0")
                file.write(b"body" * 10)
                file.seek(0)
                file.write(b"head %d" % number)
            os.replace(root / "tmp", root / "last")

    def coarsely(paths):
        found = [
            path
            for path, stamp in paths
            if (status := ticking(path)) is None or (status.key[1], *status[2:]) != stamp
        ]
        return bool(found)

    monkeypatch.setattr(listing, "status_of", ticking)
    monkeypatch.setattr(stat_poll, "_differ", coarsely)
    monkeypatch.setattr(polling_recorder, "has_fine_times", lambda folder: False)
    one = Recorded(program, tmp_path / "work", tmp_path / "store", by="comparing").checked()
    monkeypatch.undo()
    there = really(program, tmp_path / "real")
    seen = one.trees()
    assert [tree for tree in seen if tree not in there] == []
    assert seen[-1] == {"": None, "last": b"head 3" + b"body" * 10}
    assert sum("last" in tree and "tmp" not in tree for tree in seen) == 4
    one.contents.close()


def test_a_directory_that_never_stands_still_has_no_content(tmp_path, monkeypatch):
    """A content that was read in parts is not recorded, but the content once it is stable is."""
    (tmp_path / "work").mkdir()
    store = ContentStore(tmp_path / "store")
    recorder = PollingRecorder(tmp_path / "work", store)
    (tmp_path / "work/a").write_text("a")
    numbers = iter(range(1000))
    real = polling_recorder.list_tree

    def restless(root):
        (tmp_path / "work/b").write_text(str(next(numbers)))
        return real(root)

    with monkeypatch.context() as patch:
        patch.setattr(polling_recorder, "list_tree", restless)
        recorder.drain()
    assert recorder.tree() is None
    assert recorder.changes == []
    assert recorder.pending()
    recorder.drain()
    assert [change.kind for change in recorder.changes] == ["arrived"]
    assert plain(recorder.tree(), store) == walked(tmp_path / "work")
    recorder.close()
    store.close()


def test_threads_that_write_at_the_same_time_make_no_false_state(tmp_path):
    """Each content that is told of is one in which every thread's file was as it was at some one
    moment.
    """

    def program(root):
        def count(name):
            for number in range(60):
                (root / name).write_text(f"{number:04}" * 500)
                with lock:
                    steps[name] = number
                    (root / "both").write_text(repr(sorted(steps.items())))

        lock, steps = threading.Lock(), {}
        threads = [threading.Thread(target=count, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    one = Recorded(program, tmp_path / "work", tmp_path / "store", by="comparing").checked()
    for tree in one.trees():
        steps = dict(eval(tree["both"])) if tree.get("both") else {}
        for name, number in steps.items():
            held = tree[name].decode()
            assert held in ("", f"{number:04}" * 500, f"{number + 1:04}" * 500), (
                name,
                number,
                held[:8],
            )
    one.contents.close()


def test_nobody_listens_any_more_behind_a_run(tmp_path):
    """Python keeps the audit hook after the run, but the hook does nothing."""
    one = Recorded(
        lambda root: (root / "a").write_text("a"),
        tmp_path / "work",
        tmp_path / "store",
        by="comparing",
    )
    one.contents.close()
    assert audit_events._listeners == []


def test_what_a_look_costs_does_not_grow_with_each_return(tmp_path, monkeypatch):
    """A program that computes and writes nothing is looked at as a whole now and then, however many
    functions return.
    """
    looks = []
    monkeypatch.setattr(
        PollingRecorder,
        "_look",
        lambda self, closely, look=PollingRecorder._look: looks.append(1) or look(self, closely),
    )

    def program(root):
        (root / "a").write_text("a")
        looks.clear()
        for number in range(20_000):
            len(str(number))

    one = Recorded(program, tmp_path / "work", tmp_path / "store", by="comparing")
    one.contents.close()
    assert len(looks) < 2000


def instances():
    """The open inotify instances of this process."""
    return [
        link.name
        for link in Path("/proc/self/fd").iterdir()
        if link.is_symlink() and "inotify" in os.path.realpath(link)
    ]


@pytest.mark.parametrize("refuses", ["__init__", "add"])
def test_a_system_that_refuses_more_watches_is_compared(tmp_path, monkeypatch, refuses):
    """The limits of instances and of watches are shared by all that a user runs, so no descriptor
    is left open for each recorder.
    """

    def refused(self, *args):
        raise inotify.NoInotify(errno.EMFILE if refuses == "__init__" else errno.ENOSPC, "refused")

    monkeypatch.setattr(inotify.Inotify, refuses, refused)
    monkeypatch.setattr(inotify, "available", lambda: True)
    found = []
    for number in range(3):
        with open_store(tmp_path / f"store-{number}") as contents:
            recorder = LocalDirectory(tmp_path).recorder(contents)
            assert isinstance(recorder, PollingRecorder)
            recorder.close()
        found.append(len(instances()))
    assert found[0] == found[-1]  # one may be kept for the next run


def test_a_system_that_is_not_posix_is_told_so(tmp_path, monkeypatch):
    """In one line."""
    monkeypatch.delattr(os, "pread")
    with pytest.raises(BadArgument, match="run it on Linux or macOS"):
        PollingRecorder(tmp_path, None)


def test_everything_can_be_imported_without_what_only_posix_has():
    """The plugin must load on any system. A feature that a system lacks fails when it is used."""
    code = """
        import importlib, pathlib, sys
        for name in ("fcntl", "termios", "resource", "pwd", "grp"):
            sys.modules[name] = None
        import pytest_mlchaos
        root = pathlib.Path(pytest_mlchaos.__file__).parent
        for path in sorted((root / "crashes" / "recording").glob("*.py")):
            importlib.import_module(f"pytest_mlchaos.crashes.recording.{path.stem}")
        import pytest_mlchaos.plugin, pytest_mlchaos.crashes.explore
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


# -- as a user meets it ----------------------------------------------------------------------------


@pytest.fixture
def project(example):
    """A project on a system that tells of no changes."""
    elsewhere = """
@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    monkeypatch.setattr("pytest_mlchaos.engine.inotify.available", lambda: False)

def explored(mlchaos, subject, workdir, **options):
    report = mlchaos.explore_crashes(subject, workdir, isolation="in-process", **options)
    assert "states were found by comparing the directory" in str(report)
    return report
"""
    return lambda tests: example.with_tests(SUBJECTS + elsewhere + textwrap.dedent(tests))


@pytest.mark.slow
def test_verdicts_are_those_of_linux(project):
    """An atomic writer recovers, one in place does not, and the first state of its failure has the
    same name.
    """
    project("""
        def test_atomic(mlchaos, tmp_path):
            report = explored(mlchaos, train, tmp_path)
            report.assert_recovers()
            assert len(report.states) > 10 and any(state.torn for state in report.states)

        def test_in_place(mlchaos, tmp_path):
            report = explored(mlchaos, in_place, tmp_path)
            assert report.failures[0].state.id == "last.pkl@0#0" and len(report.failures) > 3

        def test_the_states_are_the_same(mlchaos, tmp_path, monkeypatch):
            import sys
            found = []
            for folder, subject in (("a", train), ("b", in_place)):
                (tmp_path / folder).mkdir()
                found.append([state.id for state in explored(mlchaos, subject, tmp_path / folder).states])
            if sys.platform == "linux":
                monkeypatch.setattr("pytest_mlchaos.engine.inotify.available", lambda: True)
                for (folder, subject), ids in zip((("c", train), ("d", in_place)), found):
                    (tmp_path / folder).mkdir()
                    assert [s.id for s in mlchaos.explore_crashes(subject, tmp_path / folder, isolation="in-process").states] == ids
    """).run(passed=3)


@pytest.mark.slow
def test_rotation_and_directories(project):
    """A job that removes the old checkpoint before the new one is complete is found; one that keeps
    it until then recovers.
    """
    project("""
        import shutil

        def rotates(workdir, steps=4, removes_first=False):
            folder = pathlib.Path(workdir)
            kept = sorted(folder.glob("step-?"))
            state = json.loads((kept[-1] / "state.json").read_text()) if kept else {"step": 0}
            began = state["step"]
            while state["step"] < steps:
                state = {"step": state["step"] + 1}
                old, new = sorted(folder.glob("step-?")), folder / f"step-{state['step']}"
                if removes_first:
                    for one in old:
                        shutil.rmtree(one)
                shutil.rmtree(folder / "tmp", ignore_errors=True)
                (folder / "tmp").mkdir()
                (folder / "tmp/weights.bin").write_bytes(bytes([state["step"]]) * 3000)
                (folder / "tmp/state.json").write_text(json.dumps(state))
                os.rename(folder / "tmp", new)
                shutil.rmtree(folder / "dead", ignore_errors=True)
                for one in [] if removes_first else old:
                    os.rename(one, folder / "dead")
                    shutil.rmtree(folder / "dead")
            return state

        def test_sound(mlchaos, tmp_path):
            explored(mlchaos, rotates, tmp_path).assert_recovers()

        def test_unsound(mlchaos, tmp_path):
            def first(workdir):
                return rotates(workdir, removes_first=True)

            report = explored(mlchaos, first, tmp_path)
            assert "restarted" in {outcome.verdict for outcome in report.failures}
    """).run(passed=2)


@pytest.mark.parametrize("how", ["torch.save", "numpy"])
def test_libraries_that_write_in_place_are_found(project, how):
    """A library that writes a checkpoint in place is recorded."""
    pytest.importorskip({"torch.save": "torch"}.get(how, how))
    project(f"""
        how = {how!r}

        def saves(workdir, steps=3):
            file = pathlib.Path(workdir) / "last"
            step = 0
            if file.exists():
                step = int(load(file)[0])
            while step < steps:
                step += 1
                save_it([step] * 500, file)
            return step

        def save_it(values, file):
            if how == "numpy":
                import numpy
                with open(file, "wb") as out:
                    numpy.save(out, numpy.array(values))
            else:
                import torch
                torch.save(torch.tensor(values), file)

        def load(file):
            if how == "numpy":
                import numpy
                return numpy.load(file)
            import torch
            return torch.load(file)

        def test_it(mlchaos, tmp_path):
            report = explored(mlchaos, saves, tmp_path)
            assert {{outcome.verdict for outcome in report.failures}} == {{"failed"}}
    """).run(passed=1)
