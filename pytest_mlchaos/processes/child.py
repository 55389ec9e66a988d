"""What a forked process does at its start and at its end, so that it is one as a shell would have started it."""

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
from ..engine.user_code import PACKAGE, Project, current_project, set_project
from .messages import Outbox
from .process_tree import children
from .subject_pickling import SameFiles, dumps

__all__ = ["STACK_SIGNAL", "Start", "become", "exit_code", "join_threads", "leave", "pack_error", "print_error", "tell"]

STACK_SIGNAL = getattr(signal, "SIGRTMAX", getattr(signal, "SIGUSR2", 0)) - (2 if hasattr(signal, "SIGRTMAX") else 0)
"""Makes such a process write where it stands; one that no scheduler sends."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What a process starts with: the runner's own, where nothing else is said."""

    environment: Mapping[str, str]
    directory: str
    sys_path: Sequence[str]
    argv: Sequence[str]
    write_bytecode: bool
    project: Project
    show_values: bool

    @classmethod
    def here(cls) -> Start:
        """As this process is now."""
        return cls(
            environment=dict(os.environ),
            directory=os.getcwd(),
            sys_path=[os.path.abspath(path) for path in sys.path],
            argv=list(sys.argv),
            write_bytecode=not sys.dont_write_bytecode,
            project=current_project(),
            show_values=shows_values(),
        )


def become(start: Start, files: SameFiles, out: int, err: int, stacks: int) -> None:
    """Make this forked process one that starts with ``start``, writes to ``out`` and ``err``, and its stacks to ``stacks``."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _inherited.append(_newest_finalizer())
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc,assignment]  # the old ones belong to the warm process
    sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc,assignment]
    faulthandler.enable(2)
    if STACK_SIGNAL:
        faulthandler.register(STACK_SIGNAL, file=stacks, all_threads=True)
    os.environ.clear()
    os.environ.update(start.environment)
    os.chdir(start.directory)
    sys.path[:], sys.argv[:], sys.dont_write_bytecode = start.sys_path, start.argv, not start.write_bytecode
    show_values(start.show_values)
    if files not in sys.meta_path:
        sys.meta_path.insert(0, files)
    set_project(start.project)
    _use_threads(os.environ.get("OMP_NUM_THREADS", ""))


def _stream(fd: int) -> TextIO:
    """A text stream that has written each line before the process can be killed."""
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _use_threads(number: str) -> None:
    """As many as the environment says: the warm process, where torch has read it, has one."""
    number, torch = number.partition(",")[0], sys.modules.get("torch")
    if torch is not None and number.isdecimal() and 0 < int(number) != torch.get_num_threads():
        torch.set_num_threads(int(number))


def pack_error(error: BaseException) -> tuple[str, bytes | None]:
    """As ``remote_state.pack_error``, for classes that pickle alone cannot send."""
    return remote_state.pack_error(error, dumps)


def print_error(error: BaseException) -> str:
    """Write the traceback to stderr, from the first frame on that is not ours; return it as it may be shown."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(PACKAGE):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace or error.__traceback__))
    print(text, end="", file=sys.stderr)  # noqa: T201  # what the interpreter does
    return traceback_text(error, trace or error.__traceback__)


def exit_code(stop: SystemExit) -> int:
    """What the process exits with."""
    if stop.code is None or isinstance(stop.code, int):
        return (stop.code or 0) & 0xFF
    print(stop.code, file=sys.stderr)  # noqa: T201  # what the interpreter does
    return 1


_inherited: list[int] = []
"""Finalizers up to this number belong to the warm process."""
_forgotten: list[Any] = []


def _newest_finalizer() -> int:
    return max((info.index for info in _finalizers(1)), default=-1)


def _finalizers(most: int | None = None) -> Iterator[Any]:
    """What ``weakref.finalize`` has registered, the newest first."""
    registry = getattr(weakref.finalize, "_registry", {})
    return itertools.islice(reversed(registry.values()), most)


def _forget_inherited_finalizers() -> None:
    """There are thousands, which took 30 ms; and a temporary directory of the warm process' is not this one's to remove."""
    registry = getattr(weakref.finalize, "_registry", {})
    _forgotten.append(registry)  # to free it is to copy the pages that they are in
    own = itertools.takewhile(lambda item: item[1].index > _inherited[-1], reversed(registry.items()))
    weakref.finalize._registry = dict(reversed(list(own)))  # type: ignore[attr-defined]


def tell(*message: Any) -> None:
    """Tell the runner, from a fresh process; it has been told when this returns, however the process ends. Elsewhere nobody hears it."""
    if home:
        home[-1]("told", *message)


home: list[Outbox] = []
"""Where a fresh process tells what happens."""


def join_threads() -> None:
    """Wait for the threads that are no daemons, as the interpreter does when the main thread is done."""
    with contextlib.suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]  # it knows of idle workers, too


def leave(code: int, waiting: socket.socket | None = None) -> NoReturn:
    """What the interpreter does at its end, and no more: the forked copies of others' objects are not finalised.

    ``waiting`` is told the code when nothing more can happen: until the kernel has taken the process apart takes some 10 ms.
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
        if waiting is not None and sys.platform == "linux" and threading.active_count() == 1 and not children():
            waiting.send(bytes([code]))
    finally:
        os._exit(code)
