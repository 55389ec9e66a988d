"""Rebuild the changes of a work directory from recorded system calls."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from ..model import Change, File, Folder, Link, Tree
from .content_store import EMPTY, ContentStore, GrowingFile
from .descriptors import OpenFile, Processes
from .file_names import Names
from .history import History
from .inodes import Entry, Inode
from .outside_files import Shadow, Shadows
from .strace_parser import Call, parse_calls
from .strace_process import MARK

__all__ = ["SyscallRecorder"]

_FORKS = ("fork", "vfork", "clone", "clone3")


class SyscallRecorder:
    """Follows one directory after the run, by replaying strace's output.

    ``changes`` has the effect of each system call. The recorder is created before the run, and
    reads the directory then. Files elsewhere that the run writes are followed, too, because they
    may be moved into the directory.

    Fidelity: no system call shows a write through a memory mapping, so the content of such a file
    is unknown from then on. Also unknown are data that a call copies from a file elsewhere that
    changed in place, and data of ``io_uring``. ``differs`` has the files that are not as these
    calls left them. They form one last change.
    """

    def __init__(self, root: Path, contents: ContentStore) -> None:
        self._history = History(os.path.realpath(root), contents)
        self._contents = contents
        self._shadows = Shadows()
        self._names = Names(self._history, contents, self._shadows)
        self._umask = _umask()
        self._directory = os.getcwd()
        self._processes = Processes(self._directory, {}, self._closed)
        self.differs: tuple[str, ...] = ()
        history = self._history
        for path, node in self._listed():
            history.tree = {**history.tree, path: self._entry(path, node)}
        for inode in history.inodes():
            inode.synced = inode.last
        self.start: Tree = history.frozen(history.tree) or {}

    @property
    def changes(self) -> list[Change]:
        """Return the changes so far."""
        return self._history.changes

    @property
    def unseen(self) -> list[int]:
        """Return a number for each change after which the directory's content is unknown."""
        return self._history.unseen

    def tree(self) -> Tree | None:
        """Return the directory at the end."""
        return self._history.frozen(self._history.tree)

    def close(self) -> None:
        """Close the copies of files."""
        self._shadows.close()

    def run(self, written: Path) -> None:
        """Replay the calls in strace's output, and compare the result with the directory."""
        parents: dict[int, tuple[int, bool, bool]] = {}
        for call in parse_calls(written, forks=True):
            if call.name in _FORKS and call.result > 0:
                flags = b",".join(call.arguments)
                thread = call.name.startswith("clone")
                parents[call.result] = (
                    call.thread,
                    thread and b"CLONE_FILES" in flags,
                    thread and b"CLONE_FS" in flags,
                )
        self._processes = Processes(self._directory, parents, self._closed)
        for call in parse_calls(written):
            self._do(call)
        self._compare()

    def _listed(self) -> Iterator[tuple[str, Path]]:
        """Yield the relative and absolute path of each file, directory and link on disk."""
        root = Path(self._history.root)
        if root.is_dir():
            yield "", root
            for path in sorted(root.rglob("*")):
                if path.is_symlink() or path.is_file() or path.is_dir():
                    yield path.relative_to(root).as_posix(), path

    def _entry(self, path: str, at: Path) -> Entry:
        if at.is_symlink():
            return Inode(path, Link(os.readlink(at))), 0
        status = at.stat()
        if stat.S_ISDIR(status.st_mode):
            return Folder(stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        key = status.st_dev, status.st_ino
        known = next((inode for inode in self._history.inodes() if inode.key == key), None)
        if known is None:
            shadow = self._shadows.copied(at)
            known = shadow.inode
            known.key = key
            known.versions[-1] = shadow.file(self._contents)
        known.paths.add(path)
        return known, known.last

    # -- calls -------------------------------------------------------------------------------------

    def _do(self, call: Call) -> None:
        if call.name == "exit":
            self._processes.ended(call.thread)
            self._history.settled(None)
        elif call.name == "rmdir" and call.result < 0:
            path = call.text(0).decode(errors="surrogateescape")
            if path.startswith(MARK):
                self._history.step = int(path.removeprefix(MARK))
        elif call.result >= 0:
            first = len(self.changes)
            for argument in range(len(call.arguments)):
                if call.arguments[argument].startswith(b"AT_FDCWD<"):
                    self._processes.enter(call.thread, call.descriptor(argument).path)
            getattr(self, f"_{call.name}", _nothing)(call)
            self._history.settled(None)
            for index in range(first, len(self.changes)):
                if self.changes[index].kind == "grew" and not self.changes[index].writes:
                    self.changes[index] = dataclasses.replace(self.changes[index], writes=1)

    def _fork(self, call: Call) -> None:
        if call.result > 0:
            self._processes.born(call.result)

    _vfork = _clone = _clone3 = _fork

    def _execve(self, call: Call) -> None:
        self._processes.new_program(call.thread)

    _execveat = _execve

    def _chdir(self, call: Call) -> None:
        self._processes.enter(call.thread, self._names.folder(self._absolute(call, 0)))

    def _fchdir(self, call: Call) -> None:
        self._processes.enter(call.thread, call.descriptor(0).path)

    # -- descriptors -------------------------------------------------------------------------------

    def _open(self, call: Call, at: int = 0) -> None:
        """Handle ``open(path, flags, mode)``. The arguments begin with the number ``at``."""
        flags = at + 1
        writes = call.has(flags, "O_WRONLY") or call.has(flags, "O_RDWR")
        path, shadow = call.path, None
        if writes and path.startswith("/") and not path.startswith(("/dev/", "/proc/", "/sys/")):
            mode = _mode(call, at + 2) & ~self._umask
            shadow = self._opened(path, call, flags, mode)
        else:
            shadow = self._names.shadow_at(path)
        file = OpenFile(
            path,
            shadow,
            writes,
            call.has(flags, "O_APPEND"),
            call.has(flags, "O_SYNC") or call.has(flags, "O_DSYNC"),
        )
        self._processes.open(call.thread, call.result, file, lost=call.has(flags, "O_CLOEXEC"))

    def _openat(self, call: Call) -> None:
        self._open(call, 1)

    _openat2 = _openat

    def _creat(self, call: Call) -> None:
        made = Call(
            call.thread,
            call.time,
            "open",
            (call.arguments[0], b"O_WRONLY|O_CREAT|O_TRUNC", call.arguments[1]),
            call.result,
            call.path,
        )
        self._open(made)

    def _opened(self, path: str, call: Call, flags: int, mode: int) -> Shadow | None:
        """Return the copy of a file that is opened for writing, and note the change."""
        history, relative = self._history, self._names.relative(path)
        if call.has(flags, "O_TMPFILE"):
            return self._shadows.new(mode, call.time)
        if self._names.known(path) is None:
            shadow = self._shadows.new(mode, call.time)
            if relative is None:
                is_new = call.has(flags, "O_CREAT") and (
                    call.has(flags, "O_EXCL") or call.has(flags, "O_TRUNC")
                )
                shadow.known = is_new or call.has(flags, "O_TRUNC")
                self._names.enter(path, (shadow.inode, 0))
                return shadow
            before = history.tree
            shadow.inode.versions[-1] = shadow.file(self._contents)
            history.enter(relative, shadow.inode)
            history.note("created", relative, before, names=frozenset({relative}))
            return shadow
        found = self._names.shadow_at(path)
        if found is not None and call.has(flags, "O_TRUNC") and (found.size or not found.known):
            found.resize(0)
            self._changed(found, "truncated", call.time)
        return found

    def _close(self, call: Call) -> None:
        self._processes.close(call.thread, call.descriptor(0).number)

    def _close_range(self, call: Call) -> None:
        self._processes.close_range(call.thread, call)

    def _closed(self, file: OpenFile) -> None:
        """Note that a file is closed, when its last descriptor is."""
        if file.writes and file.shadow is not None and file.shadow.inode.paths:
            self._history.note("closed", min(file.shadow.inode.paths), self._history.tree)

    def _dup(self, call: Call) -> None:
        file = self._processes.file(call.thread, call.descriptor(0).number)
        if file is not None and call.result != call.descriptor(0).number:
            self._processes.open(
                call.thread,
                call.result,
                file,
                lost=len(call.arguments) > 2 and call.has(2, "O_CLOEXEC"),
            )
        elif file is None:
            self._processes.close(call.thread, call.result)

    _dup2 = _dup3 = _dup

    def _fcntl(self, call: Call) -> None:
        thread, number = call.thread, call.descriptor(0).number
        file = self._processes.file(thread, number)
        if call.has(1, "F_DUPFD_CLOEXEC") or call.has(1, "F_DUPFD"):
            if file is not None:
                self._processes.open(thread, call.result, file, lost=call.has(1, "F_DUPFD_CLOEXEC"))
        elif call.has(1, "F_SETFD"):
            self._processes.lose(thread, number, lost=call.has(2, "FD_CLOEXEC"))
        elif call.has(1, "F_SETFL") and file is not None:
            file.appends = call.has(2, "O_APPEND")

    def _file(self, call: Call, index: int = 0) -> OpenFile | None:
        """Return the open file of a descriptor.

        The offset of a descriptor from a different process is unknown, so a write makes the content
        unknown.
        """
        told = call.descriptor(index)
        file = self._processes.file(call.thread, told.number)
        if file is None and told.path.startswith("/"):
            shadow = self._names.shadow_at(told.path)
            if shadow is not None:
                file = OpenFile(told.path, shadow, writes=True)
                self._processes.open(call.thread, told.number, file, lost=False)
                if call.name not in ("pwrite64", "pwritev", "ftruncate", "fsync", "fdatasync"):
                    shadow.known = False
        return file

    def _lseek(self, call: Call) -> None:
        file = self._file(call)
        if file is not None:
            file.at = call.result

    def _read(self, call: Call) -> None:
        file = self._processes.file(call.thread, call.descriptor(0).number)
        if file is not None:
            file.at += call.result

    _readv = _read

    def _preadv2(self, call: Call) -> None:
        if call.number(3) in (-1, (1 << 64) - 1):
            self._read(call)

    # -- contents ----------------------------------------------------------------------------------

    def _write(self, call: Call, at: int | None = None) -> None:
        """Handle a write, at offset ``at`` or at the file's own offset."""
        file = self._file(call)
        if file is None or file.shadow is None:
            return
        data = call.texts(1)
        self._put(call, file, None if data is None else data[: call.result], at)

    _writev = _write

    def _pwrite64(self, call: Call) -> None:
        self._write(call, call.number(3))

    _pwritev = _pwrite64

    def _pwritev2(self, call: Call) -> None:
        at = call.number(3)
        self._write(call, None if at == -1 else at)

    def _put(self, call: Call, file: OpenFile, data: bytes | None, at: int | None) -> None:
        """Write these bytes. None stands for as many unknown bytes as the call returned."""
        shadow = file.shadow
        if shadow is None or not call.result:
            return
        offset = shadow.size if file.appends else file.at if at is None else at
        shadow.known = shadow.known and data is not None
        if data is not None and shadow.known:
            shadow.write(data, offset)
        if at is None:
            file.at = offset + call.result
        self._changed(shadow, "grew", call.time)
        if file.synced:
            self._synced(file)

    def _copy_file_range(self, call: Call) -> None:
        self._copied(
            call, self._file(call, 0), _offset(call, 1), self._file(call, 2), _offset(call, 3)
        )

    _splice = _copy_file_range

    def _sendfile(self, call: Call) -> None:
        self._copied(call, self._file(call, 1), _offset(call, 2), self._file(call, 0), None)

    def _copied(
        self,
        call: Call,
        source: OpenFile | None,
        start: int | None,
        target: OpenFile | None,
        at: int | None,
    ) -> None:
        """Copy as many bytes as the call returned.

        ``start`` and ``at`` are the offsets in source and target. None stands for a file's own
        offset.
        """
        data, offset = None, 0 if source is None else source.at if start is None else start
        if source is not None:
            if source.shadow is not None:
                data = source.shadow.read(offset, call.result) if source.shadow.known else None
            elif source.path.startswith("/") and self._names.relative(source.path) is None:
                data = _on_disk(source.path, offset, call.result)
            if start is None:
                source.at += call.result
        if target is not None:
            self._put(
                call, target, data if data is not None and len(data) == call.result else None, at
            )

    def _ioctl(self, call: Call) -> None:
        """Handle FICLONE and FICLONERANGE, which clone a file's content."""
        if call.number(1) & 0xFFFF in (0x9409, 0x940D):
            file = self._processes.file(call.thread, call.descriptor(0).number)
            if file is not None and file.shadow is not None:
                source = (
                    self._processes.file(call.thread, call.number(2))
                    if call.number(1) & 0xFFFF == 0x9409
                    else None
                )
                self._cloned(call, file.shadow, source)

    def _cloned(self, call: Call, shadow: Shadow, source: OpenFile | None) -> None:
        data = None
        if source is not None and source.shadow is not None and source.shadow.known:
            data = source.shadow.read(0, source.shadow.size)
        elif source is not None and source.shadow is None:
            with contextlib.suppress(OSError):
                data = Path(source.path).read_bytes()
        if data is None:
            shadow.known = False
        else:
            shadow.resize(0)
            shadow.write(data, 0)
        self._changed(shadow, "arrived", call.time)

    def _ftruncate(self, call: Call) -> None:
        file = self._file(call)
        if file is not None and file.shadow is not None:
            self._resized(call, file.shadow, call.number(1))

    def _truncate(self, call: Call) -> None:
        shadow = self._names.shadow_at(self._resolved(call, 0))
        if shadow is not None:
            self._resized(call, shadow, call.number(1))

    def _fallocate(self, call: Call) -> None:
        file = self._file(call)
        if file is None or file.shadow is None or call.has(1, "FALLOC_FL_KEEP_SIZE"):
            if (
                file is not None
                and file.shadow is not None
                and call.arguments[1] != b"FALLOC_FL_KEEP_SIZE"
            ):
                file.shadow.known = False
                self._changed(file.shadow, "grew", call.time)
            return
        if call.arguments[1] != b"0":
            file.shadow.known = False
        self._resized(call, file.shadow, max(file.shadow.size, call.number(2) + call.number(3)))

    def _resized(self, call: Call, shadow: Shadow, size: int) -> None:
        if size == shadow.size and shadow.known:
            return
        index = len(self.changes)
        shadow.resize(size)
        self._changed(shadow, "grew", call.time)
        self._history.settled(None)
        for number in range(index, len(self.changes)):
            # The length changed at once, so a cut is not a state.
            self.changes[number] = dataclasses.replace(self.changes[number], start=size)

    def _mmap(self, call: Call) -> None:
        """Handle a shared writable mapping. No call shows later writes through it."""
        if (
            call.has(3, "MAP_SHARED")
            and call.has(2, "PROT_WRITE")
            and not call.has(3, "MAP_ANONYMOUS")
        ):
            file = self._file(call, 4)
            if file is not None and file.shadow is not None:
                file.shadow.known = False
                self._changed(file.shadow, "grew", call.time)

    def _changed(self, shadow: Shadow, kind: str, time: int) -> None:
        """Give a file a new content."""
        shadow.time = time
        inode = shadow.inode
        if not inode.paths:
            return
        held, history = shadow.file(self._contents), self._history
        if held is not None:
            history.version(inode, min(inode.paths), "grew" if kind == "arrived" else kind, held)  # type: ignore[arg-type]
            return
        before = history.tree
        inode.versions.append(None)
        history.tree = {**before, **dict.fromkeys(inode.paths, (inode, inode.last))}
        history.unsynced |= inode.paths
        history.note("rewritten", min(inode.paths), before)

    def _fsync(self, call: Call) -> None:
        told = call.descriptor(0)
        file = self._processes.file(call.thread, told.number)
        if file is not None and file.shadow is not None:
            self._synced(file)
        elif (relative := self._names.relative(told.path)) is not None:
            self._history.written_back(relative)

    _fdatasync = _fsync

    def _synced(self, file: OpenFile) -> None:
        assert file.shadow is not None
        inode = file.shadow.inode
        self._history.settled(None)
        if inode.paths:
            self._history.written_back(min(inode.paths))
        inode.synced = inode.last

    def _sync(self, call: Call) -> None:
        self._history.settled(None)
        self._history.written_back(None)

    _syncfs = _sync

    # -- names -------------------------------------------------------------------------------------

    def _absolute(self, call: Call, index: int, at: int | None = None) -> str:
        """Return the absolute path of an argument. Relative ones start at argument ``at``."""
        base = self._processes.directory(call.thread)
        if at is not None and call.descriptor(at).path:
            base = call.descriptor(at).path
        path = os.fsdecode(call.text(index))
        return os.path.join(base, path) if path else base

    def _resolved(
        self, call: Call, index: int, at: int | None = None, *, follow: bool = True
    ) -> str:
        """Return the path of an argument without links, at its end only with ``follow``."""
        return self._names.resolve(self._absolute(call, index, at), follow=follow)

    def _rename(self, call: Call) -> None:
        self._names.move(
            self._resolved(call, 0, follow=False), self._resolved(call, 1, follow=False)
        )

    def _renameat(self, call: Call) -> None:
        self._names.move(
            self._resolved(call, 1, 0, follow=False), self._resolved(call, 3, 2, follow=False)
        )

    def _renameat2(self, call: Call) -> None:
        if call.has(4, "RENAME_EXCHANGE"):
            self._names.exchange(
                self._resolved(call, 1, 0, follow=False), self._resolved(call, 3, 2, follow=False)
            )
        else:
            self._renameat(call)

    def _link(self, call: Call) -> None:
        self._names.linked(
            self._resolved(call, 0, follow=False), self._resolved(call, 1, follow=False)
        )

    def _linkat(self, call: Call) -> None:
        source = self._absolute(call, 1, 0)
        number = source.removeprefix("/proc/self/fd/")
        held = (
            call.descriptor(0).number
            if call.has(4, "AT_EMPTY_PATH")
            else int(number)
            if number.isdecimal()
            else -1
        )
        file = self._processes.file(call.thread, held)
        if file is not None and file.shadow is not None:
            self._names.named((file.shadow.inode, 0), self._resolved(call, 3, 2, follow=False))
        else:
            self._names.linked(
                self._resolved(call, 1, 0, follow=call.has(4, "AT_SYMLINK_FOLLOW")),
                self._resolved(call, 3, 2, follow=False),
            )

    def _symlink(self, call: Call) -> None:
        self._names.made_link(call.text(0), self._resolved(call, 1, follow=False))

    def _symlinkat(self, call: Call) -> None:
        self._names.made_link(call.text(0), self._resolved(call, 2, 1, follow=False))

    def _unlink(self, call: Call) -> None:
        self._names.removed(self._resolved(call, 0, follow=False))

    _rmdir = _unlink

    def _unlinkat(self, call: Call) -> None:
        self._names.removed(self._resolved(call, 1, 0, follow=False))

    def _mkdir(self, call: Call, at: int | None = None) -> None:
        index = 0 if at is None else 1
        path, before = self._resolved(call, index, at, follow=False), self._history.tree
        self._names.enter(path, Folder(call.number(index + 1, 0o777) & ~self._umask, call.time))
        relative = self._names.relative(path)
        if relative is not None:
            self._history.note("folder", relative, before)

    def _mkdirat(self, call: Call) -> None:
        self._mkdir(call, 0)

    def _chmod(self, call: Call) -> None:
        self._set(self._resolved(call, 0), call.number(1), None)

    def _fchmodat(self, call: Call) -> None:
        self._set(self._resolved(call, 1, 0), call.number(2), None)

    def _fchmod(self, call: Call) -> None:
        self._set(call.descriptor(0).path, call.number(1), None)

    def _utimensat(self, call: Call) -> None:
        path = (
            call.descriptor(0).path if call.arguments[1] == b"NULL" else self._resolved(call, 1, 0)
        )
        self._set(path, None, _modification_time(call.arguments[2], call.time))

    def _set(self, path: str, mode: int | None, time: int | None) -> None:
        """Set a mode or a time. States do not differ by them, but have them restored."""
        shadow, entry = self._names.shadow_at(path), self._names.known(path)
        if isinstance(entry, Folder):
            held = dataclasses.replace(
                entry,
                mode=entry.mode if mode is None else mode,
                mtime=entry.mtime if time is None else time,
            )
            relative = self._names.relative(path)
            if relative is not None:
                self._history.tree = {**self._history.tree, relative: held}
        elif shadow is not None:
            shadow.mode = shadow.mode if mode is None else mode
            shadow.time = shadow.time if time is None else time
            file = shadow.inode.versions[-1]
            if isinstance(file, File):
                shadow.inode.versions[-1] = dataclasses.replace(
                    file, mode=shadow.mode, mtime=shadow.time
                )

    # -- the end -----------------------------------------------------------------------------------

    def _compare(self) -> None:
        """Compare the directory with the result of the calls. Take files that differ as they are."""
        history, before = self._history, self._history.tree
        made = {
            path: entry[0].versions[entry[1]] if isinstance(entry, tuple) else entry
            for path, entry in before.items()
        }
        there = {path: self._there(at, made.get(path)) for path, at in self._listed()}
        different = sorted(
            path
            for path in there.keys() | made.keys()
            if there.get(path) != made.get(path) or made.get(path) is None
        )
        self.differs = tuple(path or "." for path in different)
        if not different:
            return
        for path in different:
            self._names.take_out(history.at(path)) if path not in there or path in before else None
        for path in sorted(there):
            if path not in history.tree:
                node = there[path]
                self._names.enter(
                    history.at(path), node if isinstance(node, Folder) else (_named_inode(node), 0)
                )
        history.note("arrived", different[0], before)
        history.settled(None)

    def _there(self, at: Path, made: File | Link | Folder | None) -> File | Link | Folder | None:
        """Return the file at a path. ``made`` is the result of the calls."""
        if at.is_symlink():
            return Link(os.readlink(at))
        status = at.stat()
        if stat.S_ISDIR(status.st_mode):
            return Folder(stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(at.open("rb"))
            except PermissionError:
                return made
            growing = GrowingFile()
            # What it shares with that is not kept again.
            growing.content = made.content if isinstance(made, File) else EMPTY
            content = self._contents.put(file.fileno(), status.st_size, growing, whole=True)
        return File(content, stat.S_IMODE(status.st_mode), status.st_mtime_ns)


def _named_inode(node: File | Link | None) -> Inode:
    inode = Inode("", node)
    inode.paths.clear()
    return inode


def _umask() -> int:
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        return next(
            (int(line.split()[1], 8) for line in status if line.startswith("Umask:")), 0o022
        )
    return 0o022


def _nothing(call: Call) -> None: ...


def _mode(call: Call, index: int) -> int:
    """Return the mode of a new file. ``openat2`` has it in a structure with the flags."""
    held = re.search(rb"mode=0([0-7]*)", call.arguments[index - 1])
    if held is not None:
        return int(held[1] or b"0", 8)
    return call.number(index, 0o666) if index < len(call.arguments) else 0o666


def _offset(call: Call, index: int) -> int | None:
    return None if call.arguments[index] == b"NULL" else call.number(index)


def _on_disk(path: str, at: int, size: int) -> bytes | None:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(at)
        return file.read(size)
    return None


def _modification_time(told: bytes, now: int) -> int:
    """Return the second of two times (ns)."""
    found = re.findall(rb"tv_sec=(\d+), tv_nsec=(\d+)", told)
    return int(found[1][0]) * 1_000_000_000 + int(found[1][1]) if len(found) == 2 else now
