"""Record what a process does between a signal to end and the kill after it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..core.interrupts import uninterruptible
from ..core.records import Preemption
from ..engine.controller import Controller
from ..engine.error_origin import mark
from ..engine.scopes import GOLDEN_COPY_PREFIX
from ..errors import SimulatedCrash

__all__ = ["Notice", "notice", "raise_signal"]

# Not the replaced functions, because file times are real.
_real_time, _real_sleep = (time.time, time.sleep)
_MTIME_TICK_SECONDS = 0.012
"""The time after which a file's modification time has surely changed."""
_MARKS = ("tmp", "temp", "part", "partial", "incomplete", "new", "writing", "bak~")
Files = dict[str, tuple[int, int, int]]


class Notice:
    """One SIGTERM (or a different ``signal``) with its grace, up to the process's end."""

    def __init__(
        self, controller: Controller, where: str, grace: float, roots: Iterable[Path], signal: str
    ) -> None:
        self.where = where
        self._signal = signal
        self._controller = controller
        self._grace = grace
        self._roots = tuple(roots)
        self._handled = False
        self._killed = False
        self._cut: tuple[str, ...] = ()
        self._ended: float | None = None
        self._steps: list[float] = []
        # Later writes must have a later modification time than earlier ones.
        _real_sleep(_MTIME_TICK_SECONDS)
        self._before = _files(self._roots)
        self._since = controller.clock.now()

    @uninterruptible
    def open(self, handled: bool) -> Iterator[None]:
        """Watch from the signal to the end of the process."""
        controller = self._controller
        self._handled = handled
        stop: Callable[[], None] = lambda: None  # noqa: E731  # nothing to stop yet
        with (
            controller.on_crash(self._witness, first=True),
            controller.watching_steps(lambda: self._steps.append(_real_time())),
        ):
            if handled:
                stop = controller.clock.set_alarm(self._grace, self._kill)
            try:
                yield
            finally:
                stop()
                self._end()

    def took_a_step(self) -> None:
        """Record an optimizer step that was about to be taken when the signal arrived."""
        self._steps.append(_real_time())

    def _kill(self) -> None:
        self._killed = True
        crash = SimulatedCrash(
            f"SIGKILL, {self._grace:g} s after {self._signal} at {self.where} (injected by mlchaos)"
        )
        self._controller.die(crash)
        if threading.current_thread() is threading.main_thread():
            raise crash

    def _witness(self) -> None:
        """Record the end of the process, which crashes now."""
        if self._ended is None:
            self._cut = tuple(_open_for_writing(self._roots))
            self._end()

    def _end(self) -> None:
        if self._ended is None:
            self._ended = self._controller.clock.now()
            self._after = _files(self._roots)
            self._controller.preemption_over(self.told())

    def told(self) -> Preemption:
        """Return the effects of the signal."""
        self._end()
        saved = [name for name, state in self._after.items() if self._before.get(name) != state]
        first = min((self._after[name][1] for name in saved), default=0) / 1e9
        unmoved = (
            [name for name in saved if name not in self._before and _is_for_now(name, self._after)]
            if self._killed
            else []
        )
        return Preemption(
            where=self.where,
            grace=self._grace,
            handled=self._handled,
            lasted=(self._ended or 0.0) - self._since,
            killed=self._killed or not self._handled,
            saved=tuple(saved),
            cut=self._cut,
            unmoved=tuple(unmoved),
            signal=self._signal,
            more_steps=sum(when > first for when in self._steps) if saved else len(self._steps),
        )

    def ending(self, how: str) -> str:
        """Describe the end of the attempt."""
        lasted = (self._ended or self._controller.clock.now()) - self._since
        return f"{self._signal} at {self.where}: {how} {round(lasted, 2):g} s later"


def notice(controller: Controller, where: str, grace: float, signal: str) -> Notice:
    """Record a signal to end that arrives now.

    Args:
        controller: The controller of the trial.
        where: The site and the visit.
        grace: The seconds between the signal and SIGKILL.
        signal: The name of the signal.
    """
    told = controller.preempted = Notice(controller, where, grace, controller.roots, signal)
    return told


def raise_signal(controller: Controller, signum: int, site: str) -> None:
    """Raise a signal in this process.

    The exceptions of its handler count as injected, and the operation at ``site`` does not happen.

    Args:
        controller: The controller of the trial.
        signum: The number of the signal.
        site: The site at which it arrives.
    """
    controller.signalled = site
    try:
        if signum == signal.SIGINT and signal.getsignal(signum) is signal.SIG_IGN:
            # In a shell's background job, SIGINT is ignored. Python's default handler would raise
            # this.
            raise KeyboardInterrupt
        signal.raise_signal(signum)
    except BaseException as error:
        mark(error)
        controller.failed(site)
        raise
    finally:
        controller.signalled = None


def _files(roots: Iterable[Path]) -> Files:
    """Return the size, modification time and inode of each file, by its relative name."""
    found: Files = {}
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith(GOLDEN_COPY_PREFIX))
            for name in sorted(names):
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    status = os.lstat(path)
                    found[os.path.relpath(path, root)] = (
                        status.st_size,
                        status.st_mtime_ns,
                        status.st_ino,
                    )
    return found


def _open_for_writing(roots: Iterable[Path]) -> Iterator[str]:
    """Yield the files that this process has open for writing (Linux, none on other systems)."""
    with contextlib.suppress(OSError):
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                path = Path(os.readlink(f"/proc/self/fd/{number}"))
                root = next(root for root in (*roots, None) if root is None or root in path.parents)
                if root is None:
                    continue
                flags = (
                    Path(f"/proc/self/fdinfo/{number}")
                    .read_text()
                    .partition("flags:")[2]
                    .split()[0]
                )
                if int(flags, 8) & (os.O_WRONLY | os.O_RDWR):
                    yield path.relative_to(root).as_posix()


def _is_for_now(name: str, files: Any) -> bool:
    """Return True if a file's name looks temporary.

    It is marked as such, or is the name of a different file with a suffix.
    """
    folder, _, last = name.rpartition("/")
    words = last.lower().replace("-", ".").replace("_", ".").strip("~").split(".")
    if any(word in _MARKS for word in words) or last.endswith("~"):
        return True
    return any(
        last.startswith(f"{other.rpartition('/')[2]}.")
        for other in files
        if other != name and other.rpartition("/")[0] == folder
    )
