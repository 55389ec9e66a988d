"""Run functions in fresh processes whose imports are done.

They have imported the libraries and the user's modules, and done nothing else.

They are forked from a warm process. This takes milliseconds, while a new interpreter needs seconds
for its imports.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import importlib.util
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..core.interrupts import deferred, register_open, unregister_open
from ..core.limits import NO_LIMITS, Limits, current_limits
from ..core.privacy import child_error, error_text
from ..engine.forks import nameless_file
from ..engine.scopes import INTERNAL_OPERATION, within
from ..errors import BadArgument, MissingExtra, MlchaosError
from . import stack_dumps
from .child import Start
from .fork_server import ForkServer
from .imported_modules import Modules
from .messages import Inbox
from .subject_pickling import dumps
from .supervisor import END, ENTRY, FDS_PER_PROCESS, Job
from .supervisor_client import SupervisorClient

__all__ = ["FreshProcesses", "ProcessResult", "Task", "fresh_processes"]

SUPERVISOR_TIMEOUT_SECONDS = 60.0
"""The time limit, beyond that of a process, until its supervisor counts as dead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """The result of a fresh process.

    Attributes:
        value: The value that the function returned.
        error: The exception that it raised, or a ``ChildProcessError`` with its text if it cannot
            be unpickled here.
        hung: True if the process reached its timeout.
        exitcode: The exit code, -9 after SIGKILL.
        output: Its stdout, then its stderr.
        stack: The frames of its main thread at the timeout, the innermost first.
        duration: The real seconds from the fork to the end.
        left: Shortened command lines of processes that it left running. They have been ended. Only
            Linux finds those outside of its process group.
        exceeded: The limit of the test that it exceeded, in words. It has been ended for that.
        started: None, or the reason why the function was not called.
        traceback: The traceback of ``error`` as text.
        stderr: Its stderr.
        told: The messages that it sent with ``processes.child.tell(*message)``, also if it was
            killed.
    """

    value: Any = None
    error: BaseException | None = None
    hung: bool = False
    exitcode: int | None = None
    output: str = ""
    stack: str = ""
    duration: float = 0.0
    left: tuple[str, ...] = ()
    exceeded: str = ""
    started: str | None = None
    traceback: str = ""
    stderr: str = ""
    told: tuple[tuple[Any, ...], ...] = ()


class Task:
    """A function that runs in a fresh process.

    It ends at its timeout, even if nothing waits for it.

    If a supervisor was killed before it read the job, the function has not begun. Then ``again``
    gives a new supervisor that starts it.
    """

    def __init__(
        self,
        supervisor: SupervisorClient,
        files: _Files,
        timeout: float | None,
        done: Callable[[SupervisorClient, Sequence[Iterable[str]]], object],
        again: Callable[[], SupervisorClient],
    ) -> None:
        self._supervisor = supervisor
        self._files = files
        self._timeout = timeout
        self._done = done
        self._again: Callable[[], SupervisorClient] | None = again
        self._ended: ProcessResult | None = None

    def fileno(self) -> int:
        """Return a file descriptor for ``select``. It is readable if ``wait`` returns at once."""
        return self._supervisor.socket.fileno()

    def wait(self) -> ProcessResult:
        """Wait for the end of the process, and return its result.

        An interruption of the wait (Ctrl-C) ends the process.
        """
        if self._ended is None:
            try:
                told = self._heard()
                if told is None and self._supervisor.unread and self._again is not None:
                    with deferred():
                        self._done(self._supervisor, ())
                        self._supervisor = self._again()
                    told = self._heard()
                self._ended = self._files.ended(told)
            except BaseException:
                with deferred():
                    self._ended = ProcessResult(started="the wait for it was interrupted")
                    self._supervisor.close()
                raise
            finally:
                with deferred():
                    unregister_open(self)
                    self._files.close()
                    self._done(self._supervisor, self._files.learned)
        return self._ended

    def _heard(self) -> Any:
        return self._supervisor.hear(
            None if self._timeout is None else self._timeout + SUPERVISOR_TIMEOUT_SECONDS
        )

    def __exit__(self, *_: object) -> None:
        """End the process after an interruption between its start and the wait for it."""
        self.end()

    def end(self) -> None:
        """Kill the process, and all that it has started, if it still runs."""
        if self._ended is None and self._supervisor.alive:
            self._again = None
            with contextlib.suppress(OSError):
                self._supervisor.socket.sendall(END)
            self.wait()


