"""Watch local files at Python's level: ``open``, and the reads and writes of its files."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import random
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core.storage import Break
from ...engine.error_origin import mark
from ...engine.file_limit import FILE_LIMIT
from ...engine.import_hooks import when_imported
from ...engine.patching import Patches
from ...engine.scopes import INTERNAL_OPERATION, inside, within
from ...engine.stand_ins import unbound
from .base import TOOL_FILE_PREFIX, Passage, Storage, WatchedFile, active, mechanism
from .versions import history

if TYPE_CHECKING:
    import torch

__all__ = ["CountedFileIO", "is_watched"]

MODES = {"r", "w", "x", "a"}


class CountedFileIO(io.FileIO):
    """The raw file below a file from ``open``.

    Each of its reads and writes is a visit until its trial ends.

    If a fault fails an operation, the position stays as it was, as in the kernel. A write that took
    effect before its error moves it. After an error, a buffer keeps its data, and writes it again,
    at the latest when it is closed. So a disk that was full is still full then, and bytes that are
    in the file already count as written. Code that repeats a write itself writes twice. A crash
    loses the content of buffers, for files that were opened in the attempt that it ended. Files
    that the test itself holds survive (their ``life`` is None).
    """

    storage: Storage
    watched_file: WatchedFile
    life: int | None = None
    end: int | None = None
    read_break: Break | None = None
    write_break: tuple[int, Break] | None = None
    buffered = 0
    landed = b""
    refused: tuple[bytes, BaseException] | None = None

    def __repr__(self) -> str:
        return f"<_io.FileIO {io.FileIO.__repr__(self).partition(' ')[2]}"

    def _begin(self, op: str, data: Any = None) -> Passage | None:
        return (
            self.storage.begin(op, self.watched_file, data)
            if active() is self.storage and not inside()
            else None
        )

    def _during(
        self, passage: Passage | None, act: Callable[[], Any], size: Callable[[Any], int]
    ) -> Any:
        if passage is None:
            return act()
        position, done = self.tell() if self.seekable() else None, None
        try:
            with passage:
                passage.wait()
                if passage.operation.keep is not None:
                    self.end = passage.operation.ends_at(
                        os.fstat(self.fileno()).st_size, position or 0
                    )
                if passage.operation.breaks is not None and passage.operation.op == "read":
                    self._break_reads(passage.operation.breaks)
                done = act()
        except BaseException:
            if (
                position is not None
                and not self.closed
                and (done is None or passage.operation.op != "write")
            ):
                self.seek(position)
            raise
        passage.transferred(size(done) if done is not None else None)
        return done

    def _room(self) -> int:
        """Return the number of bytes before the end that a fault has set."""
        return (
            max(0, self.end - self.tell())
            if self.end is not None and active() is self.storage
            else sys.maxsize
        )

    def _break_reads(self, point: Break) -> None:
        """Let reads stop at a point, if it is before the end of the file."""
        size = os.fstat(self.fileno()).st_size
        if point.offset(size) < size:
            self.end, self.read_break = point.offset(size), point

    def _stop_read(self, wanted: int) -> None:
        """Raise the error of a read that begins at the point where reads stop, or goes beyond it
        to the end of the file.
        """
        reached = self.read_break is not None and wanted and not (wanted > 0 and self._room())
        if self.read_break is not None and reached and active() is self.storage:
            self.read_break.stop()

    def readinto(self, buffer: torch.Tensor, /) -> Any:
        """Fill a buffer up to the end of the file."""
        passage = self._begin("read")
        if passage is None and self.end is None:
            return io.FileIO.readinto(self, buffer)
        view = memoryview(buffer).cast("B")

        def act() -> Any:
            self._stop_read(len(view))
            return io.FileIO.readinto(self, view[: self._room()])

        return self._during(passage, act, int)

    def readall(self) -> Any:
        """Read the rest of the file."""
        return self.read()

    def read(self, size: int | None = -1, /) -> Any:
        """Read ``size`` bytes, or the rest of the file."""
        passage = self._begin("read")

        def act() -> Any:
            self._stop_read(-1 if size is None else size)
            if size is None or size < 0:
                return (
                    io.FileIO.readall(self)
                    if self._room() == sys.maxsize
                    else io.FileIO.read(self, self._room())
                )
            return io.FileIO.read(self, min(size, self._room()))

        return self._during(passage, act, len)

    def write(self, data: Any, /) -> Any:
        """Write to the file. If its process has died since it was opened, drop the data."""
        if (
            self.life not in (None, self.storage.life)
            and self.storage.controller.crash is None
            and active() is self.storage
        ):
            return memoryview(data).nbytes
        passage = self._begin("write", data)
        if passage is not None and passage.operation.breaks is not None:
            passage.operation.breaks.data = data
            self._break_writes(passage.operation.breaks, memoryview(data).nbytes)
        if (
            passage is None
            and not self.landed
            and self.refused is None
            and self.write_break is None
        ):
            return self._put_all(data)
        view, done = memoryview(data).cast("B"), 0
        refused, self.refused = self.refused, None
        if refused is not None and passage is None and view == refused[0]:
            raise refused[1]

        def act() -> Any:
            nonlocal done
            landed, self.landed = self.landed, b""
            done = len(landed) if landed and view[: len(landed)] == landed else self._put(view)
            return done

        try:
            return self._during(passage, act, int)
        except BaseException as error:
            # More than the buffer's size comes directly from the caller, and is not kept.
            if view.nbytes <= self.buffered:
                if done:
                    self.landed = bytes(view[:done])
                else:
                    self.refused = bytes(view), error
            raise

    def _break_writes(self, point: Break, size: int) -> None:
        """Let writes stop at a point from now on."""
        position = self.tell() if self.seekable() else 0
        offset = point.reach(size, position, os.fstat(self.fileno()).st_size)
        if offset < position + size or not isinstance(point.after, float):
            self.write_break = offset, point

    def _put(self, view: memoryview) -> Any:
        """Write the bytes before the point at which writes stop."""
        if self.write_break is None or active() is not self.storage:
            return self._put_all(view)
        offset, point = self.write_break
        room = max(0, offset - (self.tell() if self.seekable() else 0))
        if room >= view.nbytes:
            return self._put_all(view)
        if not point.lasts:
            self.write_break = None
        if room or not view.nbytes:
            done = self._put_all(view[:room])
            if point.error is not None:
                return done
        point.stop()
        if point.reports_all and self.seekable():
            self.seek(view.nbytes - room, os.SEEK_CUR)
        return view.nbytes if point.reports_all else room

    def _put_all(self, data: Any) -> Any:
        """Write the bytes. Say that the disk is full if they meet a limit of the kernel."""
        if FILE_LIMIT.size is None:
            return io.FileIO.write(self, data)
        with self.storage.unlimited(self.watched_file):
            try:
                return io.FileIO.write(self, data)
            except OSError as error:
                if error.errno != errno.EFBIG:
                    raise
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
                mark(full)
                raise full from None


def is_watched(file: object) -> bool:
    """Return True if the reads and writes of a file object are visits already."""
    return isinstance(raw_of(file), CountedFileIO)


def raw_of(file: object) -> Any:
    """Return the raw file below a text file or a buffered file."""
    below = getattr(file, "buffer", file)
    return getattr(below, "raw", below)


@mechanism
def install(storage: Storage, patches: Patches) -> None:
    """Wrap ``open`` under all its names, and keep libraries from bypassing its file objects."""
    patches.replace_everywhere(io.open, unbound(_opener(io.open), io.open))
    for shortcut in (
        "_USE_CP_SENDFILE",
        "_USE_CP_COPY_FILE_RANGE",
        "_HAS_FCOPYFILE",
    ):
        # Copies that bypass file objects.
        if hasattr(shutil, shortcut):
            patches.set(shutil, shortcut, False)
    _name_temporary_files(storage, patches)
    when_imported("numpy", patches, functools.partial(_through_file_objects, patches))


def _name_temporary_files(storage: Storage, patches: Patches) -> None:
    """Give temporary files the same names in each trial, because the names are in the journal.

    They are in a directory of the trial, in which no other file has these names.
    """
    names = getattr(tempfile, "_RandomNameSequence", None)
    if names is None or not hasattr(tempfile, "_name_sequence") or not storage.controller.own:
        return
    folder = _folder(os.fspath(storage.controller.own[0]))
    patches.on_undo(functools.partial(_leave, folder))
    patches.set(tempfile, "tempdir", folder)
    sequence = names()
    sequence._rng, sequence._rng_pid = random.Random("mlchaos"), os.getpid()
    patches.set(tempfile, "_name_sequence", sequence)


_empty: set[tuple[int, str]] = set()
"""Folders for temporary files that earlier trials left empty, with the process's id."""


