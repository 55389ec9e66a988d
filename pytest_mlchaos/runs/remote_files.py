"""Follow the objects that a subject writes through fsspec, and restore them.

The content of an object is kept before the subject writes it for the first time. So a golden run
can begin with the initial objects, and afterwards those of the trial come back. Only objects that
the subject has written, and those below a prefix that the test names, are ever touched.

Fidelity: what a subject writes by other means (a client of its own, C++ or Rust code) is seen only
below a prefix that the test names. Times and metadata of objects are not restored.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from ..core.privacy import error_text
from ..core.records import FileState
from ..core.validation import format_value
from ..engine.fsspec_sync import calling_wrapped
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches, family
from ..engine.scopes import INTERNAL_OPERATION, inside, within
from ..errors import BadArgument
from .workdirs import content_state

__all__ = ["Objects", "RemoteFiles"]

Objects: TypeAlias = Mapping[str, bytes | None]
"""The content of objects by URL. None for an object that does not exist."""
WRITES: Mapping[str, tuple[int, ...]] = {
    "pipe_file": (0,),
    "put_file": (1,),
    "cp_file": (1,),
    "rm_file": (0,),
    "rm": (0,),
    "mv": (0, 1),
    "mv_file": (0, 1),
    "touch": (0,),
}
"""The methods of a filesystem that write, with the places of the paths that they change."""
OPENS = ("_open", "open_async")
REMOVES = ("rm", "mv", "mv_file")
"""Methods that may change all objects below a path."""
DELEGATES = ("fsspec.implementations.local", "fsspec.implementations.dirfs")
"""Modules whose filesystems pass everything on to local files, or to a different filesystem."""
_LIST_UPLOADS = ("list_multipart_uploads",)
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, KeyError)


class RemoteFiles:
    """The objects of one subject, with their content before it first wrote them."""

    def __init__(self, urls: Iterable[str] = ()) -> None:
        self._start: dict[str, bytes | None] = {}
        self._places: dict[str, tuple[Any, str]] = {}
        self._prefixes = [_place_of(url) for url in urls]
        self._frozen: Objects | None = None
        self._lock = threading.Lock()
        # By bucket: its client, and the uploads in parts that were open before.
        self._buckets: dict[str, tuple[Any, set[str]]] = {}
        for name, content in self._found().items():
            self._start[name] = content

    def __bool__(self) -> bool:
        return bool(self._start or self._prefixes)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep the content of each object that is written inside, before it is."""
        with Patches() as patches:
            when_imported("fsspec.spec", patches, functools.partial(self._watch, patches))
            when_imported("fsspec.asyn", patches, functools.partial(_reroute, patches))
            yield

    @within(INTERNAL_OPERATION)
    def contents(self) -> dict[str, bytes]:
        """Return the present content of each known object that exists, by its URL."""
        for name in self._found():
            self._start.setdefault(name, None)
        found = {name: self._read(name) for name in list(self._start)}
        return {name: content for name, content in found.items() if content is not None}

    def start(self) -> dict[str, bytes]:
        """Return the content of the objects before they were first written."""
        return {name: content for name, content in self._start.items() if content is not None}

    @contextlib.contextmanager
    def as_at_the_start(self) -> Iterator[None]:
        """Restore the initial objects inside, and at the end those of the trial."""
        found = self.contents()
        now = {name: found.get(name) for name in self._start}
        self._put(dict(self._start))
        try:
            yield
        finally:
            self.contents()  # finds what was made below the prefixes
            # What only the code inside has written was in its initial state in the trial.
            self._put({**self._start, **now})

    def restore(self) -> None:
        """Restore the initial objects, so that the next trial finds them."""
        with contextlib.suppress(Exception):  # The server may be gone.
            self._put(dict(self._start))

    def freeze(self) -> None:
        """Keep the objects at the moment of a crash. The code that unwinds may change them."""
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            return  # The loop that serves the filesystem may be this one.
        self._frozen = self.contents()

    def thaw(self) -> None:
        """Undo what was written after the crash."""
        frozen, self._frozen = self._frozen, None
        if frozen is not None:
            self._put({name: frozen.get(name) for name in list(self._start)})

    def states(
        self, contents: Mapping[str, bytes], sizes: Mapping[str, Iterable[int]]
    ) -> dict[str, FileState]:
        """Return the states of some contents, as of files."""
        return {name: content_state(data, sizes.get(name, ())) for name, data in contents.items()}

    def content(self, name: str) -> bytes | None:
        """Return the present content of an object, or None."""
        return self._read(name) if name in self._places else None

    @within(INTERNAL_OPERATION)
    def new_uploads(self) -> frozenset[str]:
        """Return the URLs of uploads in parts that were opened since the last look."""
        new = set()
        for bucket, (fs, known) in self._buckets.items():
            found = _uploads(fs.call_s3(*_LIST_UPLOADS, Bucket=bucket))
            new |= {
                _name(fs, f"{bucket}/{key}") for upload, key in found.items() if upload not in known
            }
            known.update(found)
        return frozenset(new)

    # -- reading and writing -----------------------------------------------------------------------

    @within(INTERNAL_OPERATION)
    def _found(self) -> dict[str, bytes | None]:
        """Return the content of what is below the prefixes."""
        found = {}
        for fs, prefix in self._prefixes:
            fs.invalidate_cache()
            with contextlib.suppress(*_ABSENT):
                for path in fs.find(prefix):
                    name = _name(fs, path)
                    self._places[name] = fs, path
                    if name not in self._start:
                        found[name] = self._read(name)
        return found

    @within(INTERNAL_OPERATION)
    def _read(self, name: str) -> bytes | None:
        fs, path = self._places[name]
        try:
            return bytes(fs.cat_file(path))
        except _ABSENT:
            return None
        except Exception as error:
            raise BadArgument(
                f"mlchaos.pipeline: the output {name} cannot be read: {error_text(error)}"
            ) from error

    @within(INTERNAL_OPERATION)
    def _put(self, objects: Objects) -> None:
        for name, content in objects.items():
            fs, path = self._places[name]
            if self._read(name) == content:
                continue
            if content is None:
                fs.rm_file(path)
                continue
            try:
                fs.pipe_file(path, content)
            except FileNotFoundError:  # a filesystem with real directories
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                fs.pipe_file(path, content)
        for fs in {id(fs): fs for fs, _ in self._places.values()}.values():
            for client in [fs, *getattr(type(fs), "_cache", {}).values()]:
                client.invalidate_cache()

    # -- watching ----------------------------------------------------------------------------------

    def _watch(self, patches: Patches) -> None:
        """Wrap the methods that write, where a class of filesystems defines them."""
        spec: Any = sys.modules["fsspec.spec"]
        meta: Any = spec._Cached
        created = meta.__init__

        @functools.wraps(created)
        def defined(cls: type, *args: object, **kwargs: object) -> None:
            created(cls, *args, **kwargs)
            self._wrap(cls, patches)

        patches.set(meta, "__init__", defined)
        for cls in family(spec.AbstractFileSystem):
            self._wrap(cls, patches)

    def _wrap(self, cls: type, patches: Patches) -> None:
        if cls.__module__ in DELEGATES:
            return
        for name, function in list(vars(cls).items()):
            known = name.removeprefix("_")
            if inspect.isfunction(function) and (name in OPENS or known in WRITES):
                patches.set(cls, name, self._noting(function, known, WRITES.get(known)))

    def _noting(
        self, function: Callable[..., Any], known: str, places: tuple[int, ...] | None
    ) -> Any:
        """Return a method that first keeps the content of the objects that it writes."""
        names = list(inspect.signature(function).parameters)[1:]

        def paths(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
            if inside() == INTERNAL_OPERATION:
                return []
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            if places is None and not set(str(given.get("mode", "rb"))) & set("wxa+"):
                return []
            wanted = [given.get(names[place]) for place in places or (0,) if place < len(names)]
            return [one for held in wanted for one in (held if isinstance(held, list) else [held])]

        @functools.wraps(function)
        def called(fs: Any, *args: object, **kwargs: object) -> Any:
            for path in paths(args, kwargs):
                self._note(fs, path, below=known in REMOVES)
            return function(fs, *args, **kwargs)

        @functools.wraps(function)
        async def called_async(fs: Any, *args: object, **kwargs: object) -> Any:
            for path in paths(args, kwargs):
                await self._note_async(fs, path, below=known in REMOVES)
            return await function(fs, *args, **kwargs)

        return called_async if inspect.iscoroutinefunction(function) else called

    def _note(self, fs: Any, path: object, *, below: bool) -> None:
        at = _stripped(fs, path)
        if at is None:
            return
        with within(INTERNAL_OPERATION):
            if _has_uploads(fs) and (bucket := at.partition("/")[0]) not in self._buckets:
                found = _quietly(lambda name: fs.call_s3(*_LIST_UPLOADS, Bucket=name), bucket)
                self._buckets[bucket] = fs, set(_uploads(found or {}))
            for one in (at, *(_quietly(fs.find, at) or () if below else ())):
                if _name(fs, one) not in self._start:
                    self._keep(fs, one, _quietly(fs.cat_file, one))

    async def _note_async(self, fs: Any, path: object, *, below: bool) -> None:
        at = _stripped(fs, path)
        if at is None:
            return
        with within(INTERNAL_OPERATION):
            if _has_uploads(fs) and (bucket := at.partition("/")[0]) not in self._buckets:
                with contextlib.suppress(*_ABSENT):
                    found = await fs._call_s3(*_LIST_UPLOADS, Bucket=bucket)
                    self._buckets[bucket] = fs, set(_uploads(found))
            others: Iterable[str] = ()
            if below:
                with contextlib.suppress(*_ABSENT):
                    others = await fs._find(at)
            for one in (at, *others):
                if _name(fs, one) not in self._start:
                    content = None
                    with contextlib.suppress(*_ABSENT):
                        content = await fs._cat_file(one)
                    self._keep(fs, one, content)

    def _keep(self, fs: Any, path: str, content: Any) -> None:
        name = _name(fs, path)
        with self._lock:
            if name not in self._start:
                self._places[name] = fs, path
                self._start[name] = None if content is None else bytes(content)


def _has_uploads(fs: Any) -> bool:
    """Return True for a client of an object store that can list its uploads in parts."""
    return hasattr(type(fs), "_call_s3")


def _uploads(listing: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of open uploads, by the id of the upload."""
    return {one["UploadId"]: one["Key"] for one in listing.get("Uploads", ())}


def _quietly(read: Callable[[str], Any], path: str) -> Any:
    try:
        return read(path)
    except _ABSENT:
        return None


def _stripped(fs: Any, path: object) -> str | None:
    """Return a path in the form that its filesystem uses, or None for local files."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
    if "file" in protocols or not isinstance(path, (str, os.PathLike)):
        return None
    return str(fs._strip_protocol(os.fspath(path)))


def _name(fs: Any, path: str) -> str:
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return f"{protocol}://{path.lstrip('/')}"


def _place_of(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url)
    except (ImportError, ValueError, TypeError) as error:
        raise BadArgument(
            f"mlchaos.pipeline: outputs must be URLs that fsspec knows, got {format_value(url)}: "
            f"{error_text(error)}"
        ) from error
    if not str(path).strip("/"):
        raise BadArgument(
            f"mlchaos.pipeline: outputs must name a prefix, not a whole bucket or filesystem, got "
            f"{format_value(url)}"
        )
    return fs, str(path)


def _reroute(patches: Patches) -> None:
    original: Any = sys.modules["fsspec.asyn"].sync
    patches.replace_everywhere(original, calling_wrapped(original))