@dataclasses.dataclass(frozen=True)
class _Bounds:
    """The time limit of a process, and the limits of the test for it."""

    timeout: float | None
    limits: Limits
    folders: Sequence[str]

    @classmethod
    def of(cls, timeout: float | None, folders: Sequence[str]) -> _Bounds:
        limits = current_limits() if folders else NO_LIMITS
        if limits.names and importlib.util.find_spec("psutil") is None:
            raise MissingExtra(f"the setting {limits.names}", "psutil", "process")
        return cls(timeout, limits, folders)


class FreshProcesses:
    """Run functions in fresh processes.

    A process starts with this process's environment, working directory, ``sys.path`` and
    ``sys.argv`` at the time of ``start``. No fault strikes there, and no patches are active. It
    ends with ``os._exit``, after its threads that are not daemons and its ``atexit`` functions. It
    also ends with this process, even if this one is killed.

    Imitates: a new process of the same program, after its imports. Fidelity: modules are imported
    once for all processes, so random numbers that they draw at import are the same in each. This
    includes libraries that an earlier process has imported, unless it had changed its environment.
    Global random numbers are as the fork finds them: seed them. Libraries are imported with one
    thread for their pools. torch gets ``OMP_NUM_THREADS`` threads, or one. ``PYTHONHASHSEED`` is 0.
    Assertions are plain ones, not pytest's.

    Args:
        preload: Modules to import besides those that are imported here.
    """

    def __init__(self, preload: Iterable[str] = ()) -> None:
        self._server = ForkServer(preload, ENTRY)
        self._lock = threading.RLock()
        self._supervisors: set[SupervisorClient] = set()
        self._idle: list[SupervisorClient] = []
        self._modules = Modules()
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    @property
    def threads(self) -> int:
        """Return the number of threads of the warm process (0: unknown, or not started).

        If a library has started a second one, forked processes may hang.
        """
        return self._server.threads

    @within(INTERNAL_OPERATION)
    def start(
        self,
        function: Callable[..., Any],
        *args: Any,
        timeout: float | None = None,
        folders: Sequence[str] = (),
    ) -> Task:
        """Start ``function(*args)`` in a fresh process. Several may run at once.

        Args:
            function: The function.
            args: Its arguments.
            timeout: The time limit in seconds, or None.
            folders: The directories that the limit ``disk`` of the running test is for. With
                directories, all limits of the test hold for the process.

        Returns:
            The task, to wait for.

        Raises:
            BadArgument: The function or an argument cannot be sent to a different process.
            MlchaosError: No process can be started.
        """
        if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
            raise MlchaosError("fresh processes need os.fork, which this system does not have")
        payload = _pickle_task(function, args)
        start = Start.here()
        bounds = _Bounds.of(timeout, folders)
        with self._lock:
            try:
                supervisor = self._ready(start, payload)
                try:
                    return self._begun(supervisor, start, payload, bounds)
                except OSError:  # the supervisor was killed, so try again with a new one
                    self._drop(supervisor)
                    return self._begun(self._ready(start, payload), start, payload, bounds)
            except BaseException:
                self._drop_unused()
                raise

    def _begun(
        self, supervisor: SupervisorClient, start: Start, payload: bytes, bounds: _Bounds
    ) -> Task:
        """Let a supervisor start a process, and register the task.

        An interruption before the wait then ends it.
        """
        with deferred():
            files = _Files(payload)
            supervisor.begin(self._job(start, bounds), files.fds)
            again = functools.partial(self._start_again, files, start, payload, bounds)
            task = Task(supervisor, files, bounds.timeout, self._done, again)
            register_open(task)
            return task

    @within(INTERNAL_OPERATION)
    def _start_again(
        self, files: _Files, start: Start, payload: bytes, bounds: _Bounds
    ) -> SupervisorClient:
        """Let a new supervisor start a job that the last one did not read."""
        with self._lock:
            supervisor = self._ready(start, payload)
            try:
                supervisor.begin(self._job(start, bounds), files.fds)
            except BaseException:
                self._drop(supervisor)
                raise
            return supervisor

    def _drop(self, supervisor: SupervisorClient) -> None:
        with deferred():
            supervisor.close()
            self._supervisors.discard(supervisor)

    def _drop_unused(self) -> None:
        """End supervisors that an interruption left unused."""
        with deferred():
            for supervisor in [
                supervisor
                for supervisor in self._supervisors
                if not supervisor.working and supervisor not in self._idle
            ]:
                self._drop(supervisor)

    @within(INTERNAL_OPERATION)
    def prepare(self) -> None:
        """Import everything that the next ``start`` would wait for.

        The first time, this takes seconds.
        """
        with self._lock:
            try:
                self._idle.append(self._ready(Start.here(), b""))
            except BaseException:
                self._drop_unused()
                raise

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        timeout: float | None = None,
        folders: Sequence[str] = (),
    ) -> ProcessResult:
        """Run ``function(*args)`` in a fresh process, and return its result. See ``start``."""
        return self.start(function, *args, timeout=timeout, folders=folders).wait()

    def stop(self) -> None:
        """End all processes, with the warm process. The next ``start`` begins again."""
        with deferred():
            with self._lock:
                for supervisor in self._supervisors:
                    supervisor.close()
                self._supervisors.clear()
                self._idle.clear()
            self._server.stop()

    def _ready(self, start: Start, payload: bytes) -> SupervisorClient:
        """Return a supervisor with all modules of this process that the function may need."""
        modules = self._modules
        if modules.look():
            self._server.preload(modules.libraries)
            for supervisor in self._idle:
                supervisor.close()
                self._supervisors.discard(supervisor)
            self._idle.clear()
        while True:
            if not self._idle:
                # The first time it takes seconds, and can be interrupted, unlike the code below.
                self._server.start()
            with deferred():
                is_new = not self._idle
                supervisor = (
                    SupervisorClient(self._server, modules.generation)
                    if is_new
                    else self._idle.pop()
                )
                self._supervisors.add(supervisor)
            if all(
                self._warmed(supervisor, start, wanted, is_new=is_new)
                for wanted in (modules.late, modules.wanted(payload))
            ):
                return supervisor
            self._drop(supervisor)

    def _job(self, start: Start, bounds: _Bounds) -> Job:
        return Job(
            start=start,
            files=self._modules.files,
            timeout=bounds.timeout,
            limits=bounds.limits,
            folders=bounds.folders,
            sources=tuple(self._modules.sources),
        )

    def _warmed(
        self, supervisor: SupervisorClient, start: Start, modules: Iterable[str], *, is_new: bool
    ) -> bool:
        """Let a supervisor import modules. Return False if it must not be used any more.

        In that case, each process imports the module that is the reason itself.
        """
        wanted = [
            name
            for name in modules
            if name not in supervisor.warm and name not in self._modules.unsafe
        ]
        if not wanted:
            return True
        try:
            unsafe = supervisor.import_there(start, self._modules.files, wanted)
        except OSError:  # it had ended before, so no module is the reason
            if is_new:
                self._modules.unsafe.update(wanted)
            return False
        if unsafe is not None:
            self._modules.unsafe.add(unsafe)
        return unsafe is None

    def _done(self, supervisor: SupervisorClient, learned: Sequence[Iterable[str]]) -> None:
        with self._lock:
            self._modules.learn(*learned)
            supervisor.working = False
            if supervisor.alive and supervisor.generation == self._modules.generation:
                self._idle.append(supervisor)
            else:
                supervisor.close()
                self._supervisors.discard(supervisor)

    def _forget(self) -> None:
        """Detach a forked child from the processes of its parent.

        They must not outlive the parent because a child holds their sockets.
        """
        self._lock = threading.RLock()
        for supervisor in self._supervisors:
            supervisor.socket.close()
        self._supervisors, self._idle = set(), []


