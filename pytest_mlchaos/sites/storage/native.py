"""Watch the files that any code writes, also C++ and Rust code that Python does not see.

The events of inotify show which files were written. A fault may limit their size by the kernel.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ...core.sites import Key, site
from ...core.storage import Operation
from ...engine import inotify
from ...engine.controller import Controller
from ...engine.file_limit import FILE_LIMIT
from ...engine.inotify import Event, Inotify
from ...engine.patching import Patches
from ...engine.scopes import INTERNAL_OPERATION, within
from ...engine.stand_ins import Proxy
from ...engine.user_code import is_users
from .base import Storage, WatchedFile, storage_of

__all__: list[str] = []

SITE = "storage.native_write"
MAX_FOLDERS = 2000
"""The highest number of folders that are watched."""
_watches: list[NativeWrites] = []


@site(
    SITE,
    "A file, about to be written by any code, also by C++ code that Python does not see. "
    "Payload: a core.storage.Operation.",
)
def arm(controller: Controller, patches: Patches, key: Key) -> None:
    """Count the files that are written in the test's own directories."""
    if not inotify.available() or (controller.forks is not None and controller.forks.name):
        return  # in a child process, whose writes the parent process sees
    writes = _watches[-1] if _watches else None
    if writes is None or writes.controller is not controller:
        try:
            writes = NativeWrites(controller, storage_of(controller, patches))
        except inotify.NoInotify:
            return
        _watches.append(writes)
        patches.on_undo(writes.close)
        _audit()
    writes.keys.append(key)


class NativeWrites:
    """The files that were written in a trial. Each that is opened, written and closed is a visit.

    The visit of the next file is made as soon as the files before it are closed, because its fault
    must be active when the file is written. In the trial without faults, it is made when the file
    was written.
    """

    def __init__(self, controller: Controller, storage: Storage) -> None:
        self.controller = controller
        self.keys: list[Key] = []
        self._storage = storage
        storage.counts_all = True
        self._queue = Inotify()
        self._folders: dict[int, str] = {}
        self._open: dict[str, None] = {}
        """The files that were written and are not closed."""
        self._latest = ""
        """The file that was opened or written last."""
        self._begun = 0
        """The number of files whose first write was seen."""
        self._visits = 0
        self._profiling = False
        self._draining = False
        self._closed = False
        self._process_id = os.getpid()
        self._follow_all()
        controller.on_change.append(self._changed)
        self._running = controller.is_running
        # True while the test's body runs, outside of any subject. Events arrive later.
        self._in_set_up = controller.in_set_up

    def close(self) -> None:
        """Stop watching. A second call does nothing."""
        self._stop_profiling()
        if self in _watches:
            _watches.remove(self)
        if not self._closed:
            self._closed = True
            self._queue.close()

    # -- events ------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Process the events so far, because the subject starts or stops running."""
        if self._closed or os.getpid() != self._process_id:
            return
        self.drain()
        before, self._running = self._running, self.controller.is_running
        self._in_set_up = self.controller.in_set_up
        FILE_LIMIT.pause(not self._running)
        if self._running and not before:
            self._open.clear()
            self._follow_all()
        if not self.controller.probing and self._running:
            self._advance()

    def drain(self) -> None:
        """Process the events so far. A forked process leaves them to its parent."""
        if self._closed or not self._queue.pending():
            return
        if os.getpid() != self._process_id:
            self._stop_profiling()
            return
        if not self._draining:
            self._draining = True
            try:
                with within(INTERNAL_OPERATION):
                    for event in self._queue.read():
                        self._process(event)
            finally:
                self._draining = False
            self._advance()

    def _process(self, event: Event) -> None:
        folder = self._folders.get(event.watch)
        if folder is None:
            return
        path = os.path.join(folder, event.name)
        if event.mask & inotify.ISDIR:
            if event.mask & (inotify.CREATE | inotify.MOVED_TO):
                self._follow(path, found=True)
            return
        if not event.name or not self._running:
            return
        if event.mask & (inotify.CREATE | inotify.OPEN | inotify.MODIFY):
            self._latest = path
        if event.mask & inotify.MODIFY:
            self._written(path)
        elif event.mask & inotify.CLOSE_WRITE:
            self._open.pop(path, None)

    def _written(self, path: str) -> None:
        if path not in self._open and self._file(path).own:
            self._open[path] = None
            self._begun += 1
            while self._visits < self._begun:
                self._visit(path)

    def _advance(self) -> None:
        """Make the visit of the next file, if the files before it are closed."""
        if self.controller.probing or not self._running or self._open:
            return
        if self._visits == self._begun:
            self._visit("")

    def _visit(self, path: str) -> None:
        self._visits += 1
        file = self._file(path) if path else None
        attributes = {
            "limit": self._limit,
            "by_python": path in self._storage.written_in_python,
            "size": _size(path) if self.controller.probing else 0,
            "in_set_up": self._in_set_up,
        }
        for key in self.keys:
            pattern = None if isinstance(key, str) else key[1]
            if file is None or file.is_matched(pattern):
                shown = "" if file is None else file.path
                payload = Operation("write", shown)
                gate = self.controller.begin(key, payload, attributes)
                if gate is not None:
                    with gate:
                        gate.check()
        self._watch_closely()

    def _file(self, path: str) -> WatchedFile:
        found = self._storage.local(path)
        assert found is not None
        return found

    # -- folders -----------------------------------------------------------------------------------

    def _follow_all(self) -> None:
        for root in self.controller.own:
            self._follow(str(root), found=False)

    def _follow(self, path: str, *, found: bool) -> None:
        """Watch a folder with all below it.

        With ``found``, files in a new one were written before it was watched.
        """
        folders = collections.deque([path])  # the upper folders first
        while folders and len(self._folders) < MAX_FOLDERS:
            folder = folders.popleft()
            watch = self._queue.add(folder)
            if watch is None:
                continue
            is_new = watch not in self._folders
            self._folders[watch] = folder
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif found and is_new and self._running and _size(entry.path):
                        self._written(entry.path)
                        self._open.pop(entry.path, None)

    # -- the time until the next visit ---------------------------------------------------------------

    def _watch_closely(self) -> None:
        """Process events at each call and return, until no fault is due any more."""
        wanted = not self.controller.probing and any(
            self.controller.is_due_later(key) for key in self.keys
        )
        if wanted and not self._profiling and sys.getprofile() is None:
            self._profiling = True
            pending, drain = self._queue.pending, self.drain

            def profile(frame: FrameType, event: str, argument: object) -> None:
                if pending():
                    drain()

            sys.setprofile(profile)
        elif not wanted:
            self._stop_profiling()

    def _stop_profiling(self) -> None:
        if self._profiling:
            self._profiling = False
            sys.setprofile(None)

    # -- the limit -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _limit(self, size: int, pattern: str | None, record: Callable[..., None]) -> Iterator[None]:
        """Limit the size of all files inside, except for those that Python writes and no fault
        means.
        """
        controller, attempt = self.controller, 0

        def met() -> None:
            nonlocal attempt
            attempt = controller.attempts
            error = OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            record(error, path=self._cut_file(size), bytes=size)

        def is_about_limit(error: BaseException) -> bool:
            meets = attempt == controller.attempts
            return meets and (_is_about_size(error) or _is_of_library(error))

        # It stays, because the error is judged after the process has ended.
        controller.claims.append(is_about_limit)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_free_streams())
            stack.enter_context(self._storage.limiting(pattern))
            stack.enter_context(FILE_LIMIT.limit(size, met))
            FILE_LIMIT.pause(not self._running)
            yield

    def _cut_file(self, size: int) -> str:
        """Return the name of the file that has met the limit, as reports show it."""
        with within(INTERNAL_OPERATION):
            for event in self._queue.read():
                self._process(event)
            for path in reversed(self._open):
                if _size(path) == size:
                    return self._file(path).path
        return self._file(self._latest).path if self._latest else ""


