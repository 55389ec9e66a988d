"""Fresh processes: a function runs in one that has imported the libraries and the user's modules, and has done nothing else.

They are forked from a warm process, which takes milliseconds where a new interpreter takes seconds for its imports.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..core.interrupts import deferred, register_open, unregister_open
from ..core.privacy import child_error, error_text
from ..engine.forks import nameless_file
from ..engine.scopes import INTERNAL_OPERATION, within
from ..errors import BadArgument, MlchaosError
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
"""Seconds, beyond a process' own time, until its supervisor is given up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """How a fresh process ended.

    ``value``: what the function returned. ``error``: what it raised (a ``ChildProcessError`` with its words where that cannot be
    unpickled here), with its ``traceback`` there as text. ``hung``: it was cut off by its timeout; then ``stack`` is where its main
    thread stood, the innermost frame first. ``exitcode``: as of any process, -9 where SIGKILL ended it. ``output``: its stdout, then its
    ``stderr``. ``duration``: s, real, from the fork to the end. ``left``: command lines, shortened, of processes that it left
    running; they have been ended (Linux: all of them; elsewhere nobody looks beyond its process group). ``started``: None, or why it did
    not come as far as the function. ``told``: the messages that it told by ``engine.processes.child.tell(*message)``, however it ended.
    """

    value: Any = None
    error: BaseException | None = None
    hung: bool = False
    exitcode: int | None = None
    output: str = ""
    stack: str = ""
    duration: float = 0.0
    left: tuple[str, ...] = ()
    started: str | None = None
    traceback: str = ""
    stderr: str = ""
    told: tuple[tuple[Any, ...], ...] = ()


class Task:
    """A function that runs in a fresh process. It ends within its timeout, whether somebody waits for it or not.

    ``again`` has a new supervisor start it: one that is killed can leave the job unread, and then nothing has begun.
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
        """For ``select``: something to read means that ``wait`` does not."""
        return self._supervisor.socket.fileno()

    def wait(self) -> ProcessResult:
        """How it ended, once it has. Whatever interrupts the wait (Ctrl-C) ends the process."""
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
        return self._supervisor.hear(None if self._timeout is None else self._timeout + SUPERVISOR_TIMEOUT_SECONDS)

    def __exit__(self, *_: object) -> None:
        """An interruption came between its start and the wait for it."""
        self.end()

    def end(self) -> None:
        """Kill it, and all that it has started, if it still runs."""
        if self._ended is None and self._supervisor.alive:
            self._again = None
            with contextlib.suppress(OSError):
                self._supervisor.socket.sendall(END)
            self.wait()


class FreshProcesses:
    """Runs functions in fresh processes; ``preload`` names modules to be imported before, besides those that are loaded here.

    A process starts with this process' environment, working directory, ``sys.path`` and ``sys.argv`` as they are at ``start``.
    No fault strikes there, and nothing that was patched here is patched there. It leaves by ``os._exit``, behind its threads that are no
    daemons and its ``atexit`` functions. When this process is gone, however that came, so are they.

    Imitates: a new process of the same program, behind its imports.
    Fidelity: what modules do when they are imported has been done once, for all: what they draw at random then is the same in
    each process. That goes, too, for libraries that an earlier process has imported on its way, unless that had changed its environment
    itself. Global random numbers are as the fork finds them: seed them. Libraries were loaded with one thread for their pools;
    torch gets as many as ``OMP_NUM_THREADS`` says, else one. ``PYTHONHASHSEED`` is 0. Assertions are plain ones, not pytest's.
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
        """Threads of the warm process (0: not known, or not started). With more than one, what is forked may hang: a library started it."""
        return self._server.threads

    @within(INTERNAL_OPERATION)
    def start(self, function: Callable[..., Any], *args: Any, timeout: float | None = None) -> Task:
        """Start ``function(*args)`` in a fresh process, for ``timeout`` seconds at most; several may run at once.

        Raises ``BadArgument`` for what cannot be sent to another process, ``MlchaosError`` where none can be started.
        """
        if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
            raise MlchaosError("fresh processes need os.fork, which this system does not have")
        payload = _pickle_task(function, args)
        start = Start.here()
        with self._lock:
            try:
                supervisor = self._ready(start, payload)
                try:
                    return self._begun(supervisor, start, payload, timeout)
                except OSError:  # its supervisor was killed: once more, with a new one
                    self._drop(supervisor)
                    return self._begun(self._ready(start, payload), start, payload, timeout)
            except BaseException:
                self._drop_unused()
                raise

    def _begun(self, supervisor: SupervisorClient, start: Start, payload: bytes, timeout: float | None) -> Task:
        """Have a supervisor start a process. The task is registered: an interruption before somebody waits for it ends it."""
        with deferred():
            files = _Files(payload)
            supervisor.begin(self._job(start, timeout), files.fds)
            again = functools.partial(self._start_again, files, start, payload, timeout)
            task = Task(supervisor, files, timeout, self._done, again)
            register_open(task)
            return task

    @within(INTERNAL_OPERATION)
    def _start_again(self, files: _Files, start: Start, payload: bytes, timeout: float | None) -> SupervisorClient:
        """Have a new supervisor start what the last one left unread."""
        with self._lock:
            supervisor = self._ready(start, payload)
            try:
                supervisor.begin(self._job(start, timeout), files.fds)
            except BaseException:
                self._drop(supervisor)
                raise
            return supervisor

    def _drop(self, supervisor: SupervisorClient) -> None:
        with deferred():
            supervisor.close()
            self._supervisors.discard(supervisor)

    def _drop_unused(self) -> None:
        """End the supervisors that an interruption took from whoever was to use them."""
        with deferred():
            for supervisor in [supervisor for supervisor in self._supervisors if not supervisor.working and supervisor not in self._idle]:
                self._drop(supervisor)

    @within(INTERNAL_OPERATION)
    def prepare(self) -> None:
        """Have all imported that the next ``start`` would wait for: seconds, the first time."""
        with self._lock:
            try:
                self._idle.append(self._ready(Start.here(), b""))
            except BaseException:
                self._drop_unused()
                raise

    def run(self, function: Callable[..., Any], *args: Any, timeout: float | None = None) -> ProcessResult:
        """Run ``function(*args)`` in a fresh process: see ``start``."""
        return self.start(function, *args, timeout=timeout).wait()

    def stop(self) -> None:
        """End all that runs, and the warm process. The next ``start`` begins anew."""
        with deferred():
            with self._lock:
                for supervisor in self._supervisors:
                    supervisor.close()
                self._supervisors.clear()
                self._idle.clear()
            self._server.stop()

    def _ready(self, start: Start, payload: bytes) -> SupervisorClient:
        """A supervisor that has imported what is loaded here and the function may need."""
        modules = self._modules
        if modules.look():
            self._server.preload(modules.libraries)
            for supervisor in self._idle:
                supervisor.close()
                self._supervisors.discard(supervisor)
            self._idle.clear()
        while True:
            if not self._idle:
                self._server.start()  # seconds, the first time: it can be interrupted, what follows cannot
            with deferred():
                supervisor = self._idle.pop() if self._idle else SupervisorClient(self._server, modules.generation)
                self._supervisors.add(supervisor)
            if all(self._warmed(supervisor, start, wanted) for wanted in (modules.late, modules.wanted(payload))):
                return supervisor
            self._drop(supervisor)

    def _job(self, start: Start, timeout: float | None) -> Job:
        return Job(start=start, files=self._modules.files, timeout=timeout, sources=tuple(self._modules.sources))

    def _warmed(self, supervisor: SupervisorClient, start: Start, modules: Iterable[str]) -> bool:
        """Whether a supervisor has these, and may be used on; where it may not, the next one leaves them to each process."""
        wanted = [name for name in modules if name not in supervisor.warm and name not in self._modules.unsafe]
        with contextlib.suppress(OSError):  # a module ended it, as os._exit does
            if not wanted or supervisor.import_there(start, self._modules.files, wanted):
                return True
        self._modules.unsafe.update(wanted)
        return False

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
        """In a forked child: the processes are the parent's, and must not outlive it because a child holds their sockets."""
        self._lock = threading.RLock()
        for supervisor in self._supervisors:
            supervisor.socket.close()
        self._supervisors, self._idle = set(), []


