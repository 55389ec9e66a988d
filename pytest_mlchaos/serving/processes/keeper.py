"""Run one server below a process that ends it, whatever happens to the test.

The keeper adopts all processes that the server leaves (Linux). It kills them when it is told to
end, and when its socket closes: the test's process has then ended, in whatever way.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from typing import Any

from ...processes.messages import Inbox, write_message
from ...processes.process_tree import adopt_orphans, children, die_with_parent, end_all

__all__ = ["ENTRY", "main"]

ENTRY = f"import sys; from {__name__} import main; main(int(sys.argv[1]))"
"""The program of a keeper. Its argument is the descriptor of its socket."""
POLL_SECONDS = 0.02


def main(fd: int) -> None:
    """Start the server that the first message describes, and obey until the socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    adopt_orphans()
    home = socket.socket(fileno=fd)
    try:
        _Keeper(home).run()
    finally:
        end_all()
        os._exit(0)


class _Keeper:
    """Start one server, pass signals on to it, and tell when it ends."""

    def __init__(self, home: socket.socket) -> None:
        self._home = home
        self._inbox = Inbox()
        self._server: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._home], [], [], POLL_SECONDS)
            if ready:
                data = self._home.recv(1 << 16)
                if not data:
                    return
                for order in self._inbox.feed(data):
                    if not self._obey(order):
                        return
            self._look()

    def _obey(self, order: dict[str, Any]) -> bool:
        kind = order["do"]
        if kind == "start":
            self._start(order)
        elif kind == "signal":
            self._signal(order["number"])
        elif kind == "kill":
            self._kill()
        return bool(kind != "end")

    def _start(self, order: dict[str, Any]) -> None:
        keeper = os.getpid()
        try:
            self._server = subprocess.Popen(
                order["command"],
                env=order["env"],
                cwd=order["cwd"],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(keeper),
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._tell("failed", str(error))
            return
        self._tell("started", self._server.pid)

    def _signal(self, number: int) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(number)

    def _kill(self) -> None:
        """Kill the server and everything below it."""
        server, ended = self._server, dict[int, int]()
        end_all([] if server is None else [server.pid], ended.__setitem__)
        if server is not None:
            if server.returncode is None:  # end_all has collected its status
                status = ended.get(server.pid, signal.SIGKILL)
                server.returncode = os.waitstatus_to_exitcode(status)
            self._ended(server)

    def _look(self) -> None:
        server = self._server
        if server is not None and server.poll() is not None:
            self._ended(server)
        self._collect()

    def _ended(self, server: subprocess.Popen[bytes]) -> None:
        self._server = None
        self._tell("ended", server.returncode)

    def _collect(self) -> None:
        """Collect orphans that have ended. The server's own status is left to ``Popen``."""
        own = None if self._server is None else self._server.pid
        for pid in children():
            if pid != own:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue

    def _tell(self, kind: str, what: object) -> None:
        try:
            write_message(self._home.fileno(), (kind, what))
        except OSError:  # the test's process has ended, which run() notices
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))