@functools.cache
def fresh_processes() -> FreshProcesses:
    """Return the fresh processes of this session.

    The first ``start`` also starts the warm process.
    """
    return FreshProcesses(["cloudpickle"])


def _pickle_task(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    try:
        return dumps((function, args))
    except BadArgument as error:
        name = getattr(function, "__qualname__", type(function).__name__)
        raise BadArgument(
            f"{name} and its arguments cannot be sent to a fresh process: {error}"
        ) from None


class _Files:
    """The input and output files of a process, in memory if possible."""

    def __init__(self, payload: bytes) -> None:
        self.learned: Sequence[Iterable[str]] = ()
        self.fds = [_file() for _ in range(FDS_PER_PROCESS)]
        pending = memoryview(payload)
        while pending:
            pending = pending[os.write(self.fds[0], pending) :]

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    def ended(self, told: Any) -> ProcessResult:
        """Return the result from the files and from the supervisor's message."""
        messages = list(Inbox().feed(self._read(1)))
        said: dict[str, Any] = {name: rest for name, *rest in messages}
        self.learned = said.get("learned", ())
        if told is None:
            return ProcessResult(
                output=self._output(),
                stderr=_text(self._read(3)),
                started="its supervisor was killed, or does not answer",
            )
        _, code, hung, duration, left, exceeded = told
        heard = tuple(tuple(rest) for name, *rest in messages if name == "told")
        ended = ProcessResult(
            hung=hung,
            exitcode=code,
            output=self._output(),
            duration=duration,
            left=left,
            exceeded=exceeded,
            stderr=_text(self._read(3)),
            told=heard,
        )
        if hung:
            ended = dataclasses.replace(
                ended, stack=stack_dumps.main_thread(_text(self._read(4)), *said.get("hello", [0]))
            )
        if "unusable" in said:
            return dataclasses.replace(
                ended,
                started=f"the function does not load in a fresh process: {said['unusable'][0]}",
            )
        if "hello" not in said:
            return dataclasses.replace(
                ended, started=f"it ended before it called the function, with exit code {code}"
            )
        if "raised" in said:
            text, data, trace = said["raised"]
            return dataclasses.replace(ended, error=_error(text, data), traceback=trace)
        return _with_value(ended, *said.get("value", []))

    def _output(self) -> str:
        return _text(self._read(2)) + _text(self._read(3))

    def _read(self, which: int) -> bytes:
        fd, found, at = self.fds[which], [], 0
        while data := os.pread(fd, 1 << 24, at):
            found.append(data)
            at += len(data)
        return b"".join(found)


def _file() -> int:
    fd = nameless_file()
    import fcntl  # every system with os.fork has it

    # Several processes write to it: this one and its children.
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    return fd


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _error(text: str, data: bytes | None) -> BaseException:
    if data is not None:
        # This process may lack a module that the other one has imported.
        with contextlib.suppress(Exception):
            error = pickle.loads(data)
            if isinstance(error, BaseException):
                return error
    return child_error(text)


def _with_value(ended: ProcessResult, data: bytes | None = None) -> ProcessResult:
    if data is None:
        return ended
    try:
        return dataclasses.replace(ended, value=pickle.loads(data))
    except Exception as error:  # noqa: BLE001  # any __setstate__ may fail
        told = BadArgument(
            f"the function's return value cannot be loaded here: {error_text(error)}"
        )
        return dataclasses.replace(ended, error=told)
