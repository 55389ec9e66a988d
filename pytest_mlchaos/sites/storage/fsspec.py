"""Watch all fsspec filesystems: the methods of each class that reach the storage, and the
requests of buffered files.

A method is wrapped where a class defines it, once per process. Filesystems keep bound methods as
long as they live, so a wrapper looks up the active storage at each call. Local filesystems are left
to the hooks of local files. Filesystems that only change paths are left to the one that they wrap.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from ...engine.import_hooks import when_imported
from ...engine.patching import Patches, family
from ...engine.scopes import INTERNAL_OPERATION, inside, within
from .base import Passage, Storage, WatchedFile, active, mechanism
from .file_wrappers import FileProxy
from .versions import History, history

__all__ = ["Access", "Call", "end_early", "wrap_method"]

METHODS = {
    "_open": "open",
    "open_async": "open",
    "cat_file": "read",
    "get_file": "read",
    "pipe_file": "write",
    "put_file": "write",
    "cp_file": "write",
    "rm_file": "remove",
    "_rm": "remove",
    "rm": "remove",
    "mv": "rename",
    "mv_file": "rename",
}
"""The methods of a filesystem (coroutines have an underscore in front).

``cat``, ``get``, ``copy`` and others call these.
"""
REQUESTS = {"_fetch_range": "read", "_upload_chunk": "write", "commit": "write", "read": "read"}
"""The methods of a buffered file.

