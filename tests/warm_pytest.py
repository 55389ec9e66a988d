"""A process that forks one pytest per request, so that what takes seconds to import is imported once.

``Example.run(fresh=True)`` asks it. The forked pytest has the modules of ``WARM`` loaded, and nothing else of an earlier test. The
package itself, Hypothesis and pytest are not among them: pytest rewrites the asserts of a plugin while it is imported.
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
from pathlib import Path

WARM = ("torch", "torch.utils.data", "torch._dynamo", "pandas", "pyarrow.parquet", "scipy.stats", "cv2", "cloudpickle")


class WarmPytest:
    """The client: starts the process at the first request, and ends it with ``close``."""

    def __init__(self) -> None:
        self._connection: socket.socket | None = None

    def run(self, args: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
        """Run pytest in ``folder``. Return its exit code and its output, stderr last."""
        if self._connection is None:
            self._connection = self._start()
        files = [str(folder / name) for name in ("stdout", "stderr")]
        request = {"args": args, "folder": str(folder), "environment": environment, "files": files}
        with self._connection.makefile("rw") as lines:
            lines.write(json.dumps(request) + "\n")
            lines.flush()
            exit_code = int(lines.readline())
        return exit_code, "".join(Path(name).read_text(errors="replace") for name in files)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.warm_pytest", str(theirs.fileno())]
            subprocess.run(command, pass_fds=[theirs.fileno()], cwd=Path(__file__).parent.parent, stdin=subprocess.DEVNULL, check=True)
        return ours

    def close(self) -> None:
        """End the process: it reads the end of its requests."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _serve(requests: socket.socket) -> dict | None:
    """Fork for each request. Return it in the forked process, and None when there are no more."""
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
    """Do what ``python -m pytest`` does in a new process with this folder, these variables and these files."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, name in enumerate(request["files"], start=1):
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(fd, number)
        os.close(fd)
    sys.argv = ["pytest", *request["args"]]
    sys.path[0] = request["folder"]
    del sys.modules["tests"]  # a project may have a package of this name
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # a test process with a child does not get the virtual clock
    for module in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.freeze()  # the forked processes share what is not written to
    if (asked := _serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        _become_pytest(asked)