@functools.cache
def fresh_processes() -> FreshProcesses:
    """Those of this session; the warm process is started when the first is."""
    return FreshProcesses(["cloudpickle"])


def _pickle_task(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    try:
        return dumps((function, args))
    except BadArgument as error:
        name = getattr(function, "__qualname__", type(function).__name__)
        raise BadArgument(f"{name} and its arguments cannot be sent to a fresh process: {error}") from None


class _Files:
    """What a process is given, and writes to: files in memory, where there are such."""

    def __init__(self, payload: bytes) -> None:
        self.learned: Sequence[Iterable[str]] = ()
        self.fds = [_file() for _ in range(FDS_PER_PROCESS)]
        pending = memoryview(payload)
        while pending:
            pending = pending[os.write(self.fds[0], pending) :]

    def close(self) -> None:
        """They are gone."""
        while self.fds:
            os.close(self.fds.pop())

    def ended(self, told: Any) -> ProcessResult:
        """What they say, and what the supervisor says."""
        messages = list(Inbox().feed(self._read(1)))
        said: dict[str, Any] = {name: rest for name, *rest in messages}
        self.learned = said.get("learned", ())
        if told is None:
            return ProcessResult(
                output=self._output(), stderr=_text(self._read(3)), started="the process that kept it was killed, or does not answer"
            )
        _, code, hung, duration, left = told
        heard = tuple(tuple(rest) for name, *rest in messages if name == "told")
        ended = ProcessResult(
            hung=hung, exitcode=code, output=self._output(), duration=duration, left=left, stderr=_text(self._read(3)), told=heard
        )
        if hung:
            ended = dataclasses.replace(ended, stack=stack_dumps.main_thread(_text(self._read(4)), *said.get("hello", [0])))
        if "unusable" in said:
            return dataclasses.replace(ended, started=f"the function does not load in a fresh process: {said['unusable'][0]}")
        if "hello" not in said:
            return dataclasses.replace(ended, started=f"it ended before it began, with exit code {code}")
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
    import fcntl  # where there is os.fork, there is this

    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)  # several write to it: the process, and those that it starts
    return fd


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _error(text: str, data: bytes | None) -> BaseException:
    if data is not None:
        with contextlib.suppress(Exception):  # it has been unpickled there, but this process may lack what that one has imported
            error = pickle.loads(data)
            if isinstance(error, BaseException):
                return error
    return child_error(text)


def _with_value(ended: ProcessResult, data: bytes | None = None) -> ProcessResult:
    if data is None:
        return ended
    try:
        return dataclasses.replace(ended, value=pickle.loads(data))
    except Exception as error:  # noqa: BLE001  # whatever a foreign __setstate__ raises
        told = BadArgument(f"what the function returned does not load here: {error_text(error)}")
        return dataclasses.replace(ended, error=told)
