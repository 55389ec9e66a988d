"""Fork one pytest per share from a process that has imported what takes seconds to import.

``python -m pytest_mlchaos.cluster.warm_process FD``: the requests and answers are lines of JSON on
this socket. The process ends when the socket closes, and ends a running pytest with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..processes.process_tree import adopt_orphans, die_with_parent, end_all
from ..processes.safe_imports import SafeImports

__all__ = ["CANCEL", "GRACE_SECONDS", "POOLS", "serve"]

POOLS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)
"""The variables that keep libraries from starting threads when they are imported.

A forked process would lack these threads.
"""
CANCEL = b"\n"
"""The request to end the running share. The process is warm for the next one."""
GRACE_SECONDS = 5.0
"""The time that a pytest has to end after an interruption."""
_HARNESS = {"pytest", "_pytest", "pluggy", "iniconfig", "hypothesis", "coverage", "pytest_mlchaos"}
"""Packages that each pytest imports anew. pytest rewrites the asserts of a plugin at its import."""


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Return it in the forked process, or None when no request is left."""
    tried: set[str] = set()
    ended = _wake_at_end_of_child()
    adopt_orphans()
    with requests, requests.makefile("r") as lines:
        for line in lines:
            if not line.strip():
                continue  # the share had ended when it was cancelled
            request = json.loads(line)
            learned, told = os.pipe()
            parent, pid = os.getpid(), os.fork()
            if pid == 0:
                os.close(learned)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                die_with_parent(parent)
                os.setpgid(0, 0)
                return {**request, "told": told}
            os.close(told)
            exit_code = _await(pid, requests, ended)
            end_all()  # what it has started and left
            if exit_code is None:
                break
            with open(learned, encoding="utf-8") as pipe:
                names = [name for name in pipe.read().split() if name not in tried]
            requests.sendall(f"{exit_code}\n".encode())
            if names:  # while the runner reads the result of the share
                tried.update(names)
                _import(names, request["environment"])
    return None


def _wake_at_end_of_child() -> int:
    """Return a file descriptor that can be read after a child has ended."""
    ended, woken = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    return ended


def _await(pid: int, requests: socket.socket, ended: int) -> int | None:
    """Return the exit code of a pytest, or None if the socket closes before it ends.

    A line that comes meanwhile cancels the share. Both interrupt the pytest, so that it undoes what
    it did.
    """
    until, is_open = None, True
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status) if is_open else None
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return -signal.SIGKILL if is_open else None  # the caller kills it
        watched: list[int | socket.socket] = [ended, requests] if is_open else [ended]
        ready, _, _ = select.select(watched, [], [], left)
        if ended in ready:
            os.read(ended, 1 << 10)
        if requests in ready:
            is_open = bool(requests.recv(len(CANCEL)))
            if until is None:
                until = time.monotonic() + GRACE_SECONDS
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGINT)


def _import(names: Sequence[str], environment: Mapping[str, str]) -> None:
    """Import the libraries that the last pytest had to import, if a fork cannot tell."""
    SafeImports({**environment, **dict.fromkeys(POOLS, "1")}, own=()).run(names)
    gc.collect()
    gc.freeze()  # the forked processes share memory that none of them writes to


def _become_pytest(request: dict[str, Any]) -> int:
    """Do what ``python -m pytest`` does in a new process. Return its exit code."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pytest_mlchaos"]:
        del sys.modules[name]
    before = set(sys.modules)
    sys.argv = ["pytest", *request["arguments"]]
    sys.path[0] = request["folder"]
    try:
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    with os.fdopen(request["told"], "w", encoding="utf-8") as pipe, contextlib.suppress(OSError):
        pipe.write(" ".join(_libraries(before)))
    return code


def _libraries(before: set[str]) -> list[str]:
    """Return the installed packages that were imported, in the order of import."""
    folders = tuple(
        os.path.dirname(os.path.dirname(str(module.__file__)))
        for module in (sys.modules.get("pytest"), sys.modules.get("_pytest"))
        if module is not None
    )
    plugins = {
        point.value.partition(":")[0].partition(".")[0]
        for point in importlib.metadata.entry_points(group="pytest11")
    }
    return [
        name
        for name, module in list(sys.modules.items())
        if "." not in name
        and name not in before | plugins | _HARNESS
        and str(getattr(module, "__file__", None) or "").startswith(folders)
    ]


def main() -> int:
    """Serve, and become a pytest in each forked process."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    request = serve(requests)
    return 0 if request is None else _become_pytest(request)


if __name__ == "__main__":
    sys.exit(main())
