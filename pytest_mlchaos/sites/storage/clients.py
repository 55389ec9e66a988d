"""Watch clients that look like a filesystem but are not fsspec's.

They are passed to ``mlchaos.filesystem(fs)``.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from ...core.validation import format_value
from ...engine.stand_ins import Proxy
from ...errors import BadArgument
from .base import Passage, Storage, WatchedFile
from .file_wrappers import FileProxy
from .fsspec import Access, Call, end_early, wrap_method

__all__ = ["watch_filesystem"]

T = TypeVar("T")
METHODS = {
    **dict.fromkeys(("open",), "open"),
    **dict.fromkeys(
        ("cat", "cat_file", "get", "get_file", "download", "read_bytes", "read_text"), "read"
    ),
    **dict.fromkeys(
        (
            "pipe",
            "pipe_file",
            "put",
            "put_file",
            "upload",
            "write_bytes",
            "write_text",
            "cp",
            "cp_file",
            "copy",
        ),
        "write",
    ),
    **dict.fromkeys(("mv", "move", "rename", "replace"), "rename"),
    **dict.fromkeys(("rm", "rm_file", "remove", "delete", "unlink"), "remove"),
}
SECOND = {"put", "put_file", "upload"}
"""Methods whose second argument is the path. The first is a local file."""
DOWNLOADS = {"get", "get_file", "download"}
WHOLE = {"pipe", "pipe_file", "write_bytes", "write_text"}
BOTH = {"cp", "cp_file", "copy", "mv", "move", "rename", "replace"}


def watch_filesystem(fs: T) -> T:
    """Return ``fs`` if hooks reach it, and a proxy for it if not."""
    if isinstance(fs, (type, str, bytes)) or not any(
        callable(getattr(fs, name, None)) for name in METHODS
    ):
        raise BadArgument(
            f"mlchaos.filesystem: fs must be a client with methods such as open, cat or put, got "
            f"{format_value(fs)}"
        )
    spec: Any = sys.modules.get("fsspec.spec")
    proxy: Any = (
        fs if spec is not None and isinstance(fs, spec.AbstractFileSystem) else _Filesystem(fs)
    )
    stands_for: T = proxy
    return stands_for


class _Filesystem(Proxy):
    """A proxy for an object that looks like a filesystem."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        found = (
            object.__getattribute__(self, name)
            if name == "__class__" or name.startswith("_mlchaos")
            else getattr(self._mlchaos, name)
        )
        return _method(found, name) if name in METHODS and callable(found) else found


def _method(function: Callable[..., Any], name: str) -> Any:
    """Return a method of the client with a visit before it. A coroutine function stays one."""

    def watched_file(storage: Storage, owner: object, call: Call) -> WatchedFile | None:
        path = call[1 if name in SECOND else 0]
        if not isinstance(path, (str, os.PathLike)):
            return None
        found = storage.remote(os.fspath(path))
        other = call[1] if name in BOTH else None
        return found if other is None else found.renamed_to(storage.remote(os.fspath(other)))

    def trim(passage: Passage | None, owner: object, call: Call, result: object) -> Any:
        if METHODS[name] == "open":
            path = call[0]
            return (
                FileProxy(result, lambda storage: storage.remote(os.fspath(path)))
                if isinstance(path, (str, os.PathLike))
                else result
            )
        if passage is not None and name in DOWNLOADS:
            end_early(passage, call[1])
        elif passage is not None and METHODS[name] == "read":
            content = isinstance(result, (bytes, str, bytearray, memoryview))
            passage.stop_read(len(result) if content else None)  # type: ignore[arg-type]
            return passage.cut(result)
        return result

    def size(owner: object, call: Call, result: object) -> int | None:
        content = result if METHODS[name] == "read" else call[1] if name in WHOLE else None
        return len(content) if isinstance(content, (bytes, str, bytearray, memoryview)) else None

    def run(owner: type, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    async def run_async(owner: object, *args: object, **kwargs: object) -> Any:
        return await function(*args, **kwargs)

    method = run_async if inspect.iscoroutinefunction(function) else run
    names = list(inspect.signature(function).parameters)
    bound: Callable[..., Any] = wrap_method(
        method, Access(METHODS[name], watched_file, size, trim), names
    ).__get__(function)
    return bound
