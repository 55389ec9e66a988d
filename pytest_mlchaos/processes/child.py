"""Set up a forked process, and end it, so that it behaves like one that a shell has started."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import faulthandler
import itertools
import os
import signal
import socket
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, TextIO

from ..core.privacy import show_values, shows_values, traceback_text
from ..engine import remote_state
from ..engine.start_hook import without_hook
from ..engine.user_code import PACKAGE, Project, current_project, set_project
from .messages import Outbox
from .process_tree import children
from .subject_pickling import SameFiles, dumps

__all__ = [
    "PROCESS_EVENT",
    "STACK_SIGNAL",
    "Start",
    "become",
    "exit_code",
    "join_threads",
    "leave",
    "pack_error",
    "print_error",
    "tell",
]

STACK_SIGNAL = getattr(signal, "SIGRTMAX", getattr(signal, "SIGUSR2", 0)) - (
    2 if hasattr(signal, "SIGRTMAX") else 0
)
"""The signal that makes such a process write its stacks. No scheduler sends it."""

PROCESS_EVENT = "mlchaos.process"
"""The audit event before a function is run in a different process, also in one that exists."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """The initial state of a process. By default it is the runner's own."""

    environment: Mapping[str, str]
    directory: str
    sys_path: Sequence[str]
    argv: Sequence[str]
    write_bytecode: bool
    project: Project
    show_values: bool

    @classmethod
    def here(cls) -> Start:
        """Return the state of this process, for a process that is about to start."""
        sys.audit(PROCESS_EVENT)
        return cls(
            environment=without_hook(os.environ),
            directory=os.getcwd(),
            sys_path=[os.path.abspath(path) for path in sys.path],
            argv=list(sys.argv),
            write_bytecode=not sys.dont_write_bytecode,
            project=current_project(),
            show_values=shows_values(),
        )


def become(start: Start, files: SameFiles, out: int, err: int, stacks: int) -> None:
    """Set up this forked process with ``start``.

    Args:
        start: The initial state.
        files: The finder of the user's modules.
        out: The descriptor for stdout.
        err: The descriptor for stderr.
        stacks: The descriptor for dumps of the stacks.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _inherited.append(_newest_finalizer())
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(out, 1)
    os.dup2(err, 2)
    # The old ones belong to the warm process
    sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc,assignment]
    sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc,assignment]
    faulthandler.enable(2)
    if STACK_SIGNAL:
        faulthandler.register(STACK_SIGNAL, file=stacks, all_threads=True)
    os.environ.clear()
    os.environ.update(start.environment)
    os.chdir(start.directory)
    sys.path[:], sys.argv[:], sys.dont_write_bytecode = (
        start.sys_path,
        start.argv,
        not start.write_bytecode,
    )
    show_values(start.show_values)
    if files not in sys.meta_path:
        sys.meta_path.insert(0, files)
    set_project(start.project)
    _use_threads(os.environ.get("OMP_NUM_THREADS", ""))


def _stream(fd: int) -> TextIO:
    """Return a text stream that writes each line at once.

    No line is lost if the process is killed.
    """
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _use_threads(number: str) -> None:
    """Use the number of threads that the environment sets.

    In the warm process, torch has only one.
    """
    number, torch = number.partition(",")[0], sys.modules.get("torch")
    if torch is not None and number.isdecimal() and 0 < int(number) != torch.get_num_threads():
        torch.set_num_threads(int(number))


def pack_error(error: BaseException) -> tuple[str, bytes | None]:
    """Do the same as ``remote_state.pack_error``, with cloudpickle if it is needed."""
    return remote_state.pack_error(error, dumps)


def print_error(error: BaseException) -> str:
    """Print the traceback to stderr, without our frames at its start.

    Return it in the form that may be shown.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(PACKAGE):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace or error.__traceback__))
    print(text, end="", file=sys.stderr)  # noqa: T201  # the interpreter does the same
    return traceback_text(error, trace or error.__traceback__)


def exit_code(stop: SystemExit) -> int:
    """Return the exit code of the process."""
    if stop.code is None or isinstance(stop.code, int):
        return (stop.code or 0) & 0xFF
    print(stop.code, file=sys.stderr)  # noqa: T201  # the interpreter does the same
    return 1


_inherited: list[int] = []
"""Finalizers up to this number belong to the warm process."""
_forgotten: list[Any] = []


def _newest_finalizer() -> int:
    return max((info.index for info in _finalizers(1)), default=-1)


def _finalizers(most: int | None = None) -> Iterator[Any]:
    """Return the entries of ``weakref.finalize``, the newest first."""
    registry = getattr(weakref.finalize, "_registry", {})
    return itertools.islice(reversed(registry.values()), most)


def _forget_inherited_finalizers() -> None:
    """Drop the finalizers of the warm process.

    There are thousands, which took 30 ms. They would also remove temporary directories of the warm
    process.
    """
    registry = getattr(weakref.finalize, "_registry", {})
    # Freeing the registry would copy the memory pages that it is in.
    _forgotten.append(registry)
    own = itertools.takewhile(
        lambda item: item[1].index > _inherited[-1], reversed(registry.items())
    )
    weakref.finalize._registry = dict(reversed(list(own)))  # type: ignore[attr-defined]


def tell(*message: object) -> None:
    """Send a message from a fresh process to the runner. Do nothing in other processes.

    The message has left the process when this returns, so it arrives even if the process is killed
    afterwards.
    """
    if home:
        home[-1]("told", *message)


home: list[Outbox] = []
"""The outbox of a fresh process."""


def join_threads() -> None:
    """Wait for the threads that are not daemons, as the interpreter does at its end."""
    with contextlib.suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]  # it includes idle workers of pools


def leave(code: int, waiting: socket.socket | None = None) -> NoReturn:
    """End the process as the interpreter does, without finalizing the warm process's objects.

    Args:
        code: The exit code.
        waiting: A socket that receives the code as soon as nothing more can happen. The kernel
            needs some 10 ms more to remove the process.
    """
    try:
        with contextlib.suppress(Exception):
            join_threads()
            if _inherited:
                _forget_inherited_finalizers()
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        if (
            waiting is not None
            and sys.platform == "linux"
            and threading.active_count() == 1
            and not children()
        ):
            waiting.send(bytes([code]))
    finally:
        os._exit(code)