``read`` counts only if it is a coroutine, which fetches by itself.
"""
LISTS = ("ls", "find", "glob", "exists")
"""The methods that show which objects there are."""
TWO_PATHS = {"cp_file", "mv", "mv_file"}
COPIES = {"get_file", "put_file"}
WRAPPER = "_mlchaos_wrapper"
"""The attribute in which a function keeps its wrapper, as long as the class lives."""
_transparent: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


@mechanism
def install(storage: Storage, patches: Patches) -> None:
    """Wrap the existing classes, and those that are defined later."""
    when_imported("fsspec.spec", patches, functools.partial(_filesystems, patches))
    when_imported("fsspec.asyn", patches, functools.partial(_asynchronous, patches))


def _filesystems(patches: Patches) -> None:
    # An import would load the package again if the test has removed it.
    spec: Any = sys.modules["fsspec.spec"]
    meta: Any = spec._Cached
    created = meta.__init__

    @functools.wraps(created)
    def defined(cls: Any, *args: object, **kwargs: object) -> None:
        created(cls, *args, **kwargs)
        _wrap_filesystem(cls, patches)

    patches.set(meta, "__init__", defined)
    for cls in family(spec.AbstractFileSystem):
        _wrap_filesystem(cls, patches)
    for cls in family(spec.AbstractBufferedFile):
        _wrap_file(cls, patches)


def _asynchronous(patches: Patches) -> None:
    """Wrap the function that all bound coroutines pass.

    Filesystems that exist already call coroutines that were bound before they were wrapped.
    """
    asyn: Any = sys.modules["fsspec.asyn"]
    original: Any = asyn.sync

    @functools.wraps(original)
    def sync(loop: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        known = _wrapper_of(function.__func__) if inspect.ismethod(function) else None
        return original(
            loop,
            known.__get__(function.__self__) if known is not None else function,
            *args,
            **kwargs,
        )

    patches.replace_everywhere(original, sync)
    for cls in family(asyn.AbstractAsyncStreamedFile):
        _wrap_file(cls, patches)


def _is_transparent(cls: type) -> bool:
    """Return True if a filesystem passes everything to local files, or to a different one."""
    known = _transparent.get(cls)
    if known is None:
        names = {f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__}
        others = (
            "fsspec.implementations.local.LocalFileSystem",
            "fsspec.implementations.dirfs.DirFileSystem",
        )
        known = _transparent[cls] = not names.isdisjoint(others)
    return known


def _wrap_filesystem(cls: type, patches: Patches) -> None:
    if not _is_transparent(cls):
        _wrap_methods(
            cls,
            [*METHODS, *(f"_{name}" for name in METHODS if not name.startswith("_"))],
            _method,
            patches,
        )
        _wrap_methods(cls, [*LISTS, *(f"_{name}" for name in LISTS)], _lister, patches)


def _wrap_file(cls: object, patches: Patches) -> None:
    """Wrap the requests of a class of buffered files.

    In the base classes, ``read`` only takes fetched data.
    """
    own_read = (
        inspect.iscoroutinefunction(vars(cls).get("read")) and cls.__module__ != "fsspec.asyn"
    )
    _wrap_methods(cls, [name for name in REQUESTS if own_read or name != "read"], _request, patches)
    if not inspect.iscoroutinefunction(vars(cls).get("read")):
        _wrap_methods(cls, ["read"], _reader, patches)


def _wrap_methods(
    cls: Any, names: list[str], make: Callable[[Any, str], Any], patches: Patches
) -> None:
    """Wrap the functions that the class itself defines.

    A wrapper is made once, and serves all trials.
    """
    for name in names:
        function = vars(cls).get(name)
        if (
            inspect.isfunction(function)
            and _wrapper_of(getattr(function, "__wrapped__", None)) is not function
        ):
            wrapper = _wrapper_of(function)
            if wrapper is None:
                wrapper = make(function, name)
                vars(function)[WRAPPER] = wrapper
            patches.wrap(cls, name, wrapper)


def _wrapper_of(function: object) -> Any:
    """Return the wrapper of a function.

    A copy of its attributes (by ``functools.wraps``) does not count.
    """
    known = getattr(function, "__dict__", {}).get(WRAPPER)
    return known if known is not None and known.__wrapped__ is function else None


# -- what a call does to which file ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """The effect of a method.

    Attributes:
        op: Its operation.
        watched_file: A function that returns its file.
        size: A function that returns the number of bytes that pass.
        trim: A function that returns the result up to the end that a fault has set.
        part_of: The operations inside which it still counts.
        before: A function that is called right before a method that writes, and fails it if its
            transfer stops. It returns True if the method must not be called.
    """

    op: str
    watched_file: Callable[[Storage, Any, Call], WatchedFile | None]
    size: Callable[[Any, Call, Any], int | None] = lambda owner, call, result: _length(result)
    trim: Callable[[Passage | None, Any, Call, Any], Any] = lambda passage, owner, call, result: (
        passage.cut(result) if passage else result
    )
    part_of: tuple[str, ...] = ("",)
    before: Callable[[Passage | None, Any, Call, int | None], bool] = (
        lambda passage, owner, call, size: (
            passage is not None and passage.stop_write(size) is not None
        )
    )


class Call:
    """The arguments of a call, by position or by name."""

    __slots__ = ("args", "kwargs", "names")

    def __init__(self, names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.names, self.args, self.kwargs = names, args, kwargs

    def replace(self, index: int, value: object) -> None:
        """Pass a different value."""
        if len(self.args) > index:
            self.args = (*self.args[:index], value, *self.args[index + 1 :])
        else:
            self.kwargs[self.names[index]] = value

    def __getitem__(self, index: int) -> Any:
        if len(self.args) > index:
            return self.args[index]
        return self.kwargs.get(self.names[index]) if len(self.names) > index else None


def _method(function: Callable[..., Any], name: str) -> Any:
    """Return the wrapper of a filesystem's method, whose arguments are paths."""
    name = name.removeprefix("_") if name not in METHODS else name
    op = METHODS[name]
    remote, local = (1, 0) if name == "put_file" else (0, 1)

    def watched_file(storage: Storage, fs: object, call: Call) -> WatchedFile | None:
        first = None if _is_transparent(fs.__class__) else _remote(storage, fs, call[remote])
        second = _remote(storage, fs, call[1]) if first is not None and name in TWO_PATHS else None
        return first.renamed_to(second) if first is not None and second is not None else first

    def size(fs: object, call: Call, result: object) -> int | None:
        return _length(
            result
            if name == "cat_file"
            else call[1]
            if name == "pipe_file"
            else call[local]
            if name in COPIES
            else None
        )

    def trim(passage: Passage | None, fs: object, call: Call, result: object) -> Any:
        if passage is not None and name == "get_file":
            end_early(passage, call[local])
        result = _with_versions(fs, name, call, (remote, local), result)
        if passage is not None and name == "cat_file":
            passage.stop_read(_length(result))
            return passage.cut(result)
        return result

    def before(passage: Passage | None, fs: object, call: Call, size: int | None) -> bool:
        point = passage.operation.breaks if passage is not None else None
        if passage is None or point is None:
            return False
        content: Any = call[1] if name == "pipe_file" else None
        point.data = content
        passed = passage.stop_write(size)
        if passed and name == "pipe_file":
            call.replace(1, content[:passed])
            return False
        return passed is not None

    def opened(passage: Passage | None, fs: object, call: Call, result: object) -> Any:
        where = _address(fs, call[0])
        return result if where is None else _proxy_of(result, where)

    return wrap_method(
        function,
        Access(op, watched_file, size, opened if op == "open" else trim, before=before),
        _names(function),
    )


