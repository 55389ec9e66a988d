"""Run the supervisor of fresh processes.

It is forked from the warm process, forks them one after the other, and cleans up after each.

The runner has one supervisor for each process that runs at a time. Each adopts the orphans of its
own processes, so these can be told apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import linecache
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType
from typing import Any, NoReturn

from ..core.limits import NO_LIMITS, Limits
from ..core.privacy import error_text
from ..engine import virtual_time
from ..engine.module_names import names
from ..errors import BadArgument
from .child import STACK_SIGNAL, Start, become, exit_code, home, leave, pack_error, print_error
from .fork_server import import_if_possible, share_objects
from .huge_pages import HugePages
from .imported_modules import LateImports
from .limit_watch import LimitWatch
from .messages import Outbox, read_message, write_message
from .process_tree import (
    adopt_orphans,
    children,
    descendants,
    die_with_parent,
    end_all,
    process_name,
    reap,
    threads,
)
from .subject_pickling import SameFiles, dumps

__all__ = ["END", "ENTRY", "FDS_PER_PROCESS", "JOB", "WARM", "Job", "main"]

ENTRY = f"{__name__}:main"
"""The function that the warm process runs in a supervisor."""
JOB = b"j"
"""A request of the runner: a job follows, with its files."""
WARM = b"w"
"""A request of the runner: modules to import follow."""
END = b"e"
"""A request of the runner: end the running process."""
FDS_PER_PROCESS = 5
"""The number of file descriptors per process: job, messages, output, errors, stacks.

These are files, not pipes, so the process never waits for a reader.
"""
EXIT_GRACE_SECONDS = 0.5
"""The time limit for processes that end by themselves after the main one.

