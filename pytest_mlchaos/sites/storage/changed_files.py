"""Change files on disk, and restore the originals."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...core.clock import Clock, VirtualClock
from ...core.interrupts import deferred
from ...core.storage import StoredFile
from ...engine.scopes import GOLDEN_COPY_PREFIX, INTERNAL_OPERATION, within
from ...errors import BadArgument, MlchaosError

__all__ = ["ChangedFiles"]


@dataclasses.dataclass
class _Change:
    """One changed file: its original, and what replaced it."""

    path: str
    shown: str
    kept: str | None
    digest: bytes
    """The digest of the original."""
    left: bytes | None
    """The digest of the changed file, or None if it is absent."""
    is_copy: bool = False


class ChangedFiles:
    """The files that faults have changed, with the originals in a folder of the plugin.

    The folder is on the same filesystem, so the original is moved, not copied.
    """

    def __init__(self, parent: Path | None, clock: Clock) -> None:
        self._parent = parent
        self._clock = clock
        self._home: str | None = None
        self._changes: list[_Change] = []
        self._late: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._numbers = itertools.count()

    def change(self, path: str, file: StoredFile) -> None:
        """Change a file as a fault asks for."""
        try:
            with deferred():  # a signal in between would lose the original
                self._change(path, file)
        except PermissionError as error:
            raise BadArgument(
                f"storage.file: the folder of {file.path} must be writable, got {error.strerror}. "
                f"Copy the file to tmp_path"
            ) from error

    def _change(self, path: str, file: StoredFile) -> None:
        if file.beside is not None:
            copy = os.path.join(os.path.dirname(path), file.beside.rpartition("/")[2])
            shutil.copy2(path, copy)
            digest = _digest(copy)
            self._changes.append(_Change(copy, file.beside, None, b"", digest, is_copy=True))
        if file.replacement is None and not file.absent:
            return
        kept = os.path.join(self._folder(), f"{next(self._numbers)}")
        change = _Change(path, file.path, kept, _digest(path), None)
        os.rename(path, kept)
        if not file.absent:
            try:
                self._write(path, file, kept)
            except BaseException:
                os.replace(kept, path)
                raise
            change.left = _digest(path)
        self._changes.append(change)
        if file.absent and file.delay is not None:
            self._appear_after(file.delay, change)

    def _write(self, path: str, file: StoredFile, kept: str) -> None:
        """Write the changed file, with the mode and the times of the original."""
        assert file.replacement is not None
        with open(path, "wb") as target:
            target.write(file.replacement)
        status = os.stat(kept)
        shutil.copymode(kept, path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def restore(self) -> None:
        """Restore all originals, except where the subject has changed the file itself."""
        while self._late:
            self._late.pop()()
        wrong: list[str] = []
        with self._lock:
            while self._changes:
                change = self._changes[-1]
                if not self._restored(change):
                    wrong.append(change.shown)
                self._changes.pop()
            if self._home is not None:
                shutil.rmtree(self._home, ignore_errors=True)
                self._home = None
        if wrong:
            raise MlchaosError(
                f"storage.file: the kept original of {wrong[0]} changed during the trial. This is "
                f"an error of pytest-mlchaos, please report it"
            )

    def _restored(self, change: _Change) -> bool:
        """Restore one file. Return False if its kept original is not what it was."""
        now = _digest(change.path) if os.path.isfile(change.path) else None
        if change.is_copy:
            if now == change.left:
                os.unlink(change.path)
            return True
        assert change.kept is not None
        if not os.path.exists(change.kept):
            return False
        same = _digest(change.kept) == change.digest
        if now == change.left and os.path.isdir(os.path.dirname(change.path)):
            os.replace(change.kept, change.path)
        return same

    def _folder(self) -> str:
        if self._home is None:
            assert self._parent is not None
            self._home = os.path.join(
                os.path.realpath(self._parent), f"{GOLDEN_COPY_PREFIX}{secrets.token_hex(8)}"
            )
            os.mkdir(self._home, 0o700)
        return self._home

    # -- late files --------------------------------------------------------------------------------

    def _appear_after(self, seconds: float, change: _Change) -> None:
        """Restore a file after some seconds of the trial's clock."""

        def appear() -> None:
            with within(INTERNAL_OPERATION), self._lock:
                if change in self._changes and not os.path.lexists(change.path):
                    self._restored(change)
                    self._changes.remove(change)

        if not isinstance(self._clock, VirtualClock) or self._clock.is_real:
            self._late.append(self._clock.set_alarm(seconds, appear))
            return
        clock: Any = self._clock
        until = clock.now() + seconds
        skip, become_real = clock.skip, clock.become_real

        def skip_and_look(passing: float) -> None:
            skip(passing)
            if clock.now() >= until:
                appear()

        def become_real_and_wait(reason: str) -> None:
            before = clock.is_real
            become_real(reason)
            if not before:
                timer = threading.Timer(max(0.0, until - clock.now()), appear)
                timer.daemon, timer.name = True, "mlchaos-alarm"
                timer.start()
                self._late.append(timer.cancel)

        clock.skip, clock.become_real = skip_and_look, become_real_and_wait

        def undo() -> None:
            for name in ("skip", "become_real"):
                with contextlib.suppress(AttributeError):
                    delattr(clock, name)

        self._late.append(undo)


def _digest(path: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()
