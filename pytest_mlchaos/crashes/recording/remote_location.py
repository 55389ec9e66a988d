"""Explore checkpoints at a URL: the states of a prefix between operations on it.

Imitates: an object store and a process that dies. Objects that it has put, copied and removed stay
so. An unfinished upload leaves nothing.
Fidelity: nothing is torn, whatever the filesystem would do. A file appears when it is closed.
Uploads of one event loop are made one after the other while the golden run is recorded. Changes
that do not pass through fsspec (by a different client or process) are seen together, at the next
operation or step. Objects are restored in the order in which they were made, without their times
and metadata.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...core.interrupts import Uninterruptible
from ...core.privacy import error_text
from ...engine.patching import family
from ...engine.scopes import INTERNAL_OPERATION, within
from ...errors import BadArgument
from ...processes.subprocess_runner import fresh_processes
from ..model import Change, File, Folder, Kind, Node, Tree
from .content_store import ContentStore
from .fsspec_prefix import Prefix
from .fsspec_recorder import Operations
from .location import NoReadLog

__all__ = ["RemotePrefix"]

MAX_READ_RETRIES = 5
"""Read a prefix that keeps changing at most this many times."""
TAGS = (
    "etag",
    "e_tag",
    "md5",
    "md5hash",
    "content_md5",
    "checksum",
    "crc32c",
    "generation",
    "version_id",
    "versionid",
)
"""Keys of a value that changes with an object's content, in different filesystems.

Without such a value, an object must be read to find out if it changed.
"""
_PROBE = ".mlchaos-probe"


class RemotePrefix:
    """A prefix of an fsspec filesystem. ``rooted`` is True if it existed, empty, before the run."""

    def __init__(self, prefix: Prefix, rooted: bool) -> None:
        self._prefix = prefix
        self._rooted = rooted
        self._operations = Operations()

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePrefix, (self._prefix, self._rooted)

    def __str__(self) -> str:
        return str(self._prefix)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, prefix: Prefix, caller: str, *, allow_remote: bool) -> Iterator[RemotePrefix]:
        """Open an empty prefix, and leave it as it was found."""
        try:
            prefix.check(caller, allow_remote=allow_remote)
            remote = cls(prefix, "" in prefix.infos())
            try:
                with Uninterruptible(remote._operations):
                    yield remote
            finally:
                prefix.clear(root=not remote._rooted)
                _forget_listings(_clients())
        finally:
            prefix.close()

    def check_shared(self, caller: str) -> None:
        """Raise ``BadArgument`` if a fresh process does not find the objects here."""
        self._prefix.put(_PROBE, b"")
        try:
            ended = fresh_processes().run(_found, self._prefix, timeout=60)
        finally:
            self._prefix.clear(root=not self._rooted)
        if ended.value is not True:
            why = f" ({error_text(ended.error)})" if ended.error is not None else ""
            raise BadArgument(
                f"{caller}: a fresh process does not find the objects at {self}{why}. A filesystem "
                f"in the memory of one process needs "
                "isolation='in-process'. A server on loopback can be reached from all processes"
            )

    def recorder(self, contents: ContentStore) -> _FsspecRecorder:
        """Return a recorder that looks after each operation that writes, and at each step."""
        return _FsspecRecorder(self._prefix, contents, self._operations)

    def watched(self, recorder: Any) -> contextlib.AbstractContextManager[None]:
        """Look after each operation."""
        watched: contextlib.AbstractContextManager[None] = recorder.watched()
        return watched

    def reads(self, recorder: object) -> contextlib.AbstractContextManager[NoReadLog]:
        """Return an empty log, because clients' reads are not observed."""
        return contextlib.nullcontext(NoReadLog())

    def holding(self, contents: ContentStore) -> _RemoteTreeHolder:
        """Return an object that restores the prefix's content."""
        return _RemoteTreeHolder(
            self._prefix, contents, clear=lambda: self._prefix.clear(root=not self._rooted)
        )

    def endings(self) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
        """Return digests of the objects by path."""
        found = {
            path: self._prefix.read(path)
            for path, info in self._prefix.infos().items()
            if info.get("type") != "directory"
        }
        return {
            path: ContentStore.digest(data) for path, data in found.items() if data is not None
        }, {}


def _found(prefix: Prefix) -> bool:
    return _PROBE in prefix.infos()


