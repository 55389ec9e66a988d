"""Read, empty and fill one prefix of an fsspec filesystem, by its public API alone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...core.interrupts import deferred
from ...core.privacy import error_text
from ...engine.patching import Patches
from ...engine.scopes import INTERNAL_OPERATION, within
from ...errors import BadArgument

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Prefix", "is_ours"]

_SHOWN_FILES = 3
_SECRET = re.compile(r"//[^/@]*@")
_THREADS: set[int] = set()
"""Threads of this module's event loops. Code that the garbage collector runs there must not wait
for them."""


def is_ours() -> bool:
    """Return True in a thread that runs requests of this module."""
    return threading.get_ident() in _THREADS


class Prefix:
    """A prefix with a client of its own, which shares no caches with the subject's clients.

    An asynchronous client gets its own event loop, so that it works while the subject's loop waits.
    Pickling keeps only the arguments of the client, so a different process connects again.
    """

    def __init__(
        self, cls: Any, args: tuple[Any, ...], options: Mapping[str, Any], path: str, name: str
    ) -> None:
        self._made_by = cls, args, dict(options), path, name
        self._path = path.rstrip("/")
        self._name = _SECRET.sub("//", name)
        self._fs: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], None] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Prefix, self._made_by

    def __str__(self) -> str:
        return self._name

    @property
    def fs(self) -> Any:
        """Return the client."""
        if self._fs is None:
            cls, args, options, *_ = self._made_by
            if getattr(cls, "async_impl", False):
                loop, self._stop = _own_loop()
                options = {**options, "loop": loop, "asynchronous": False}
            self._fs = cls(*args, **{**options, "skip_instance_cache": True})
        return self._fs

    def close(self) -> None:
        """Close the client."""
        self._fs = None
        if self._stop is not None:
            with deferred():  # Python drops a KeyboardInterrupt in a finalizer
                # A client's finalizer closes its connections, and needs its loop for that
                gc.collect()
            self._stop()
            self._stop = None

    @within(INTERNAL_OPERATION)
    def infos(self) -> dict[str, dict[str, Any]]:
        """Return the objects and the empty directories below the prefix, by relative path."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(self._path, withdirs=True, detail=True, **_strictly(self.fs))
        except FileNotFoundError:
            return {}
        named = {self.relative(name): info for name, info in found.items()}
        below = {name: info for name, info in named.items() if name is not None}
        above = {parent for name in below for parent in _parents(name)}
        return {
            name: info
            for name, info in below.items()
            if info.get("type") != "directory" or name not in above
        }

    def relative(self, name: str) -> str | None:
        """Return a path relative to the prefix, or None if it is elsewhere."""
        name = self.fs._strip_protocol(name).rstrip("/")
        if name == self._path:
            return ""
        return name[len(self._path) + 1 :] if name.startswith(f"{self._path}/") else None

    @within(INTERNAL_OPERATION)
    def read(self, path: str) -> bytes | None:
        """Return an object's content, or None if it is gone."""
        try:
            return bytes(self.fs.cat_file(self._at(path)))
        except FileNotFoundError:
            return None

    @within(INTERNAL_OPERATION)
    def put(self, path: str, data: bytes) -> None:
        """Write an object."""
        at = self._at(path)
        try:
            self.fs.pipe_file(at, data)
        except FileNotFoundError:  # a filesystem with real directories
            self.fs.makedirs(at.rpartition("/")[0], exist_ok=True)
            self.fs.pipe_file(at, data)

    @within(INTERNAL_OPERATION)
    def make(self, path: str) -> None:
        """Make an empty directory, if the filesystem has directories."""
        self.fs.makedirs(self._at(path), exist_ok=True)

    @within(INTERNAL_OPERATION)
    def clear(self, *, root: bool) -> None:
        """Remove everything below the prefix. With ``root``, remove the empty directory, too."""
        for name, info in self.infos().items():
            if info.get("type") != "directory":
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm_file(self._at(name))
        while folders := [name for name in self.infos() if name or root]:
            for name in folders:
                self.fs.rmdir(self._at(name))
            if not set(self.infos()) - set(folders) - {""}:
                break

    def _at(self, path: str) -> str:
        return f"{self._path}/{path}" if path else self._path

    # -- whether it may be touched -----------------------------------------------------------------

    def check(self, caller: str, *, allow_remote: bool) -> None:
        """Raise ``BadArgument`` unless the prefix is local, can be listed, and is empty.

        ``allow_remote`` permits a different machine.
        """
        if not self._path.strip("/"):
            raise BadArgument(
                f"{caller}: {self} is a whole bucket or filesystem. It is emptied before each run: "
                f"give a prefix of its own"
            )
        refused: list[str] = []
        try:
            with contextlib.nullcontext() if allow_remote else _on_this_machine(self, refused):
                found = [
                    name or str(self)
                    for name, info in self.infos().items()
                    if info.get("type") != "directory"
                ]
                if refused:
                    raise ConnectionRefusedError
        except Exception as error:
            raise BadArgument(
                self._unreachable(caller, ", ".join(dict.fromkeys(refused)), error)
            ) from error
        if found:
            names = ", ".join(found[:_SHOWN_FILES]) + (", …" if len(found) > _SHOWN_FILES else "")
            raise BadArgument(
                f"{caller}: {self} is not empty, and everything below it would be deleted "
                f"({len(found)} objects: {names}): "
                "give an empty prefix of the test's own"
            )

    def _unreachable(self, caller: str, where: str, error: Exception) -> str:
        if where:
            return (
                f"{caller}: {self} is reached at {where}, which may be a different machine, and "
                f"everything below it is deleted before "
                "each run: use a server on loopback, or set allow_remote=True"
            )
        return f"{caller}: {self} cannot be listed ({error_text(error)}): set the options of its client with storage_options={{...}}"


