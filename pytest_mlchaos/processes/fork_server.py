"""Run a warm process that has imported the slow libraries and done nothing else.

Other processes are forked from it.

This does not use the fork server of ``multiprocessing``. Each process has only one of these, which
belongs to the user, and its children are hard to end reliably.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.interrupts import deferred
from ..engine.activity import TOOL_PROCESSES
from ..engine.scopes import INTERNAL_OPERATION, within
from ..engine.start_hook import without_hook
from ..engine.user_code import PACKAGE
from ..errors import MlchaosError
from .adopted_orphans import POLL_SECONDS, AdoptedOrphans
from .huge_pages import HugePages
from .messages import read_message, write_message
from .process_tree import threads
from .safe_imports import SafeImports

__all__ = [
    "FORK_EVENT",
    "ForkServer",
    "import_if_possible",
    "serve",
    "share_objects",
]

FORK_EVENT = "mlchaos.fork"
"""The audit event before a process is forked. It is not a child of this process."""
IMPORT_TIMEOUT_SECONDS = 180.0
"""The time limit for the imports. A cold disk takes long."""
MAX_FDS = 250
_BOOT = (
    "import sys; sys.path.insert(0, {home!r}); from pytest_mlchaos.processes.fork_server import "
    "serve; sys.path[:] = {path!r}; "
    "serve({fd}, {entry!r}, {prepare!r})"
)
"""The package comes from this process's folder, even if ``sys.path`` has a different one."""
_FORK, _IMPORT, _LEARN = b"w", b"i", b"l"
_POOLS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)
"""The variables that keep libraries from starting threads when they are imported.

A forked process would lack these threads.
"""
_SINGLE = dict.fromkeys((*_POOLS, "OMP_NUM_THREADS"), "1")
"""The variables of the warm process.

A forked process may use more threads: its own environment sets the number.
"""


class ForkServer:
    """One warm process, which ends with this process, also if this one is killed.

    Args:
        preload: The modules to import.
        entry: The function of this package that a forked process runs with its file descriptors, as
            ``"module:function"``.
        import_reads: The prefixes of the variables that the libraries read when they are imported.
            If such a variable has changed, ``start`` replaces the warm process, because a fork
            cannot make a library read it again.
        reread: The exceptions from ``import_reads``: variables that each process reads again.
        prepare: A function that the warm process calls after imports, as ``"module:function"``.
        own: The variables whose value each forked process has of its own.

    Attributes:
        threads: The number of threads of the warm process after its imports (0: unknown). A forked
            process has only one of them.
    """

    def __init__(
        self,
        preload: Iterable[str],
        entry: str,
        import_reads: tuple[str, ...] = (),
        reread: Container[str] = (),
        prepare: str = "",
        own: Sequence[str] = (),
    ) -> None:
        self.threads = 0
        self._import_reads = import_reads
        self._reread = reread
        self._environment: Mapping[str, str] = {}
        self._preload = dict.fromkeys(preload)
        # pytest sets one for each test.
        self._own = (*own, "PYTEST_CURRENT_TEST")
        self._times: collections.Counter[str] = collections.Counter()
        self._learned: set[str] = set()
        self._refused: set[str] = set()
        self._read_by_learned: dict[str, str | None] = {}
        self._entry, self._prepare = entry, prepare
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def fork(self, fds: Sequence[int]) -> None:
        """Fork a process that holds these file descriptors and runs the entry with them."""
        sys.audit(FORK_EVENT)
        with self._lock:
            with contextlib.suppress(OSError):
                self._send(fds)
                return
            # It has died, so try again with a new one.
            self._close()
            try:
                self._send(fds)
            except OSError as error:
                raise MlchaosError(
                    f"the warm process that others are forked from does not answer: {error}"
                ) from error

    def start(self) -> None:
        """Start the warm process if it does not run.

        Wait for its imports, which take seconds. An interruption ends it.
        """
        with self._lock:
            if self._socket is not None and (
                self._environment != self._read_at_import()
                or any(os.environ.get(key) != value for key, value in self._read_by_learned.items())
            ):
                self._close()
            if self._socket is None:
                try:
                    self._start()
                except OSError as error:
                    raise MlchaosError(
                        f"the warm process that others are forked from does not answer: {error}"
                    ) from error
            self._import_learned()

    def preload(self, names: Iterable[str]) -> None:
        """Import these modules, too, for later forks.

        A module that fails to be imported there is left out.
        """
        with self._lock:
            more = [name for name in dict.fromkeys(names) if name not in self._preload]
            self._preload.update(dict.fromkeys(more))
            if more and self._socket is not None:
                try:
                    self._socket.sendall(_IMPORT)
                    write_message(self._socket.fileno(), more)
                    self._await()
                except OSError:
                    # It has died: the next one imports all of them.
                    self._close()
                except BaseException:
                    # Its answer would be left unread: the next one imports all of them.
                    self._close(kill=True)
                    raise

    def learn(self, names: Iterable[str], *, soon: bool = False) -> None:
        """Note libraries that a forked process had to import.

        Those that two of them needed are imported at the next start, if that is safe.

        Args:
            names: The libraries, in the order of import.
            soon: True if many more processes will need them.
        """
        for name in dict.fromkeys(names):
            self._times[name] += 2 if soon else 1

    def _import_learned(self) -> None:
        more = [
            name
            for name, times in self._times.items()
            if times > 1 and name not in self._learned | self._refused
        ]
        if not more or self._socket is None:
            return
        self._refused.update(more)  # in case that they end the warm process
        try:
            self._socket.sendall(_LEARN)
            write_message(self._socket.fileno(), (without_hook(os.environ), self._own, more))
            refused, left, reads = self._answer()
        except OSError:
            self._close()
            self._start()
        except BaseException:
            self._close(kill=True)
            raise
        else:
            self._learned.update(more)
            self._refused.difference_update(more)
            self._refused.update(refused)
            self._learned.difference_update(refused, left)
            self._read_by_learned.update(reads)

    def stop(self) -> None:
        """End the warm process, and wait for its end."""
        with self._lock:
            self._close()

    def _send(self, fds: Sequence[int]) -> None:
        if self._socket is None:
            self._start()
        assert self._socket is not None
        socket.send_fds(self._socket, [_FORK], list(fds))

    def _read_at_import(self) -> Mapping[str, str]:
        """Return the variables that the libraries read at import.

        Those that each process sets or reads again are left out.
        """
        names = (
            name
            for name in os.environ
            if name.startswith(self._import_reads)
            and name not in _SINGLE
            and name not in self._reread
        )
        return {name: os.environ[name] for name in names}

    @within(INTERNAL_OPERATION)
    def _start(self) -> None:
        self._environment = self._read_at_import()
        ours, theirs = socket.socketpair()
        boot = _BOOT.format(
            home=str(Path(PACKAGE).parent),
            path=[os.path.abspath(path) for path in sys.path],
            fd=theirs.fileno(),
            entry=self._entry,
            prepare=self._prepare,
        )
        environment = {**without_hook(os.environ), **_SINGLE, "PYTHONHASHSEED": "0"}
        with theirs, tempfile.TemporaryFile() as errors:
            with deferred():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", boot],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the runner, which ends the ranks itself
                )
                TOOL_PROCESSES.add(self._process.pid)
                self._socket = ours
            try:
                theirs.close()
                write_message(ours.fileno(), list(self._preload))
                self._await()
            except OSError:
                errors.seek(0)
                text = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
                process = self._process
                self._close()
                if not text and process.returncode < 0:
                    text = f"it was killed by signal {-process.returncode}"
                raise MlchaosError(
                    f"the warm process that others are forked from did not start: "
                    f"{text or 'no reason given'}"
                ) from None
            except BaseException:
                self._close(kill=True)
                raise

    def _await(self) -> None:
        """Wait until the warm process has imported everything."""
        self.threads = self._answer()

    def _answer(self) -> Any:
        assert self._socket is not None
        self._socket.settimeout(IMPORT_TIMEOUT_SECONDS)
        answer = read_message(self._socket.recv)
        self._socket.settimeout(None)
        if answer is None:
            raise ConnectionError("it ended")
        return answer

    def _close(self, *, kill: bool = False) -> None:
        """End the warm process.

        ``kill`` is for one in the middle of its imports, which would not notice for seconds.
        """
        self._learned.clear()
        self._read_by_learned.clear()
        with deferred():
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            process, self._process = self._process, None
            if process is not None:
                if kill:
                    process.kill()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _forget(self) -> None:
        """Detach a forked child from the warm process.

        The warm process is the parent's. It must not outlive the parent because a child holds its
        socket.
        """
        self._lock = threading.Lock()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            # Not a child of this process, so there is nothing to wait for.
            self._process.returncode = 0
            self._process = None


