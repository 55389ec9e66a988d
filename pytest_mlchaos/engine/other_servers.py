"""Recognize servers that run beside the subject, for example a file server of a fixture.

Their files are not files of the subject: a client cannot notice that its server has read half a
file. So a fault strikes in their threads only if it names the files.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any

from .thread_frames import thread_frames

__all__ = ["in_other_server", "note_servers"]

_MODULE = "socketserver"
_servers: weakref.WeakSet[Any] = weakref.WeakSet()
"""The servers that ran when a subject started."""


def note_servers() -> None:
    """Note the servers of ``socketserver`` (``http.server``, Werkzeug) that run in threads now."""
    if _MODULE in sys.modules:
        for thread, frame in thread_frames().items():
            if thread != threading.get_ident():
                _servers.update(_serving(frame))


def in_other_server() -> bool:
    """Return True in a thread of a server that ran before the subject started."""
    if not _servers or threading.current_thread() is threading.main_thread():
        return False
    return any(server in _servers for server in _serving(sys._getframe()))


def _serving(frame: FrameType | None) -> Iterator[Any]:
    """Yield the servers whose methods are in a stack."""
    while frame is not None:
        if frame.f_globals.get("__name__") == _MODULE:
            server = frame.f_locals.get("self")
            if hasattr(server, "serve_forever"):
                yield server
        frame = frame.f_back
