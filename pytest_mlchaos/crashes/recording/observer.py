"""Find out what a run can have learned about the directory that it started from.

A run that never opened a file cannot depend on the file's content.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from typing import Any

from ...engine import inotify
from ...engine.inotify import Event
from ...engine.scopes import INTERNAL_OPERATION, inside
from ..model import Observed
from .audit_events import LISTINGS, STARTS
from .followed_files import REPLACED, FollowedFiles, Key
from .stat_log import UNKNOWN

try:
    import resource
except ImportError:  # not on every system, and inotify is not there either
    resource = None  # type: ignore[assignment]

__all__ = ["Observer", "reserve_far_block"]

_FAR_BYTES = 1 << 36
"""The offset of the reserved blocks, far behind the end of any checkpoint."""
_RESERVED_BYTES = 1 << 14
_SECTOR_BYTES = 512  # the unit of st_blocks
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_FORKS = frozenset({"os.fork", "os.forkpty"})


def reserve_far_block(fd: int) -> None:
    """Reserve some blocks of a file far behind its end, so that a truncation can be seen later.

    Truncating a file frees them, and writing to it does not. Nothing else shows the difference
    between a program that opens a file to write it anew and one that appends to it. Without support
    by the filesystem, nothing is reserved.
    """
    with contextlib.suppress(AttributeError):  # not on Linux
        _libc.fallocate(
            fd, _KEEP_SIZE, ctypes.c_longlong(_FAR_BYTES), ctypes.c_longlong(_RESERVED_BYTES)
        )


_libc = ctypes.CDLL(None, use_errno=True)


def _has_far_block(status: os.stat_result) -> bool:
    """Return True if the reserved blocks may still be there."""
    own = -(-status.st_size // status.st_blksize) * status.st_blksize // _SECTOR_BYTES
    return not own <= status.st_blocks < own + _RESERVED_BYTES // _SECTOR_BYTES


def _target(path: str) -> str:
    """Return the real path of a path in a real directory."""
    return os.path.realpath(path) if os.path.islink(path) else path


class _File:
    """A file that the run found."""

    def __init__(self, path: str, status: os.stat_result) -> None:
        self.path = path
        self.marked = _has_far_block(status)
        self.blocks = status.st_blocks
        self.opened = False
        """True if it was opened, and neither read nor written since."""
        self.writers = 0
        """How often it was opened and then written, before it is known if that truncated it."""
        self.looked = False
        """True if it was read or only opened while ``writers`` was not 0."""
        self.truncating = False
        """True if Python has said that it truncates the file by opening it."""
        self.readers = 0
        """How many opened it after the first writer, less those that closed it unwritten."""

    def was_truncated(self, status: os.stat_result) -> bool:
        """Return True if the file has been truncated since the run started."""
        return self.marked and (status.st_blocks < self.blocks or not _has_far_block(status))


class Observer:
    """Follows one run, by the events of inotify, audit events and noted ``stat`` calls.

    A file counts as read from the moment at which it is opened, except when that truncates it: then
    all that the run can read later is its own. Listings are not distinguished, because the names in
    a directory always belong to what a run may see. If C++ code or a program lists a directory, it
    may have asked for the size and time of each entry.

    Fidelity: C++ code and programs that this process did not start may ask for the size of a file
    by its path, unseen. So may a file that is cut to a length by C++ look truncated.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._owner = os.getpid()
        self._followed = FollowedFiles(self._on_replaced)
        self._files = self._followed.files
        self._rewritten: dict[Key, _File] = {}
        self._folders: dict[int, str] = {}
        self._watched: set[str] = set()
        self._real_folders: dict[str, str] = {}
        self._read: set[str] = set()
        self._asked: set[str] = set()
        self._asks_for_all = False
        self.hears_children = True
        self._lists = 0
        self._announced_lists = 0
        self._started = False
        self._children = _reaped()
        # Forked processes append to it.
        self._from_children = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115  # by close()

    # -- the directory at the start ----------------------------------------------------------------

    def add_folder(self, watch: int, folder: str) -> None:
        """Add a watched directory."""
        self._folders[watch] = folder
        self._watched.add(os.path.realpath(folder))

    def add_file(self, key: Key, path: str, status: os.stat_result) -> None:
        """Add a file of the directory, with its path relative to the root."""
        self._files[key] = _File(path, status)

    # -- what happens ------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Note an event of inotify."""
        if event.mask & inotify.ISDIR:
            # A watched directory tells of it, and so does the directory above it.
            self._lists += bool(event.mask & inotify.OPEN and not event.name)
            return
        key, mask = (event.watch, event.name), event.mask
        file = self._followed.follow(event)
        if mask & REPLACED:
            self._rewritten.pop(key, None)
        elif file is not None and file.truncating and mask & inotify.MODIFY:
            self._files.pop(key, None)
        elif file is not None:
            self._on_use(file, mask)
        elif key in self._rewritten:
            self._count_readers(self._rewritten[key], mask)

    def _count_readers(self, file: _File, mask: int) -> None:
        """Find readers that opened a file before it was truncated, and may have mapped it.

        The kernel reports two opens as one if the first is still in its queue.
        """
        if mask & inotify.OPEN:
            file.readers += 1
        elif mask & inotify.CLOSE_NOWRITE:
            file.readers -= 1
            if file.readers < 0:
                self._read.add(file.path)

    def _on_use(self, file: _File, mask: int) -> None:
        if file.writers:
            self._count_readers(file, mask)
        if mask & inotify.MODIFY:
            file.writers += file.opened
            if not file.opened and not file.writers:
                self._read.add(file.path)  # truncated by its path, or written through a mapping
            file.opened = False
        elif mask & inotify.OPEN:
            self._look(file, file.opened)
            file.opened = True
        elif mask & (inotify.ACCESS | inotify.CLOSE_NOWRITE | inotify.CLOSE_WRITE):
            self._look(file, file.opened or bool(mask & inotify.ACCESS))
            file.opened = False

    def _look(self, file: _File, looks: bool) -> None:
        """Note that a file was opened or read, and what that means if it was truncated before."""
        if looks and file.writers:
            file.looked = True
        elif looks:
            self._read.add(file.path)

    def _on_replaced(self, file: _File) -> None:
        if file.writers or file.opened:
            self._read.add(file.path)  # it is too late to find out if it was truncated

    def settle(self) -> None:
        """Find out if files that were opened and written were truncated by that.

        Call it when all events so far are known.
        """
        for key, file in tuple(self._files.items()):
            if not file.writers:
                continue
            try:
                status = os.lstat(os.path.join(self._folders[key[0]], key[1]))
            except OSError:  # its directory was renamed
                self._read.add(file.path)
                continue
            if file.was_truncated(status) and (file.writers == 1 or not file.looked):
                self._files.pop(key, None)
                self._rewritten[key] = file
            else:
                self._read.add(file.path)

    def on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note an audit event of this process, or of one that it has forked."""
        if event in STARTS:
            self._started = True
            if event not in _FORKS:
                self.on_stat(UNKNOWN)
        elif inside() == INTERNAL_OPERATION:
            return
        elif event in LISTINGS:
            self._on_listing(arguments[0])
        elif event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not isinstance(arguments[0], (str, bytes)):
                return
            path = self.relative(arguments[0])
            if path is None or flags & os.O_EXCL:
                return
            if os.path.isdir(os.path.join(self._root, path)):
                self._on_listing(arguments[0])
            elif not flags & (os.O_WRONLY | os.O_RDWR):
                return  # the kernel tells of it, and of what it opened
            elif not flags & os.O_TRUNC:
                self._note_read(path)
            elif os.path.isabs(arguments[0]):  # a relative one may be relative to a descriptor
                self._on_truncation(path)
        elif event in ("os.truncate", "os.link") and isinstance(arguments[0], (str, bytes)):
            path = self.relative(arguments[0])
            if path is not None:
                self._note_read(path)
        elif event == "os.truncate":
            self._note_read(self._path_of(arguments[0]))

    def _on_truncation(self, path: str) -> None:
        """Drop a file that Python is about to truncate by opening it, once that has happened.

        The open may fail, and then the file stays as it was.
        """
        if os.getpid() != self._owner:
            return  # the parent process has its own record
        for file in tuple(self._files.values()):
            if file.path == path:
                file.truncating = True
                if file.opened or file.writers:
                    self._read.add(path)  # if it is still open, it may be mapped

    def _note_read(self, path: str | None) -> None:
        """Note that a path was read, in whatever process."""
        if path is None:
            return
        if os.getpid() != self._owner:
            self._tell(f"read {path}")
        for file in tuple(self._files.values()):
            if file.path == path:
                self._read.add(path)

    def _on_listing(self, folder: object) -> None:
        # A directory that is listed by its descriptor was announced when it was opened.
        if folder is not None and not isinstance(folder, (str, bytes, os.PathLike)):
            return
        try:
            if os.path.realpath(os.fsdecode(folder or ".")) not in self._watched:
                return
        except OSError:  # the current directory was removed
            return
        if os.getpid() == self._owner:
            self._announced_lists += 1
        else:
            self._tell("list")

    def on_stat(self, path: str) -> None:
        """Note a ``stat`` in this process, or in one that it has forked."""
        found = (UNKNOWN,) if path == UNKNOWN else self._names_of(path)
        if os.getpid() != self._owner:
            for one in found:
                self._tell(f"stat {one}")
        elif path == UNKNOWN:
            self._asks_for_all = True
        else:
            self._asked.update(found)

    def _tell(self, line: str) -> None:
        """Write a line to the parent process."""
        if not self.hears_children:
            return
        with contextlib.suppress(OSError):
            os.write(self._from_children.fileno(), f"{line}\0".encode("utf-8", "surrogateescape"))

    def relative(self, path: str | bytes) -> str | None:
        """Return the real path relative to the root, or None if it is outside."""
        text = self._absolute(path)
        return None if text is None else self._below(_target(text))

    def _names_of(self, path: str) -> tuple[str, ...]:
        """Return the relative path, and the one to which it links. Those outside are left out."""
        text = self._absolute(path)
        if text is None:
            return ()
        below = {self._below(text), self._below(_target(text))}
        return tuple(one for one in below if one is not None)

    def _absolute(self, path: str | bytes) -> str | None:
        """Return a path in a real directory, or None if the current one was removed."""
        try:
            folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))
        except OSError:
            return None
        return os.path.join(self._real_folder(folder), name)

    def _below(self, text: str) -> str | None:
        if text == self._root:
            return ""
        inside = text.startswith(self._root + os.sep)
        return os.path.relpath(text, self._root).replace(os.sep, "/") if inside else None

    def _real_folder(self, folder: str) -> str:
        """Return the real path of a directory. Those outside the root are remembered."""
        if folder in self._real_folders:
            return self._real_folders[folder]
        real = os.path.realpath(folder)
        if not real.startswith(self._root):
            self._real_folders[folder] = real
        return real

    def _path_of(self, fd: object) -> str | None:
        try:
            return self.relative(os.readlink(f"/proc/self/fd/{fd}"))
        except (OSError, ValueError):
            return None

    # -- the result --------------------------------------------------------------------------------

    def finish(self) -> Observed:
        """Return what the run can have seen. All events are known."""
        self.settle()
        self._read_from_children()
        self._read.update(file.path for file in self._files.values() if file.opened)
        # They were moved out of the directories that are watched.
        self._read.update(file.path for file in self._followed.gone)
        # A process that no event announced, for example one that C++ code has started.
        self._asks_for_all |= not self._started and _reaped() != self._children
        self._asks_for_all |= self._lists > self._announced_lists
        return Observed(
            frozenset(self._read),
            None if self._asks_for_all else frozenset(self._asked),
            frozenset(file.path for file in self._files.values()),
        )

    @property
    def read(self) -> frozenset[str]:
        """Return the files that were opened so far."""
        return frozenset(self._read)

    @property
    def has_started_processes(self) -> bool:
        """Return True if this process has started another one."""
        return self._started

    def close(self) -> None:
        """Close the file of the forked processes."""
        self._from_children.close()

    def _read_from_children(self) -> None:
        self._from_children.seek(0)
        for line in self._from_children.read().decode("utf-8", "surrogateescape").split("\0"):
            what, _, path = line.partition(" ")
            if what == "list":
                self._announced_lists += 1
            elif what == "read":
                self._note_read(path)
            elif what == "stat" and path != UNKNOWN:
                self._asked.add(path)
            elif what == "stat":
                self._asks_for_all = True


def _reaped() -> int:
    """Return a number that changes when a child process has been waited for."""
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
