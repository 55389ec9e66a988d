"""Small programs that write, and really get killed, everywhere: ``python -m tests.crash_kills NAME
ROOT OUT``.
"""

import json
import os
import pathlib
import pickle
import shutil
import signal
import sqlite3
import sys
import zipfile

from tests import ptracing
from tests.crashes import walked

__all__ = ["PROGRAMS", "prepare"]


def prepare(root):
    """Write the files that exist before the run."""
    (root / "last.ckpt").write_bytes(b"old" * 1000)
    (root / "step-0").mkdir()
    (root / "step-0/model").write_bytes(b"0" * 500)
    os.symlink("step-0", root / "latest")


def in_place(root):
    """A checkpoint that is overwritten, in several writes."""
    with open(root / "last.ckpt", "wb") as file:
        for number in range(5):
            file.write(bytes([number]) * 3000)


def without_truncation(root):
    """One that is rewritten from its start, longer than it was."""
    with open(root / "last.ckpt", "r+b", buffering=0) as file:
        for number in range(4):
            file.write(bytes([number]) * 1000)
        file.truncate(3500)


def atomic(root):
    """A temporary file that takes the place of the old one."""
    for number in range(3):
        with open(root / "last.tmp", "wb") as file:
            file.write(bytes([number]) * 20_000)
            file.flush()
            os.fsync(file.fileno())
        os.replace(root / "last.tmp", root / "last.ckpt")


def from_outside(root):
    """A file that was written elsewhere is moved in."""
    outside = root.parent / f"{root.name}.outside"
    outside.write_bytes(b"new" * 5000)
    os.replace(outside, root / "last.ckpt")


def rotation(root):
    """Directories of several files; the pointer is moved, the oldest goes."""
    for number in (1, 2):
        folder = root / f"step-{number}"
        folder.mkdir()
        (folder / "model").write_bytes(bytes([number]) * 9000)
        (folder / "optimizer").write_bytes(bytes([number]) * 500)
        (folder / "state.json").write_text(json.dumps({"step": number}))
        os.unlink(root / "latest")
        os.symlink(f"step-{number}", root / "latest")
        shutil.rmtree(root / f"step-{number - 1}")


def log(root):
    """Lines that are added."""
    for number in range(5):
        with open(root / "log.jsonl", "a") as file:
            file.write(json.dumps({"step": number, "loss": 1 / (number + 1)}) + "\n")


def appended(root):
    """Records, and a long line, that are added by single writes."""
    fd = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2, 3):
        os.write(fd, bytes([number]) * 11)
    os.write(fd, b"x" * 10_000)
    os.close(fd)


def pickled(root):
    """An object that one call of Python's pickle writes in several parts."""
    with open(root / "last.ckpt", "wb") as file:
        pickle.dump({"a": b"a" * 70_000, "b": b"b" * 80_000}, file)


def lines(root):
    """Lines that one call writes, each by a write of its own."""
    with open(root / "log.txt", "a", buffering=1) as file:
        file.writelines(f"line {number}\n" for number in range(5))


def archive(root):
    """A zip file, whose headers are mended afterwards."""
    with zipfile.ZipFile(root / "last.ckpt", "w") as file:
        for name in ("a", "b"):
            with file.open(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), "w") as member:
                member.write(name.encode() * 20_000)


def linked(root):
    """A file of two names, written under one."""
    os.link(root / "last.ckpt", root / "best.ckpt")
    with open(root / "best.ckpt", "r+b") as file:
        file.write(b"best")
    os.unlink(root / "last.ckpt")
    (root / "last.ckpt").write_bytes(b"last")


def unnamed(root):
    """A file that is removed while it is written."""
    with open(root / "lost", "wb", buffering=0) as file:
        file.write(b"1" * 100)
        os.unlink(root / "lost")
        file.write(b"2" * 100)
    (root / "found").write_bytes(b"3")


