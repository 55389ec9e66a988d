"""Compare what the recorder follows in a directory with its real content at every call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap

from pytest_mlchaos.crashes.model import File, Folder, Link
from pytest_mlchaos.crashes.recording.content_store import ContentStore
from pytest_mlchaos.crashes.recording.hooks import install_hooks
from pytest_mlchaos.crashes.recording.inotify_recorder import InotifyRecorder
from pytest_mlchaos.crashes.recording.polling_recorder import PollingRecorder
from pytest_mlchaos.crashes.recording.strace_process import await_strace, run_traced
from pytest_mlchaos.crashes.recording.syscall_recorder import SyscallRecorder
from pytest_mlchaos.crashes.states import CrashStates
from tests import ptracing

__all__ = ["BY", "Recorded", "plain", "really", "untraceable", "walked"]

BY = {"events": InotifyRecorder, "comparing": PollingRecorder}
"""The recorders: one for Linux, and one for other systems."""


def untraceable():
    """Return why system calls cannot be recorded here; nothing if they can."""
    return ptracing.missing() or ("" if shutil.which("strace") else "strace is not installed")


def walked(root):
    """A directory's content: bytes of files, ``->`` and the target of links, None for directories;
    by path.
    """
    found = {}
    if os.path.isdir(root):
        found[""] = None
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            if os.path.islink(path):
                found[relative] = f"-> {os.readlink(path)}"
            elif os.path.isdir(path):
                found[relative] = None
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[relative] = file.read()
    return found


def plain(tree, contents):
    """A recorded tree, written as ``walked`` writes it."""

    def node(one):
        if isinstance(one, File):
            return b"".join(contents.blocks(one.content))
        return f"-> {one.target}" if isinstance(one, Link) else None

    assert all(isinstance(one, File | Folder | Link) for one in tree.values())
    return {path: node(one) for path, one in tree.items()}


class Recorded:
    """A program that was recorded while it wrote to ``root``."""

    def __init__(self, program, root, store, *, prepare=None, by="events"):
        root.mkdir(parents=True, exist_ok=True)
        if prepare is not None:
            prepare(root)
        self.root = root
        self.contents = ContentStore(store)
        if by == "syscalls":
            self._trace(program, store)
            return
        recorder = BY[by](root, self.contents)
        try:
            with install_hooks(recorder):
                program(root)
            self.start, self.changes, self.end = (
                recorder.start,
                list(recorder.changes),
                recorder.tree(),
            )
            self.unseen = list(recorder.unseen)
        finally:
            recorder.close()

    def _trace(self, program, store):
        calls = store.with_name(f"{store.name}-calls")
        replay = SyscallRecorder(self.root, self.contents)
        self.ended = run_traced(_there, program, self.root, to=calls, timeout=60)
        replay.run(calls)
        self.start, self.changes, self.end = replay.start, list(replay.changes), replay.tree()
        self.unseen, self.differs = list(replay.unseen), replay.differs
        replay.close()

    def trees(self):
        """The distinct contents one after the other, as far as they are known."""
        found = [plain(self.start, self.contents)]
        for change in self.changes:
            if change.after is not None:
                tree = plain(change.after, self.contents)
                if tree != found[-1]:
                    found.append(tree)
        return found

    def states(self, *, torn=True, power=False):
        """The crash states, as (state, tree) pairs."""
        states = CrashStates(self.contents, torn=torn, power=power).states(
            self.start, self.changes, set(), steps=0
        )
        return [(state, plain(state.tree, self.contents)) for state in states]

    def checked(self):
        """It, once the last tree is known to be what lies there."""
        assert self.end is not None
        assert plain(self.end, self.contents) == walked(self.root)
        return self


def _there(program, root, ready):
    await_strace(ready)
    program(root)


def really(program, root, *, prepare=None):
    """The distinct contents that the directory really had, looked at before and behind each call of
    a C function.
    """
    root.mkdir(parents=True, exist_ok=True)
    if prepare is not None:
        prepare(root)
    found, busy = [walked(root)], False

    def look(frame, event, arg):
        nonlocal busy
        if not busy and event != "call":
            busy = True
            tree = walked(root)
            if tree != found[-1]:
                found.append(tree)
            busy = False

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        program(root)
    finally:
        sys.setprofile(before)
    tree = walked(root)
    return [*found, tree] if tree != found[-1] else found


def python(code, *args, **keywords):
    """A child process that runs this code; ``root`` is its first argument."""
    head = "import os, sys, shutil, time\nroot = sys.argv[1]\n"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code), *map(str, args)],
        check=False,
        **keywords,
    )