def serve(fd: int, entry: str, prepare: str = "") -> None:
    """Import the modules, then fork on each request, until the socket is closed."""
    main = _function(entry)
    prepared: Callable[[], None] = _function(prepare) if prepare else lambda: None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    orphans = AdoptedOrphans()
    with socket.socket(fileno=fd) as runner:
        with orphans.importing():
            pages = _import(fd, _names(runner), prepared)
        while True:
            while orphans.end() and not select.select([runner], [], [], POLL_SECONDS)[0]:
                pass
            data, fds, _, _ = socket.recv_fds(runner, 1, MAX_FDS)
            if data == _FORK:
                pages.before_fork()
                pid = os.fork()
                if pid == 0:
                    runner.close()
                    main(fds)  # does not return
                orphans.add(pid)
                for received in fds:
                    os.close(received)
            elif data == _IMPORT:
                with orphans.importing():
                    pages = _import(fd, _names(runner), prepared)
            elif data == _LEARN:
                environment, own, names = read_message(runner.recv)
                safe = SafeImports(environment, own)
                with orphans.importing():
                    safe.run(names)
                    pages = HugePages()
                    prepared()
                share_objects()
                write_message(fd, (safe.refused, safe.left, safe.reads))
            else:
                orphans.end_all()
                return


def _import(fd: int, names: Sequence[str], prepared: Callable[[], None]) -> HugePages:
    """Import modules, and tell the number of threads. New memory needs new huge pages."""
    for name in names:
        import_if_possible(name)
    prepared()
    share_objects()
    write_message(fd, threads())
    return HugePages()


def _names(runner: socket.socket) -> Sequence[str]:
    return read_message(runner.recv) or ()


def _function(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def import_if_possible(name: str) -> None:
    """Import a module. If it fails, code that needs it will raise."""
    if name not in sys.modules:
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001  # any module may fail
            error.__traceback__ = None


def share_objects() -> None:
    """Exclude the existing objects from garbage collections.

    A collection in a forked process then does not touch, and so does not copy, the shared pages.
    """
    gc.collect()
    gc.freeze()