@functools.cache
def _audit() -> None:
    """Process events when Python code uses the filesystem: a new folder may soon be moved.

    This is called once per process, because Python cannot remove audit hooks.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if _watches and event.startswith(("os.", "open", "shutil.")):
            _watches[-1].drain()

    sys.addaudithook(hook)


def _is_about_size(error: BaseException | None) -> bool:
    """Return True for an error that C code raises because a file has met the limit."""
    while error is not None:
        text = str(error).lower()
        if getattr(error, "errno", None) == errno.EFBIG or "file too large" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_of_library(error: BaseException) -> bool:
    """Return True for an error that a library raises, or a function in C that user code calls.

    Many writers in C++ do not tell the reason, and raise an error of their own.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and not is_users(trace.tb_frame.f_code.co_filename):
        return isinstance(error, Exception)
    own = type(error).__module__ != "builtins"
    return isinstance(error, (OSError, RuntimeError)) or (own and isinstance(error, Exception))


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


class _FreeStream(Proxy):
    """A stream of the process, for example one that pytest captures in a file. It is not limited."""

    __slots__ = ()

    def write(self, data: Any, /) -> Any:
        """Write without the limit."""
        with FILE_LIMIT.lifted():
            done = self._mlchaos.write(data)
            self._mlchaos.flush()
        return done

    def flush(self) -> None:
        """Write the buffer without the limit."""
        with FILE_LIMIT.lifted():
            self._mlchaos.flush()


@contextlib.contextmanager
def _free_streams() -> Iterator[None]:
    """Let the process print and log inside, because its output may be in a file."""
    before: list[tuple[Any, str, Any]] = []
    owners: list[tuple[Any, str]] = [(sys, "stdout"), (sys, "stderr")]
    owners += [
        (handler, "stream")
        for reference in list(logging._handlerList)  # type: ignore[attr-defined]
        if "stream" in getattr(handler := reference(), "__dict__", ())
    ]
    for owner, name in owners:
        stream = getattr(owner, name, None)
        if stream is not None and hasattr(stream, "write") and hasattr(stream, "flush"):
            before.append((owner, name, stream))
            setattr(owner, name, _FreeStream(stream))
    try:
        yield
    finally:
        for owner, name, stream in before:
            if getattr(getattr(owner, name), "_mlchaos", None) is stream:
                setattr(owner, name, stream)