def _folder(parent: str) -> str:
    """Return an empty folder for a trial's temporary files.

    Take an earlier one if possible, so that a library may keep its path from trial to trial.
    """
    with within(INTERNAL_OPERATION):
        for process, folder in list(_empty):
            if process == os.getpid() and os.path.dirname(folder) == parent:
                _empty.discard((process, folder))
                if os.path.isdir(folder) and not os.listdir(folder):
                    return folder
        # A short name, because the path of a socket may have only 107 characters.
        folder = os.path.join(parent, f"{TOOL_FILE_PREFIX}{secrets.token_hex(4)}")
        os.makedirs(folder, mode=0o700)
        return folder


def _leave(folder: str) -> None:
    """Keep the folder of a trial. If it is empty, later trials use it.

    Libraries make a directory once and use it as long as the process lives. pytest removes all of
    them later.
    """
    with within(INTERNAL_OPERATION), contextlib.suppress(OSError):
        if not os.listdir(folder):
            _empty.add((os.getpid(), folder))


def _through_file_objects(patches: Patches) -> None:
    """Let NumPy read and write arrays by the methods of a watched file.

    It calls this function to decide.
    """
    import numpy.lib.format

    original: Any = numpy.lib.format.isfileobj

    @functools.wraps(original)
    def isfileobj(file: object) -> Any:
        return original(file) and not is_watched(file)

    patches.replace_everywhere(original, isfileobj)