def database(root):
    """Two commits."""
    db = sqlite3.connect(root / "db")
    db.execute("create table t (x)")
    for number in range(2):
        db.execute("insert into t values (?)", (number,))
        db.commit()
    db.close()


def arrays(root):
    """NumPy's own, over an old one."""
    import numpy as np

    np.save(root / "a.npy", np.zeros(3000))
    np.save(root / "a.npy", np.ones(2000))


def torch_path(root):
    """Torch writes by itself, in C++."""
    import torch

    torch.save({"w": torch.arange(5000), "step": 3}, root / "last.ckpt")


def torch_small(root):
    """A small one, which it writes at once."""
    import torch

    torch.save({"w": torch.arange(50), "step": 3}, root / "last.ckpt")


def torch_file(root):
    """Torch writes to a file object."""
    import torch

    with open(root / "last.ckpt", "wb") as file:
        torch.save({"w": torch.arange(5000), "step": 3}, file)


def safetensors(root):
    """Safetensors writes by itself, in Rust, over an old one."""
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.arange(5000)}, root / "last.ckpt")


PROGRAMS = {
    function.__name__: function
    for function in (
        *(
            in_place,
            without_truncation,
            atomic,
            from_outside,
            rotation,
            log,
            appended,
            pickled,
            lines,
            archive,
        ),
        *(linked, unnamed, database, arrays, torch_path, torch_small, torch_file, safetensors),
    )
}


def _forked(program, root, arm):
    """Return what a killed child process left, or None if it ended by itself."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    prepare(root)
    pid = os.fork()
    if pid == 0:
        arm()
        program(root)
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    return walked(root) if killed else None


def _at_event(number):
    """Kill this process at that event: the call of a C function, its return, or a Python
    function's.
    """
    left = number

    def look(frame, event, arg):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.setprofile(look)


def _events(program, root, out):
    """The numbers of the events at which something on disk has changed, and of those before; the
    last one too.
    """
    number, found, before = 0, {1}, None

    def look(frame, event, arg):
        nonlocal number, before
        number += 1
        sys.setprofile(None)
        tree = walked(root)
        if tree != before:
            found.update((number, max(1, number - 1)))
        before = tree
        sys.setprofile(look)

    def arm():
        sys.setprofile(look)

    def counted(root):
        program(root)
        sys.setprofile(None)
        out.write_bytes(pickle.dumps(sorted(found)))

    _forked(counted, root, arm)
    return pickle.loads(out.read_bytes())


def _traced(program, root, look):
    """Run it so that ``look`` is called with the number of each system call that begins. Return the
    directory that it leaves.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    prepare(root)
    ptracing.run(lambda: program(root), look)
    return walked(root)


def _calls(program, root):
    """Return the numbers of the system calls that change the disk, and its content when each
    begins.

    A program may make a call more or less each time (for example, for memory), so a kill at a
    number may miss a state that the other run had.
    """
    found, trees, before = {1}, [], None

    def look(number):
        nonlocal before
        tree = walked(root)
        if tree != before:
            found.update((number, max(1, number - 1)))
            trees.append(tree)
        before = tree

    _traced(program, root, look)
    return sorted(found), trees


def _main(name, root, out):
    root, out, program = pathlib.Path(root), pathlib.Path(out), PROGRAMS[name]
    _forked(program, root, lambda: None)
    if name.startswith(("torch", "safetensors", "arrays")):
        shutil.rmtree(root)
        root.mkdir()
        prepare(root)
        program(root)  # what is imported and initialised on first use is so before the forks
    at_events = [
        _forked(program, root, _at_event(number)) for number in _events(program, root, out)
    ]
    calls, trees = ([], []) if ptracing.missing() else _calls(program, root)
    at_calls = [*(_traced(program, root, number.__eq__) for number in calls), *trees]
    out.write_bytes(pickle.dumps([[tree for tree in at_events if tree is not None], at_calls]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