Examples are a resource tracker and a pool's workers.
"""
STACK_IDLE_SECONDS = 0.03
"""The time without new output after which a stack dump counts as complete."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """The initial state of a fresh process, and its time limit.

    Attributes:
        start: The initial state.
        files: The finder of the user's modules. None if the supervisor has it already.
        timeout: The time limit in seconds, or None.
        sources: Source files of which earlier processes have read lines, for tracebacks and
            warnings. They are read in advance.
        limits: The limits of the run.
        folders: The directories that count for ``limits.disk``.
    """

    start: Start
    files: SameFiles | None
    timeout: float | None
    sources: Sequence[str] = ()
    limits: Limits = NO_LIMITS
    folders: Sequence[str] = ()


def main(fds: Sequence[int]) -> NoReturn:
    """Supervise fresh processes until the other end of the socket, ``fds[0]``, is closed."""
    code = 1
    try:
        with socket.socket(fileno=fds[0]) as control:
            _ProcessSupervisor(control).serve()
        code = 0
    finally:
        end_all()
        os._exit(code)


class _ConnectionClosed(Exception):  # not an error
    """The runner has ended, or does not need this supervisor any more."""


class _ProcessSupervisor:
    """Supervise one process at a time.

    The next process is forked in advance, while the runner looks at the result of the last one. It
    waits for its job.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._files = SameFiles({})
        self._exits: dict[int, int] = {}
        self._next: tuple[int, socket.socket] | None = None
        self._settled = False
        self._sources = 0
        self._pages = HugePages()
        os.setsid()
        adopt_orphans()
        self._woken, wake = os.pipe()
        for fd in (self._woken, wake):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)

    def serve(self) -> None:
        """Handle the runner's requests until it closes the socket."""
        with contextlib.suppress(_ConnectionClosed, ConnectionError):
            while True:
                what, fds, _, _ = socket.recv_fds(self._control, 1, FDS_PER_PROCESS)
                if what == WARM:
                    self._warm(*self._message())
                elif what == JOB:
                    job = self._message()
                    for fd in fds:
                        os.set_inheritable(fd, False)
                    try:
                        self._keep(job, fds)
                    finally:
                        for fd in fds:
                            os.close(fd)
                elif not what:
                    return

    def _message(self) -> Any:
        message = read_message(self._control.recv)
        if message is None:
            raise _ConnectionClosed
        return message

    def _tell(self, *message: object) -> None:
        write_message(self._control.fileno(), message)

    def _warm(self, start: Start, files: SameFiles, modules: Sequence[str]) -> None:
        """Import the user's modules once.

        Stop at one that starts a thread, and report it, because then this process must not fork.
        """
        before = threads()
        self._drop()
        self._settled = False
        self._use(files)
        os.environ.clear()
        os.environ.update(start.environment)
        with contextlib.suppress(OSError):
            os.chdir(start.directory)
        sys.path[:], sys.argv[:], sys.dont_write_bytecode = (
            start.sys_path,
            start.argv,
            not start.write_bytecode,
        )
        for name in modules:
            self._tell("imports", name)
            import_if_possible(name)
            if threads() > before:
                self._tell("warm", name)
                return
        share_objects()
        self._tell("warm", None)

    def _use(self, files: SameFiles) -> None:
        if self._files in sys.meta_path:
            sys.meta_path.remove(self._files)
        self._files = files
        sys.meta_path.insert(0, files)

    # -- one process -------------------------------------------------------------------------------

    def _keep(self, job: Job, fds: Sequence[int]) -> None:
        if job.files is not None:
            self._drop()
            self._use(job.files)
        if len(job.sources) != self._sources:
            self._drop()
            self._sources = len(job.sources)
            for file in job.sources:
                linecache.getlines(file)
        self._exits.clear()
        begun = time.monotonic()
        pid, waiting = self._next or self._forked()
        self._next = None
        with waiting:
            with contextlib.suppress(OSError):  # it has been killed, which its exit code shows
                socket.send_fds(waiting, [JOB], list(fds))
                write_message(waiting.fileno(), job)
            limits = LimitWatch(job.limits, pid, job.folders)
            deadline = None if job.timeout is None else begun + job.timeout
            hung, exceeded, code = self._watch(pid, waiting, deadline, fds[-1], limits)
        duration = time.monotonic() - begun
        left: tuple[str, ...] = ()
        if code is None:
            code = os.waitstatus_to_exitcode(self._exits[pid])
            left = self._left(0.0 if hung or code < 0 else EXIT_GRACE_SECONDS)
        self._tell("ended", code, hung, duration, left, exceeded)
        self._next = self._forked()

    def _forked(self) -> tuple[int, socket.socket]:
        """Fork a process that waits for its job at the other end of the returned socket."""
        if not self._settled:
            virtual_time.settle()
            # A process that replaces some of them then finds their names without a search, which
            # would copy the memory pages of all modules.
            names.find([one for one in vars(os).values() if type(one) is BuiltinFunctionType])
            self._settled = True
        self._pages.before_fork()
        ours, theirs = socket.socketpair()
        supervisor, pid = os.getpid(), os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            os.setpgid(0, 0)
            die_with_parent(supervisor)
            for end in (ours, self._control):
                end.close()
            os.close(self._woken)
            _wait(theirs, self._files)
        theirs.close()
        # Parent and child both set it, so that it is set before either continues.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid, ours

    def _drop(self) -> None:
        """End the waiting process, because it lacks something by now."""
        if self._next is not None:
            pid, waiting = self._next
            self._next = None
            _kill(pid)
            waiting.close()
            end_all([pid])

    def _ended(self, pid: int, status: int) -> None:
        self._exits[pid] = status

    def _watch(
        self,
        pid: int,
        waiting: socket.socket,
        deadline: float | None,
        stacks: int,
        limits: LimitWatch,
    ) -> tuple[bool, str, int | None]:
        """Wait for the end of the process.

        Return True if it reached its deadline, the limit that it exceeded, and its exit code.

        The code is None unless the process has sent it and leaves no children.
        """
        hung, exceeded = False, ""
        woken_by = [self._control.fileno(), self._woken, waiting.fileno()]
        while reap(self._ended) and pid not in self._exits:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                hung, deadline = True, None
                self._ask(pid, stacks)
                _kill(pid)
                continue
            ready, _, _ = select.select(woken_by, [], [], left if exceeded else limits.wait(left))
            if not exceeded and (exceeded := limits.exceeded()):
                _kill(pid)
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
            if self._control.fileno() in ready:
                if self._control.recv(1) != END:
                    raise _ConnectionClosed
                _kill(pid)
            elif waiting.fileno() in ready:
                with contextlib.suppress(OSError):  # it was killed before it read its job
                    if told := waiting.recv(1):
                        return hung, exceeded, told[0]
                woken_by.remove(waiting.fileno())
        return hung, exceeded, None

    def _ask(self, pid: int, stacks: int) -> None:
        """Let the process write its stacks, and wait until they are complete."""
        if not STACK_SIGNAL:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, STACK_SIGNAL)
        size, until = -1, time.monotonic() + 20 * STACK_IDLE_SECONDS
        while time.monotonic() < until:
            now = os.fstat(stacks).st_size
            if now == size > 0:
                return
            size = now
            time.sleep(STACK_IDLE_SECONDS)

    def _left(self, grace: float) -> tuple[str, ...]:
        """End all processes that the main one left running, and return their names."""
        until = time.monotonic() + grace
        while reap() and children() and time.monotonic() < until:
            time.sleep(0.002)
        left = tuple(process_name(pid) for pid in descendants())
        end_all()
        return left


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