class _FsspecRecorder:
    """Follows a prefix by listing it. Each object is read once for each content."""

    def __init__(self, prefix: Prefix, contents: ContentStore, operations: Operations) -> None:
        self.changes: list[Change] = []
        self.step = 0
        self._prefix = prefix
        self._contents = contents
        self._lock = threading.RLock()
        self._operations = operations
        self._known: dict[str, tuple[str, File]] = {}
        self._made = 0
        self._tree: dict[str, Node] = {}
        self._look(thoroughly=True)
        self.changes.clear()
        self.start: Tree | None = self._tree

    @property
    def unseen(self) -> Sequence[int]:
        """Return an empty tuple, because every operation is seen."""
        return ()

    def tree(self) -> Tree | None:
        """Return the content at the last look."""
        return self._tree

    def close(self) -> None:
        """Do nothing."""

    def drain(self, *, closely: bool = False) -> None:
        """Record changes by other clients."""
        self._look(thoroughly=False)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Look after each operation, and once more at the end, when no operation is in progress."""
        with self._operations.heard(lambda made: self._look(thoroughly=True)):
            yield
        self._look(thoroughly=True)

    # -- looking -----------------------------------------------------------------------------------

    def _look(self, *, thoroughly: bool) -> None:
        with self._lock, within(INTERNAL_OPERATION):
            for _ in range(MAX_READ_RETRIES):
                infos = self._prefix.infos()
                tree, read = self._read(infos, thoroughly)
                if tree is not None and (
                    not read or _fingerprints(self._prefix.infos()) == _fingerprints(infos)
                ):
                    self._note(tree)
                    return

    def _read(
        self, infos: Mapping[str, dict[str, Any]], thoroughly: bool
    ) -> tuple[dict[str, Node] | None, bool]:
        """Return the tree, and True if an object had to be read.

        The tree is None if an object disappeared meanwhile.
        """
        under_way = {self._prefix.relative(path) for path in self._operations.under_way()}
        tree: dict[str, Node] = {
            path: self._tree[path] for path in under_way if path is not None and path in self._tree
        }
        read = False
        for path, info in sorted(infos.items()):
            if path in under_way:
                continue
            if info.get("type") == "directory":
                tree[path] = Folder()
                continue
            fingerprint = _fingerprint(info)
            known = self._known.get(path)
            if known is None or known[0] != fingerprint or (thoroughly and not _is_tagged(info)):
                data = self._prefix.read(path)
                read = True
                if data is None:
                    return None, True
                known = self._known[path] = (
                    fingerprint,
                    self._file(data, known if known and known[0] == fingerprint else None),
                )
            tree[path] = known[1]
        return tree, read

    def _file(self, data: bytes, known: tuple[str, File] | None) -> File:
        """Return the file of an object.

        Its time is its position in the order in which the objects were made.
        """
        content = self._contents.keep(data)
        if known is not None and known[1].content == content:
            return known[1]
        self._made += 1
        return File(content, mtime=self._made)

    def _note(self, tree: dict[str, Node]) -> None:
        before, self._tree = self._tree, tree
        gone = [path for path in before if path not in tree and isinstance(before[path], File)]
        came = [
            path for path in tree if isinstance(tree[path], File) and tree[path] != before.get(path)
        ]
        kind: Kind = "arrived"
        if len(gone) == len(came) == 1 and before[gone[0]] == tree[came[0]]:
            change = Change("moved", came[0], self.step, before, tree, source=gone[0])
        elif gone or came:
            kind = "arrived" if came else "removed"
            change = Change(
                kind,
                _together(came or gone, tree if kind == "removed" else before),
                self.step,
                before,
                tree,
            )
        elif folders := [path for path in tree if path not in before]:
            change = Change("folder", folders[0], self.step, before, tree)
        elif folders := [path for path in before if path not in tree]:
            change = Change("removed", folders[0], self.step, before, tree)
        else:
            self._tree = before
            return
        self.changes.append(change)


def _together(paths: list[str], others: Mapping[str, Node]) -> str:
    """Return one name for paths that changed together: their own directory, or the last path."""
    if len(paths) > 1:
        folders = {path.rpartition("/")[0] for path in paths}
        folder = min(folders, key=len)
        if (
            folder
            and all(path.startswith(f"{folder}/") for path in paths)
            and not any(path.startswith(f"{folder}/") for path in others)
        ):
            return folder
    return paths[-1]


def _fingerprints(infos: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {path: _fingerprint(info) for path, info in infos.items()}


def _fingerprint(info: Mapping[str, Any]) -> str:
    return repr(sorted(info.items(), key=lambda item: str(item[0])))


def _is_tagged(info: Mapping[str, Any]) -> bool:
    return any(value for key, value in info.items() if str(key).lower() in TAGS)


class _RemoteTreeHolder:
    """Empties a prefix and fills it. Clients in this process forget their old listings."""

    def __init__(
        self, prefix: Prefix, contents: ContentStore, *, clear: Callable[[], None]
    ) -> None:
        self._prefix = prefix
        self._contents = contents
        self._clear = clear
        self._clients = _clients()

    def hold(self, tree: Tree) -> None:
        """Make the prefix hold exactly this tree."""
        self._clear()
        for path, node in tree.items():
            if isinstance(node, Folder):
                self._prefix.make(path)
        files = [(path, node) for path, node in tree.items() if isinstance(node, File)]
        for path, node in sorted(files, key=lambda item: item[1].mtime):
            # A subject may choose the newest.
            self._prefix.put(path, b"".join(self._contents.blocks(node.content)))
        _forget_listings(self._clients)


def _clients() -> weakref.WeakSet[Any]:
    """Return all filesystem instances, including those outside fsspec's instance cache."""
    import fsspec.spec as spec

    return weakref.WeakSet(
        found for found in gc.get_objects() if issubclass(type(found), spec.AbstractFileSystem)
    )


def _forget_listings(clients: weakref.WeakSet[Any]) -> None:
    """Clear the listing caches of all clients, as in a new process."""
    import fsspec.spec as spec

    for cls in family(spec.AbstractFileSystem):
        # Each class of fsspec's has one
        for client in list(cls._cache.values()):  # type: ignore[attr-defined]
            clients.add(client)
    for client in list(clients):
        with (
            within(INTERNAL_OPERATION),
            contextlib.suppress(Exception),
        ):
            # A foreign client may raise anything.
            client.invalidate_cache()