# -- opening ---------------------------------------------------------------------------------------


def _opener(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def open(  # noqa: A001  # it has the name of the original
        file: object,
        mode: str = "r",
        buffering: int = -1,
        encoding: object = None,
        errors: object = None,
        newline: object = None,
        closefd: bool = True,
        opener: object = None,
    ) -> Any:
        storage = active()
        if storage is None or inside():
            return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
        watched_file = storage.descriptor(file) if isinstance(file, int) else storage.local(file)
        text = (encoding, errors, newline)
        if (opener is None and (watched_file is None or not watched_file.watched)) or not _is_valid(
            mode, buffering, text
        ):
            return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if opener is not None:
            # The opener's own call counts, and may open a different file.
            watched_file = None
        passage = (
            storage.begin("open", watched_file)
            if watched_file is not None and not isinstance(file, int)
            else None
        )
        made: Any = None
        try:
            with passage or within("open"):
                if passage is not None:
                    passage.wait()
                made = _built(
                    original, storage, watched_file, (file, mode, buffering, text, closefd, opener)
                )
            if storage.history is not None and "r" in mode and "+" not in mode:
                _become_stale(made, watched_file)
        except BaseException:
            if made is not None:
                made.close()
            raise
        return made

    return open


def _become_stale(made: Any, watched_file: WatchedFile | None) -> None:
    """Let an opened file have its previous content, if a fault asks for it."""
    known = history()
    content = known.stale(watched_file) if known is not None else None
    if content is not None:
        with within(INTERNAL_OPERATION), tempfile.TemporaryFile() as old:
            old.write(content)
            old.flush()
            old.seek(0)
            os.dup2(old.fileno(), raw_of(made).fileno(), inheritable=False)


def _is_valid(mode: object, buffering: object, text: tuple[Any, Any, Any]) -> bool:
    """Return True if the arguments are valid.

    For invalid ones, the original raises the right error.
    """
    if not isinstance(mode, str) or not isinstance(buffering, int):
        return False
    kinds = set(mode)
    if (
        len(kinds) != len(mode)
        or len(kinds & MODES) != 1
        or not kinds <= {*MODES, "+", "b", "t"}
        or {"b", "t"} <= kinds
    ):
        return False
    return text == (None, None, None) if "b" in kinds else buffering != 0


def _built(
    original: Callable[..., Any],
    storage: Storage,
    watched_file: WatchedFile | None,
    arguments: tuple[Any, ...],
) -> Any:
    """Return the result of ``open``, on a raw file that is watched."""
    file, mode, buffering, text, closefd, opener = arguments
    file = file if isinstance(file, int) else os.fspath(file)
    raw = CountedFileIO(
        file,
        "".join(letter for letter in mode if letter not in "bt"),
        closefd,
        opener and _wrap_opener(opener),
    )
    watched_file = watched_file if watched_file is not None else storage.descriptor(raw.fileno())
    try:
        raw.storage, raw.life = storage, storage.life if storage.controller.supervised else None
        raw.watched_file = (
            watched_file if watched_file is not None else WatchedFile(storage, "", (), own=False)
        )
        if raw.writable():
            storage.note_writer(raw.watched_file.file)
        return _add_layers(raw, mode, buffering, text)
    except BaseException:
        raw.close()
        raise


def _wrap_opener(opener: Callable[[Any, int], int]) -> Callable[[Any, int], int]:
    """Wrap the user's opener, so that its own call counts."""

    def opened(file: object, flags: int) -> int:
        with within(""):
            return opener(file, flags)

    return opened


def _add_layers(raw: Any, mode: str, buffering: int, text: tuple[Any, Any, Any]) -> Any:
    """Return the raw file with a buffer and a text layer, as the original adds them."""
    binary = "b" in mode
    if binary and buffering == 1:
        message = "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used"
        warnings.warn(message, RuntimeWarning, stacklevel=4)
        buffering = -1
    by_line = buffering == 1 or (buffering < 0 and raw.isatty())
    size = getattr(raw, "_blksize", 0) if buffering < 0 or by_line else buffering
    if buffering == 0:
        return raw
    layer: Any = (
        io.BufferedRandom
        if "+" in mode
        else io.BufferedReader
        if "r" in mode
        else io.BufferedWriter
    )
    raw.buffered = size if size > 1 else io.DEFAULT_BUFFER_SIZE
    buffer = layer(raw, raw.buffered)
    if binary:
        return buffer
    wrapper: Any = io.TextIOWrapper(buffer, *text, by_line)
    wrapper.mode = mode
    return wrapper
