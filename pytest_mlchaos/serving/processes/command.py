"""Define the command that starts a server, and check it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ...core.privacy import command_text
from ...core.validation import (
    MAPPING,
    PATH,
    TEXT,
    Rule,
    check_arguments,
    format_value,
    optional,
)
from ...errors import BadArgument

__all__ = ["REAL_TIME", "ServerCommand", "accepts_connections", "make_command", "served_subject"]

OWNER = "mlchaos.serve"
PORT = "{port}"
REAL_TIME = "the server is a process of its own"
"""Why the trial's clock is real."""
LOOPBACK = ("localhost", "::1")
CONNECT_TIMEOUT_SECONDS = 2.0
COMMAND = Rule(
    "a list of texts such as ['uvicorn', 'app:app', '--port', '{port}']",
    lambda value: (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and len(value) > 0
        and all(isinstance(part, (str, os.PathLike)) for part in value)
    ),
)
READY = Rule(
    "a path such as '/health'", lambda value: isinstance(value, str) and value.startswith("/")
)


@dataclasses.dataclass(frozen=True)
class ServerCommand:
    """A command that starts a server, and the address at which it will answer.

    Attributes:
        command: The program, found on the path, and its arguments.
        host: The name or address of this machine.
        port: The port.
        url: The URL before the path of a request.
        ready: A path whose answer shows that the server is ready. None: the open port does.
        env: Variables of the environment, beside those of the test.
        cwd: The working directory, or None for that of the test.
    """

    command: Sequence[str]
    host: str
    port: int
    url: str
    ready: str | None = None
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cwd: str | None = None

    def __str__(self) -> str:
        return command_text(self.command)


def served_subject(app: Any, command: Any, **how: Any) -> Any:
    """Return the app to serve, or the checked command of a server."""
    given = [name for name, value in how.items() if value is not None]
    if command is None:
        if given:
            raise BadArgument(f"{OWNER}: {given[0]} needs command=, which starts a server")
        return app
    if app is not None:
        raise BadArgument(
            f"{OWNER}: give app, which is served in process, or command, which starts a server, "
            f"not both"
        )
    if how["url"] is None:
        raise BadArgument(
            f"{OWNER}: command needs url=, the address of the server, for example "
            f"url='http://127.0.0.1:{PORT}'"
        )
    return make_command(command, **how)


@check_arguments(
    OWNER,
    command=COMMAND,
    url=TEXT,
    ready=optional(READY),
    env=optional(MAPPING),
    cwd=optional(PATH),
)
def make_command(
    command: Sequence[Any],
    *,
    url: str,
    ready: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Any = None,
) -> ServerCommand:
    """Check the command and the URL, and put a free port into both.

    Raise ``BadArgument`` for a program that does not exist, a URL that is not on this machine or
    has no port, and a port in use.
    """
    texts = [os.fspath(part) for part in command]
    if any(PORT in text for text in texts) != (PORT in url):
        raise BadArgument(
            f"{OWNER}: command and url must both contain {PORT}, or neither, got "
            f"{format_value(url)}"
        )
    free = _free_port() if PORT in url else None
    if free is not None:
        url = url.replace(PORT, str(free))
        texts = [text.replace(PORT, str(free)) for text in texts]
    host, port = _address(url)
    if cwd is not None and not os.path.isdir(cwd):
        raise BadArgument(f"{OWNER}: cwd must be a directory that exists, got {format_value(cwd)}")
    texts[0] = _program(texts[0], None if cwd is None else os.fspath(cwd))
    return ServerCommand(
        texts,
        host,
        port,
        url.rstrip("/"),
        ready,
        {str(name): str(value) for name, value in (env or {}).items()},
        None if cwd is None else os.path.abspath(cwd),
    )


def accepts_connections(host: str, port: int) -> bool:
    """Return True if a process listens on the port."""
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def _address(url: str) -> tuple[str, int]:
    expected = f"{OWNER}: url must be like 'http://127.0.0.1:{PORT}'"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadArgument(f"{expected}, got {format_value(url)}") from None
    if parts.scheme != "http" or not parts.hostname:
        raise BadArgument(f"{expected}, got {format_value(url)}. Only http is supported")
    if not port:
        raise BadArgument(f"{expected}, got {format_value(url)}, which has no port")
    host = parts.hostname
    if host not in LOOPBACK and not host.startswith("127."):
        raise BadArgument(
            f"{expected}, got {format_value(url)}. The server must run on this machine, at 127.0.0.1"
        )
    if parts.query or parts.fragment or parts.username:
        raise BadArgument(f"{expected}, without a query, a fragment or a user's name")
    return host, port


def _program(name: str, cwd: str | None) -> str:
    """Return the path of a program. Beside this interpreter, it need not be on the path."""
    if os.path.dirname(name):
        path = os.path.abspath(os.path.join(cwd or os.getcwd(), name))
        found = path if os.access(path, os.X_OK) and not os.path.isdir(path) else None
    else:
        found = shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)
    if found is None:
        raise BadArgument(
            f"{OWNER}: command must begin with a program that exists, got {format_value(name)}, "
            f"which is neither on the path nor beside {os.path.basename(sys.executable)}. "
            f"Install it, or give its path"
        )
    return found


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
