"""Fork one pytest per request from a process that has imported what takes seconds to import.

The demo and the tests use it. A forked pytest has a few large libraries loaded, and nothing else of
an earlier run. pytest itself, Hypothesis and pytest-mlchaos must not be among these libraries: pytest
rewrites the asserts of a plugin while it is imported.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent


class WarmPytest:
    """The client: starts the process at the first request, and ends it with ``close``.

    Args:
        modules: What the process imports before it forks. What is not installed is left out.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._connection: socket.socket | None = None

    def run(
        self, args: list[str], folder: Path, environment: Mapping[str, str]
    ) -> tuple[int, str, str]:
        """Run pytest in ``folder``. Return its exit code, its output and its errors."""
        if self._connection is None:
            self._connection = self._start()
        with tempfile.TemporaryDirectory() as temporary, self._connection.makefile("rw") as lines:
            files = [os.path.join(temporary, name) for name in ("stdout", "stderr")]
            request = {
                "args": args,
                "folder": str(folder),
                "environment": dict(environment),
                "files": files,
            }
            lines.write(json.dumps(request) + "\n")
            lines.flush()
            exit_code = int(lines.readline())
            out, err = (Path(name).read_text(encoding="utf-8", errors="replace") for name in files)
        return exit_code, out, err

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [
                sys.executable,
                "-m",
                "examples.warm_pytest",
                str(theirs.fileno()),
                *self._modules,
            ]
            subprocess.run(
                command, pass_fds=[theirs.fileno()], cwd=ROOT, stdin=subprocess.DEVNULL, check=True
            )
        return ours

    def close(self) -> None:
        """End the process: it reads the end of its requests."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _serve(requests: socket.socket) -> dict | None:
    """Fork for each request. Return it in the forked process, or None when no request is left."""
    with requests, requests.makefile("r") as lines, requests.makefile("w") as answers:
        for line in lines:
            pid = os.fork()
            if pid == 0:
                return json.loads(line)
            _, status = os.waitpid(pid, 0)
            answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
            answers.flush()
    return None


def _become_pytest(request: dict) -> None:
    """Do what ``python -m pytest`` does in a new process with this folder, these variables and
    these files.
    """
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, name in enumerate(request["files"], start=1):
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(fd, number)
        os.close(fd)
    sys.argv = ["pytest", *request["args"]]
    sys.path[0] = request["folder"]
    sys.modules.pop("examples", None)  # a project may have a package with this name
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # a test process with a child does not get the virtual clock
    for module in sys.argv[2:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.freeze()  # the forked processes share memory that none of them writes to
    if (asked := _serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        _become_pytest(asked)