def _strictly(fs: AbstractFileSystem) -> dict[str, Any]:
    """Return arguments for ``find``.

    Without them, fsspec treats a directory that it cannot list as empty.
    """
    import fsspec.asyn as asyn
    import fsspec.spec as spec

    def failed(error: Exception) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    cls = type(fs)
    theirs = (
        cls._find is asyn.AsyncFileSystem._find
        if hasattr(cls, "_find")
        else cls.find is spec.AbstractFileSystem.find
    )
    return {"on_error": failed} if theirs else {}


def _parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, down to the prefix itself."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def _own_loop() -> tuple[asyncio.AbstractEventLoop, Callable[[], None]]:
    """Return an event loop that runs in a new thread, and a function that stops it."""
    loop = asyncio.new_event_loop()

    def run() -> None:
        _THREADS.add(threading.get_ident())
        try:
            loop.run_forever()
        finally:
            _THREADS.discard(threading.get_ident())
            loop.close()

    thread = threading.Thread(target=run, name="mlchaos-storage", daemon=True)
    thread.start()

    def stop() -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)

    return loop, stop


@contextlib.contextmanager
def _on_this_machine(prefix: Prefix, refused: list[str]) -> Iterator[None]:
    """Refuse this module's connections to other machines while the context is entered.

    Sockets that were opened without Python's socket module are refused, too, because their address
    is unknown.
    """
    _ = prefix.fs  # its loop has sockets, too
    before, seen, own = _sockets(), list[str](), threading.get_ident()

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if threading.get_ident() == own or is_ours():
                seen.append(str(address))
                if not _is_here(self.family, address):
                    refused.append(f"{address[0]}:{address[1]}")
                    raise ConnectionRefusedError(f"mlchaos: {address[0]} is not this machine")
            return original(self, address)

        return connect

    with Patches() as patches:
        for name in ("connect", "connect_ex"):
            patches.set(socket.socket, name, guarded(getattr(socket.socket, name)))
        yield
    if not seen and _sockets() - before:
        refused.append("an unknown address")
        raise ConnectionRefusedError("mlchaos: sockets were opened without Python's socket module")


def _is_here(family: int, address: Any) -> bool:
    if family == getattr(socket, "AF_UNIX", None) or address[0] == "localhost":
        return True
    try:
        here = ipaddress.ip_address(str(address[0]).partition("%")[0])
    except ValueError:
        return False
    return (getattr(here, "ipv4_mapped", None) or here).is_loopback


def _sockets() -> set[str]:
    """Return this process's open sockets (Linux)."""
    found = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return {name for name in found if name.startswith("socket:")}