def _with_versions(fs: object, name: str, call: Call, places: tuple[int, int], result: Any) -> Any:
    """Keep the written content of an object, and return the one that a fault lets be read."""
    storage = active()
    known = storage.history if storage is not None else None
    remote, local = places
    where = _remote(storage, fs, call[remote]) if storage is not None and known else None
    if where is None or not isinstance(known, History):
        return result
    if name == "pipe_file" and isinstance(call[1], (bytes, bytearray, memoryview)):
        known.note(where.path, bytes(call[1]))
    elif name in COPIES and isinstance(call[local], (str, os.PathLike)):
        with within(INTERNAL_OPERATION):
            if name == "put_file" and os.path.isfile(call[local]):
                with open(call[local], "rb") as source:
                    known.note(where.path, source.read())
            elif name == "get_file" and (content := known.stale(where)) is not None:
                with open(call[local], "wb") as target:
                    target.write(content)
    elif name == "cat_file" and call[1] is None and call[2] is None:
        content = known.stale(where)
        return result if content is None else content
    return result


def _lister(function: Callable[..., Any], name: str) -> Any:
    """Return the wrapper of a listing, or of an existence check."""
    checks = name.endswith("exists")

    def shown(fs: Any, path: Any, result: Any, known: History | None) -> Any:
        where = _address(fs, path)
        if known is None or where is None or (checks and not result):
            return result
        if checks:
            folder, _, last = where[0].rpartition("/")
            return bool(known.listed(folder, [last], checks=True))
        return _shown(known, fs, result)

    def begin() -> History | None:
        found = history()
        return found if found is not None and found.lists else None

    @functools.wraps(function)
    def called(self: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        known = None if _is_transparent(self.__class__) else begin()
        if known is None:
            return function(self, path, *args, **kwargs)
        with within("list"):
            result = function(self, path, *args, **kwargs)
        return shown(self, path, result, known)

    @functools.wraps(function)
    async def called_async(self: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        known = None if _is_transparent(self.__class__) else begin()
        if known is None:
            return await function(self, path, *args, **kwargs)
        with within("list"):
            result = await function(self, path, *args, **kwargs)
        return shown(self, path, result, known)

    return called_async if inspect.iscoroutinefunction(function) else called


def _shown(known: History, fs: Any, result: Any) -> Any:
    """Return a listing without the names that a fault hides, with those that it still shows."""
    named = {
        (entry if isinstance(entry, str) else entry.get("name", "")).rstrip("/"): entry
        for entry in result
    }
    by_folder: dict[str, list[str]] = {}
    for path in named:
        folder, _, last = path.rpartition("/")
        by_folder.setdefault(folder, []).append(last)
    kept = {
        f"{folder}/{name}" if folder else name
        for folder, names in by_folder.items()
        for name in known.listed(folder, names)
    }
    if isinstance(result, dict):
        return {path: entry for path, entry in result.items() if path.rstrip("/") in kept}
    if all(isinstance(entry, str) for entry in result):
        return sorted(kept)
    return [entry for path, entry in named.items() if path in kept]


def _request(function: Callable[..., Any], name: str) -> Any:
    """Return the wrapper of a buffered file's request.

    If a fault has ended the file, nothing more can be fetched.
    """
    op = REQUESTS[name]

    def watched_file(storage: Storage, file: object, call: Call) -> WatchedFile | None:
        fs = getattr(file, "fs", None)
        return (
            None
            if fs is None or _is_transparent(fs.__class__)
            else _remote(storage, fs, getattr(file, "path", None))
        )

    def size(file: Any, call: Call, result: Any) -> int | None:
        return (
            _length(result)
            if op == "read"
            else file.buffer.tell()
            if name == "_upload_chunk"
            else None
        )

    def before(passage: Passage | None, file: Any, call: Call, size: int | None) -> bool:
        point = file.__dict__.get("_mlchaos_write_break")
        if passage is not None and passage.operation.breaks is not None:
            breaks = passage.operation.breaks
            breaks.data = file.buffer.getvalue() if name == "_upload_chunk" else None
            begin = getattr(file, "offset", None) or 0
            point = breaks.reach(size or 0, begin, begin), breaks
            if breaks.lasts:
                file.__dict__["_mlchaos_write_break"] = point
        if point is not None and name == "_upload_chunk":
            # A part arrives as a whole or not at all.
            begin = getattr(file, "offset", None) or 0
            if begin + file.buffer.tell() > point[0] or (not point[0] and file.buffer.tell()):
                if not point[1].reports_all and point[1].error is None:
                    return False
                point[1].stop()
                file.buffer.truncate(max(0, point[0] - begin))
                file.buffer.seek(0, 2)
                return not file.buffer.tell()
        return False

    def trim(passage: Passage | None, file: Any, call: Call, result: Any) -> Any:
        if op != "read":
            return result
        known = file.__dict__
        start = call[0] if name == "_fetch_range" else file.loc - len(result)
        whole = getattr(file, "size", None)
        if passage is not None and passage.operation.keep is not None:
            known["_mlchaos_end"] = passage.operation.ends_at(
                whole if whole is not None else start + len(result)
            )
        if passage is not None and passage.operation.breaks is not None:
            point = passage.operation.breaks
            if whole is not None and point.offset(whole) < whole:
                known["_mlchaos_read_break"] = point.offset(whole), point
        if name == "read" and "_mlchaos_read_break" in known:
            return _before_break(file, result, -1)
        end = known.get("_mlchaos_end")
        return result if end is None else result[: max(0, end - start)]

    # A cache may fetch everything at the open.
    return wrap_method(
        function, Access(op, watched_file, size, trim, ("", "open"), before), _names(function)
    )


def _reader(function: Callable[..., Any], name: str) -> Any:
    """Return the wrapper of a buffered file's ``read``, which takes fetched data.

    It makes no visit. It lets reads stop at the point that a fault has set.
    """

    @functools.wraps(function)
    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        data = function(self, *args, **kwargs)
        if "_mlchaos_read_break" not in self.__dict__:
            return data
        wanted = args[0] if args else kwargs.get("length", -1)
        return _before_break(self, data, -1 if wanted is None else wanted)

    return read


def _before_break(file: Any, data: Any, wanted: int) -> Any:
    """Return the part of read data that is before the point where reads stop.

    Raise the error if there is none, or if the read asks for everything.
    """
    end, point = file.__dict__["_mlchaos_read_break"]
    surplus = min(len(data), file.loc - end)
    if active() is None or surplus <= 0:
        return data
    file.loc -= surplus
    if wanted < 0 or surplus == len(data):
        point.stop()
    return data[: len(data) - surplus]


def wrap_method(function: Callable[..., Any], access: Access, names: Sequence[str]) -> Any:
    """Return the method with a visit before it. A coroutine function stays one.

    Args:
        function: The method.
        access: Its effect.
        names: The names of its arguments.
    """

    def find(owner: object, call: Call) -> WatchedFile | None:
        storage = active()
        return (
            None
            if storage is None or inside() not in access.part_of
            else access.watched_file(storage, owner, call)
        )

    @functools.wraps(function)
    def called(self: object, *args: object, **kwargs: object) -> Any:
        call = Call(names, args, kwargs)
        watched_file = find(self, call)
        if watched_file is None:
            return function(self, *args, **kwargs)
        passage = watched_file.begin(access.op)
        with passage or within(access.op):
            if passage is not None:
                passage.wait()
            size = (
                access.size(self, call, None)
                if passage is not None and access.op == "write"
                else None
            )
            if access.op == "write" and access.before(passage, self, call, size):
                return None
            result = access.trim(passage, self, call, function(self, *call.args, **kwargs))
        if passage is not None:
            passage.transferred(size if access.op == "write" else access.size(self, call, result))
        return result

    @functools.wraps(function)
    async def called_async(self: object, *args: object, **kwargs: object) -> Any:
        call = Call(names, args, kwargs)
        watched_file = find(self, call)
        if watched_file is None:
            return await function(self, *args, **kwargs)
        passage = watched_file.begin(access.op)
        with passage or within(access.op):
            if passage is not None:
                await passage.wait_async()
            size = (
                access.size(self, call, None)
                if passage is not None and access.op == "write"
                else None
            )
            if access.op == "write" and access.before(passage, self, call, size):
                return None
            result = access.trim(passage, self, call, await function(self, *call.args, **kwargs))
        if passage is not None:
            await passage.transferred_async(
                size if access.op == "write" else access.size(self, call, result)
            )
        return result

    return called_async if inspect.iscoroutinefunction(function) else called


def _names(method: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(method).parameters)[1:]


def _address(fs: Any, path: Any) -> tuple[str, tuple[str, ...]] | None:
    """Return a path of a filesystem and its protocols, or None if it is not a path."""
    if not isinstance(path, (str, os.PathLike)):
        return None
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
    return fs._strip_protocol(os.fspath(path)), protocols


def _remote(storage: Storage, fs: object, path: object) -> WatchedFile | None:
    """Return the watched file of a path of a filesystem. A list of paths is matched by each."""
    if isinstance(path, (list, tuple, set)):
        watched_files = [
            found for item in path if (found := _remote(storage, fs, item)) is not None
        ]
        return watched_files[0].together(watched_files[1:]) if watched_files else None
    where = _address(fs, path)
    return None if where is None else storage.remote(*where)


def _proxy_of(file: object, where: tuple[str, tuple[str, ...]]) -> Any:
    """Return a file object whose reads and writes are visits.

    Those of buffered files are visits already.

    It holds only the path, because a filesystem may be freed before its file, and then finishes an
    archive.
    """
    buffered = getattr(sys.modules.get("fsspec.spec"), "AbstractBufferedFile", ())
    return (
        file
        if isinstance(file, buffered) or issubclass(type(file), FileProxy)
        else FileProxy(file, lambda storage: storage.remote(*where))
    )


def _length(data: object) -> int | None:
    """Return the number of bytes of a content, or of a local file."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return len(data)
    try:
        return os.path.getsize(data) if isinstance(data, (str, os.PathLike)) else None
    except OSError:
        return None


def end_early(passage: Passage, target: object) -> None:
    """Shorten a downloaded file, as a download that stops early does, and raise its error."""
    operation = passage.operation
    if not isinstance(target, (str, os.PathLike)) or not os.path.isfile(target):
        passage.stop_read(None)
        return
    size = os.path.getsize(target)
    if operation.keep is not None:
        os.truncate(target, operation.ends_at(size))
    if operation.breaks is not None and operation.breaks.offset(size) < size:
        os.truncate(target, operation.breaks.offset(size))
        operation.breaks.stop()