# -- in the fresh process --------------------------------------------------------------------------


def _wait(supervisor: socket.socket, files: SameFiles) -> NoReturn:
    """Wait for the job and run it. End this process if there is none."""
    try:
        _, fds, _, _ = socket.recv_fds(supervisor, 1, FDS_PER_PROCESS)
        job = read_message(supervisor.recv)
        for fd in fds:
            os.set_inheritable(fd, False)
    except BaseException:  # noqa: BLE001  # the supervisor has ended
        os._exit(1)
    if job is None:
        os._exit(1)
    _run(supervisor, job, files, *fds)


def _run(
    supervisor: socket.socket,
    job: Job,
    files: SameFiles,
    todo: int,
    messages: int,
    out: int,
    err: int,
    stacks: int,
) -> NoReturn:
    """Run the job in this fresh process, and end it."""
    code = 1
    try:
        send = Outbox(messages)
        home.append(send)
        send("hello", threading.get_ident())
        try:
            become(job.start, files, out, err, stacks)
            os.close(out)
            os.close(err)
            late, known = LateImports(), set(linecache.cache)
            function, args = _load_task(todo)
        except BaseException as error:  # noqa: BLE001  # any of the user's modules may fail
            send("unusable", f"{error_text(error)}")
            traceback.print_exc()
        else:
            code = _call(send, function, args)
            send(
                "learned", late.imported(), [file for file in linecache.cache if file not in known]
            )
    except BaseException:  # noqa: BLE001  # the process ends here, with a traceback like any other
        traceback.print_exc()
    finally:
        leave(code, supervisor)


def _load_task(todo: int) -> Any:
    with open(todo, "rb", closefd=False) as file:
        file.seek(0)
        return pickle.load(file)  # the runner's own bytes


def _call(send: Outbox, function: Callable[..., Any], args: Sequence[Any]) -> int:
    try:
        value = function(*args)
    except SystemExit as stop:
        send("raised", *pack_error(stop), "")
        return exit_code(stop)
    except BaseException as error:  # noqa: BLE001  # it ends this process like any other
        send("raised", *pack_error(error), print_error(error))
        return 1
    try:
        send("value", dumps(value))
    except BadArgument as error:
        told = BadArgument(
            f"the function's return value ({type(value).__name__}) cannot be sent back from its "
            f"process: {error}"
        )
        send("raised", *pack_error(told), "")
    return 0
