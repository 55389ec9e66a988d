"""Serve the report on loopback while its journal grows.

This runs as a process of its own, which only reads the journal. So it disturbs neither the faults
nor the virtual clock of the tests, and takes no lock of their process.

The process that started it writes a line to its standard input when the session has ended. If that
process dies, the server ends as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ...core.entries import Line, NewerSchema, parse_line
from ..journal_reader import session_of, timings_path
from .page import render

__all__ = ["LivePage", "main", "server_of"]

HOST = "127.0.0.1"
LONGEST_GOODBYE_SECONDS = 3.0
"""How long the server waits for open pages to fetch the end of the session."""
WATCHED_SECONDS = 3.0
"""A page that asked in the last seconds is open."""
REST = 4
"""The server rests this many times as long as a page takes to render."""
POLL_SECONDS = 0.2


class GrowingFile:
    """Read the new lines of a file that grows, or that is replaced by a different one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = self._read = 0
        self.lines: list[Line] = []

    def refresh(self) -> bool:
        """Read what is new. Return True if the lines have changed."""
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                replaced = status.st_ino != self._inode or status.st_size < self._read
                if replaced:
                    self._inode, self._read, self.lines = status.st_ino, 0, []
                file.seek(self._read)
                new = file.read()
        except OSError:
            return False
        whole = new[: new.rfind(b"\n") + 1]  # the last line may still be incomplete
        self._read += len(whole)
        self.lines += list(_parsed(whole))
        return bool(whole) or replaced


def _parsed(content: bytes) -> Iterator[Line]:
    for row in content.splitlines():
        with contextlib.suppress(ValueError, NewerSchema):
            if row.strip() and (line := parse_line(row.decode())) is not None:
                yield line


class LivePage:
    """The page of a growing journal, with a tag that changes with its content.

    Args:
        journal: The journal.
        clock: A clock in seconds.
    """

    def __init__(self, journal: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = [GrowingFile(journal), GrowingFile(timings_path(journal))]
        self._clock = clock
        self._lock = threading.Lock()
        self._body = b""
        self._rests_until = 0.0
        self._is_stale = True
        self.tag = ""
        self.has_ended = False
        self.last_asked: float | None = None
        self.saw_the_end = False

    def end(self) -> None:
        """Note that the session has ended. The next page is the last one."""
        with self._lock:
            self.has_ended = True
            self._is_stale = True
            self._rests_until = 0.0

    def current(self) -> tuple[bytes, str, bool]:
        """Return the page, its tag, and True if it is the last one."""
        with self._lock:
            now = self.last_asked = self._clock()
            changed = [file.refresh() for file in self._files]
            self._is_stale = self._is_stale or any(changed)
            if self._is_stale and now >= self._rests_until:
                self._render()
                self._rests_until = self._clock() + REST * (self._clock() - now)
            return self._body, self.tag, self.has_ended and not self._is_stale

    def is_watched(self) -> bool:
        """Return True if a page is open that has not fetched the end yet."""
        asked = self.last_asked
        return (
            asked is not None and not self.saw_the_end and self._clock() - asked < WATCHED_SECONDS
        )

    def _render(self) -> None:
        lines = (line for file in self._files for line in file.lines)
        self._body = render(session_of(lines), live=True).encode()
        self.tag = f'"{hashlib.sha256(self._body).hexdigest()[:20]}"'
        self._is_stale = False


def server_of(page: LivePage, port: int) -> ThreadingHTTPServer:
    """Return a server of the page on loopback, on any port if ``port`` is 0."""

    class Handler(BaseHTTPRequestHandler):
        server_version = "pytest-mlchaos"
        sys_version = ""
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            # A page of a different site must not read this one by a name that it points to loopback.
            if self.headers.get("Host") not in self._names():
                self._answer(403, b"This address is only for this machine.\n", "text/plain")
            elif self.path.partition("?")[0] not in ("/", "/page"):
                self._answer(404, b"There is only one page, at /.\n", "text/plain")
            else:
                self._answer_page()

        def _names(self) -> tuple[str, ...]:
            port = self.server.server_address[1]  # type: ignore[index]
            return (f"{HOST}:{port!s}", f"localhost:{port!s}")

        def _answer_page(self) -> None:
            body, tag, is_last = page.current()
            extra = {"ETag": tag, "X-Session": "ended" if is_last else "running"}
            if self.headers.get("If-None-Match") == tag:
                self._answer(304, b"", "", extra)
            else:
                self._answer(200, body, "text/html; charset=utf-8", extra)
            page.saw_the_end = page.saw_the_end or is_last

        def _answer(
            self, status: int, body: bytes, kind: str, extra: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (extra or {}).items():
                self.send_header(name, value)
            if kind:
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("X-Frame-Options", "DENY")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Write no log."""

    server = ThreadingHTTPServer((HOST, port), Handler)
    server.daemon_threads = True
    return server


def main(journal: str, port: int, parent: int) -> int:
    """Serve until the session ends. Print the address, or the reason why there is none.

    Args:
        journal: The path of the journal.
        port: The port, or 0 for any.
        parent: The process that started this one.
    """
    with contextlib.suppress(OSError):
        os.nice(10)  # the tests come first
    page = LivePage(Path(journal))
    try:
        server = server_of(page, port)
    except OSError as error:
        _print(f"error: port {port} of {HOST} cannot be used: {error.strerror}")
        return 1
    threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
    _print(f"http://{HOST}:{server.server_address[1]!s}/")
    ended = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(ended,), daemon=True).start()
    while not ended.wait(POLL_SECONDS):
        if os.getppid() != parent:
            return 0
    page.end()
    deadline = time.monotonic() + LONGEST_GOODBYE_SECONDS
    while page.is_watched() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 4)
    server.shutdown()
    return 0


def _wait_for_the_end(ended: threading.Event) -> None:
    sys.stdin.readline()
    ended.set()


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
