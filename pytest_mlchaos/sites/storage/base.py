"""Define ``storage`` and ``storage.*``, with the common parts of all ways to reach a file.

Each mechanism (local files, tensors, fsspec) has its own module. It turns an operation into a
``WatchedFile`` and a name, and asks the trial's ``Storage`` to begin it. Operations inside an
operation do not count again.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ...core.sites import Key, name_of, site
from ...core.storage import OPERATIONS, Break, Condition, Conditions, Operation
from ...engine.controller import Controller
from ...engine.file_limit import FILE_LIMIT
from ...engine.gate import Gate, pause
from ...engine.other_servers import in_other_server
from ...engine.patching import Patches
from ...engine.scopes import GOLDEN_COPY_PREFIX, inside, within
from ...engine.user_code import INTERPRETER, PACKAGE, is_installed

__all__ = [
    "TOOL_FILE_PREFIX",
    "Breaks",
    "Passage",
    "Storage",
    "WatchedFile",
    "active",
    "begin",
    "mechanism",
    "storage_of",
]

SITE = "storage"
TOOL_FILE_PREFIX = "mlchaos-"
"""The prefix of the names of the plugin's own files, which are not shown."""
MAX_WATCHED_FILES = 10_000
MAX_SHOWN_NAMES = 8
Mechanism = Callable[["Storage", Patches], None]
MECHANISMS: list[Mechanism] = []
_active: list[Storage] = []

Breaks = dict[tuple[int, str], tuple[int, Break]]
"""The points at which the transfers of descriptors stop, by the number and the operation."""

_FOREIGN = re.compile(r"/(__pycache__|\.pytest_cache|\.hypothesis)(/|$)|^/(dev|proc|sys)/")


def mechanism(install: Mechanism) -> Mechanism:
    """Register ``install(storage, patches)``, to be called in each trial with storage sites."""
    MECHANISMS.append(install)
    return install


def arm(controller: Controller, patches: Patches, key: Key) -> None:
    """Watch one more key."""
    storage_of(controller, patches).watch(key)


def storage_of(controller: Controller, patches: Patches) -> Storage:
    """Return the storage of a trial. The first call installs the mechanisms."""
    storage = active()
    if storage is None or storage.controller is not controller:
        storage = Storage(controller)
        storage.enter(patches)
        for install in MECHANISMS:
            install(storage, patches)
    return storage


for _op, _what in zip(OPERATIONS, ("opened", "read", "written", "renamed", "removed"), strict=True):
    site(f"{SITE}.{_op}", f"A file, about to be {_what}. Payload: a core.storage.Operation.")(arm)
site(SITE, "Any storage operation, counted together. Payload: a core.storage.Operation.")(arm)


def active() -> Storage | None:
    """Return the storage that is watched now, or None."""
    return _active[-1] if _active else None


class WatchedFile:
    """A file, or the two files of a rename.

    It has the names that patterns match, and the keys of its operations.

    An absolute pattern also matches the names in ``absolute``.
    """

    __slots__ = (
        "_absolute",
        "_keys",
        "_names",
        "_storage",
        "file",
        "own",
        "path",
        "protocols",
        "source",
    )

    def __init__(
        self,
        storage: Storage,
        path: str,
        names: tuple[str, ...],
        *,
        own: bool,
        source: str | None = None,
        absolute: tuple[str, ...] = (),
        file: str | None = None,
        protocols: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        # The absolute path of a local file.
        self.file, self.protocols = file, protocols
        self.source = source
        self.own = own
        self._names = names
        self._absolute = absolute
        self._storage = storage
        self._keys: dict[str, tuple[tuple[Key, ...], Operation, Mapping[str, Any]]] = {}

    def visits_of(self, op: str) -> tuple[tuple[Key, ...], Operation, Mapping[str, Any]]:
        """Return the keys that an operation passes, with the payload and the attributes."""
        found = self._keys.get(op)
        if found is None:
            keys = tuple(
                key for key, matches in self._storage.keys[op] if self._is_meant(key, matches)
            )
            more = {} if self.source is None else {"source": self.source}
            found = self._keys[op] = (
                keys,
                Operation(
                    op,
                    self.path,
                    self.source,
                    protocols=self.protocols,
                    file=self.file,
                    conditions=self._storage.conditions,
                ),
                {"path": self.path, "op": op, **more},
            )
        return found

    def _is_meant(self, key: Key, matches: Callable[[str], object] | None) -> bool:
        if matches is None:
            return self.own
        return any(
            map(matches, self._names + self._absolute if _is_absolute(key[1]) else self._names)
        )

    def is_matched(self, pattern: str | None) -> bool:
        """Return True if a pattern means this file. None means each file of the test."""
        key: Key = SITE if pattern is None else (SITE, pattern)
        return self._is_meant(key, None if pattern is None else _matcher(pattern))

    @property
    def watched(self) -> bool:
        """Return True if any operation on this file passes a key."""
        if self._storage.counts_all:
            return True
        return any(self.visits_of(op)[0] for op in OPERATIONS)

    def begin(self, op: str) -> Passage | None:
        """Start an operation on this file. Return None if no fault is due."""
        return self._storage.begin(op, self)

    def renamed_to(self, other: WatchedFile) -> WatchedFile:
        """Return the watched file of a rename or copy from this file to a different one."""
        names, absolute = self._names + other._names, self._absolute + other._absolute
        return WatchedFile(
            self._storage,
            other.path,
            names,
            own=self.own or other.own,
            source=self.path,
            absolute=absolute,
            file=other.file,
            protocols=other.protocols,
        )

    def together(self, others: Sequence[WatchedFile]) -> WatchedFile:
        """Return one watched file for several files of one operation.

        It is shown as the first, and matched by each.
        """
        if not others:
            return self
        names = tuple(name for watched_file in (self, *others) for name in watched_file._names)
        absolute = tuple(
            name for watched_file in (self, *others) for name in watched_file._absolute
        )
        return WatchedFile(
            self._storage,
            self.path,
            names,
            own=self.own or any(watched_file.own for watched_file in others),
            absolute=absolute,
            protocols=self.protocols,
        )


class Passage:
    """The gates of one operation.

    Use ``with passage: passage.wait(); operation()``, then ``transferred``.
    """

    __slots__ = ("_clock", "_error", "_gates", "_refused", "_stack", "_waits", "operation")

    def __init__(
        self,
        gates: Sequence[Gate],
        storage: Storage,
        operation: Operation,
        waits: float = 0.0,
        error: BaseException | None = None,
        file: str | None = None,
    ) -> None:
        self._gates = gates
        # Keeps the file if it is not removed.
        self._refused = functools.partial(storage.controller.unremoved.add, file or operation.path)
        self._clock = storage.controller.clock
        self._stack = contextlib.ExitStack()
        self._waits, self._error = waits, error
        self.operation = operation

    @property
    def delay(self) -> float:
        """Return the seconds of delay that the faults ask for."""
        return sum((gate.visit.delay for gate in self._gates), self._waits)

    def wait(self) -> None:
        """Wait for the delays, then raise the exceptions of the faults."""
        if self.delay:
            self._clock.sleep(self.delay)
        self._check()

    async def wait_async(self) -> None:
        """Do the same as ``wait`` in a coroutine."""
        if self.delay:
            await pause(self._clock, self.delay)
        self._check()

    def transferred(self, size: int | None) -> None:
        """Wait for the time that ``size`` bytes take, if a fault limits the rate."""
        if seconds := self.operation.seconds_for(size):
            self._clock.sleep(seconds)

    async def transferred_async(self, size: int | None) -> None:
        """Do the same as ``transferred`` in a coroutine."""
        if seconds := self.operation.seconds_for(size):
            await pause(self._clock, seconds)

    def cut(self, content: object) -> Any:
        """Return the part of a content that is read."""
        if self.operation.keep is None or not isinstance(
            content, (bytes, str, bytearray, memoryview)
        ):
            return content
        whole = bytes(content) if not isinstance(content, str) else None
        return content[: self.operation.ends_at(len(content), content=whole)]

    def stop_read(self, length: int | None) -> None:
        """Fail the read of a content as a whole if its transfer stops before the end.

        A content whose length is unknown does not arrive.
        """
        point = self.operation.breaks
        if point is not None and (length is None or point.offset(length) < length):
            point.stop()

    def stop_write(self, size: int | None) -> int | None:
        """Fail the write of an object as a whole if its transfer stops before the end.

        An object store takes an object as a whole or not at all. If the fault raises no error,
        return the number of bytes that pass.
        """
        point = self.operation.breaks
        if point is None or (point.error is None and not point.reports_all):
            return None
        passed = 0 if size is None else point.passes(size)
        if size is None or passed < size:
            point.stop()
            return passed
        return None

    def _check(self) -> None:
        try:
            for gate in self._gates:
                gate.check()
            if self._error is not None:
                raise self._error
        except Exception:
            if self.operation.op == "remove":
                self._refused()
            raise

    def __enter__(self) -> Passage:
        for gate in self._gates:
            self._stack.enter_context(gate)
        self._stack.enter_context(within(self.operation.op))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class Storage:
    """The storage of one trial, with its keys and watched files."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.keys: dict[str, list[tuple[Key, Callable[[str], object] | None]]] = {
            op: [] for op in OPERATIONS
        }
        self.life = 0
        self.conditions = Conditions(controller.clock.now)
        self.descriptor_breaks: Breaks = {}
        # The versions of files, if a fault needs them (``versions.py``).
        self.history: Condition | None = None
        # True if it matters which files Python writes.
        self.counts_all = False
        self.written_in_python: set[str] = set()
        self._limits: list[str | None] = []
        self._own = tuple(
            dict.fromkeys(
                f"{text}/"
                for path in controller.own
                for text in (path.as_posix(), path.resolve().as_posix())
            )
        )
        self._foreign = _interpreter()
        self._watched_files: dict[Any, WatchedFile] = {}

    def watch(self, key: Key) -> None:
        """Count operations on this key."""
        pattern = None if isinstance(key, str) else _matcher(key[1])
        for op in OPERATIONS:
            if name_of(key) in (SITE, f"{SITE}.{op}"):
                self.keys[op].append((key, pattern))
        self._watched_files.clear()

    def enter(self, patches: Patches) -> None:
        """Become the active storage until the patches are undone."""
        _active.append(self)
        patches.on_undo(lambda: _active.remove(self) if self in _active else None)
        crashes = contextlib.ExitStack()
        crashes.enter_context(self.controller.on_crash(self._die))
        patches.on_undo(crashes.close)

    def _die(self) -> None:
        """Lose the buffers of a dead process.

        Files that were opened before this moment write nothing any more.
        """
        self.life += 1

    @contextlib.contextmanager
    def limiting(self, pattern: str | None) -> Iterator[None]:
        """Let a limit of the kernel hold for the files of a pattern inside."""
        self._limits.append(pattern)
        try:
            yield
        finally:
            self._limits.remove(pattern)

    def unlimited(self, watched_file: WatchedFile) -> contextlib.AbstractContextManager[None]:
        """Return a context in which a write of this file meets only limits that mean it."""
        if not self._limits or any(watched_file.is_matched(pattern) for pattern in self._limits):
            return contextlib.nullcontext()
        return FILE_LIMIT.lifted()

    def note_writer(self, path: str | None) -> None:
        """Note that Python opens a file to write it."""
        if self.counts_all and path is not None:
            self.written_in_python.add(path)

    def begin(self, op: str, watched_file: WatchedFile, data: Any = None) -> Passage | None:
        """Start an operation. Return None if no fault is due.

        The trial without faults shows the faults the ``data`` of a write.
        """
        keys, operation, attributes = watched_file.visits_of(op)
        if data is not None and self.controller.probing:
            attributes = {**attributes, "data": data}
        gates: list[Gate] | None = None
        try:
            for key in keys:
                gate = self.controller.begin(key, operation, attributes)
                if gate is not None:
                    operation = gate.payload
                    gates = [gate] if gates is None else [*gates, gate]
            if self.conditions and (met := self._meet(watched_file, operation, gates or ())):
                return met
        except BaseException:
            with contextlib.ExitStack() as begun:  # end the gates that have begun with that error
                for gate in gates or ():
                    begun.enter_context(gate)
                raise
        return None if gates is None else Passage(gates, self, operation, file=watched_file.file)

    def _meet(
        self, watched_file: WatchedFile, operation: Operation, gates: Sequence[Gate]
    ) -> Passage | None:
        """Return the passage of an operation under lasting conditions. Return None without any.

        A fault that fails at its own visit has not begun its condition for that operation.
        """
        if not self.controller.scheduled or self.controller.crash is not None:
            return None  # a golden run, or a dead process
        if any(gate.visit.error is not None for gate in gates):
            return None
        beside = bool(self.controller.inside) and in_other_server()
        waits, error, before = 0.0, None, operation
        for condition in [*self.conditions]:
            if beside and condition.path is None:
                continue
            if operation.op in condition.ops and watched_file.is_matched(condition.path):
                try:
                    met = condition.meet(operation, watched_file.file, self.conditions.now())
                except Exception as raised:  # noqa: BLE001  # the passage raises it
                    error = error or raised
                else:
                    if isinstance(met, Operation):
                        operation = met
                    elif met is not None:
                        waits += met
        if operation is before and not waits and error is None:
            return None
        return Passage(gates, self, operation, waits, error, watched_file.file)

    # -- files -------------------------------------------------------------------------------------

    def local(self, file: Any) -> WatchedFile | None:
        """Return the watched file of a local path, or None if it is not a path."""
        try:
            path = os.fsdecode(file)
        except TypeError:
            return None
        found = self._watched_files.get(path)
        return found if found is not None else self._local(path)

    def _local(self, given: str) -> WatchedFile:
        path = given if os.path.isabs(given) else os.path.join(os.getcwd(), given)
        path = Path(os.path.normpath(path)).as_posix()
        found = self._watched_files.get(path)
        if found is None:
            own = next((root for root in self._own if path.startswith(root)), None)
            ours = (
                own is not None
                and path[len(own) :].startswith(TOOL_FILE_PREFIX)
                and "/" not in path[len(own) :]
            )  # the folder itself, not its content
            if ours or GOLDEN_COPY_PREFIX in path or (own is None and self._is_foreign(path)):
                found = WatchedFile(self, "", (), own=False)
            else:
                relative, last = _relative(path, own), path.rpartition("/")[2]
                if (
                    own is None
                    and relative == last
                    and not path.startswith(f"{Path.cwd().as_posix()}/")
                ):
                    found = WatchedFile(self, relative, (path, last), own=False, file=path)
                else:
                    # The directories above belong to pytest or to the project. A pattern such as
                    # "*cache*" must not match their names.
                    found = WatchedFile(
                        self,
                        relative,
                        (relative, f"./{relative}", last),
                        own=own is not None,
                        absolute=(path,),
                        file=path,
                    )
            self._remember(path, found)
        if given != path and os.path.isabs(given):
            self._watched_files[given] = found
        return found

    def _is_foreign(self, path: str) -> bool:
        return bool(_FOREIGN.search(path)) or path.startswith(self._foreign) or is_installed(path)

    def descriptor(self, number: int) -> WatchedFile | None:
        """Return the watched file of an open file descriptor, if the system knows its path."""
        try:
            path = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            return None
        return self.local(path) if os.path.isabs(path) and not path.endswith(" (deleted)") else None

    def remote(self, path: str, protocols: tuple[str, ...] = ()) -> WatchedFile:
        """Return the watched file of a path on a filesystem.

        Patterns match the path, the path with its protocol, and its last part.
        """
        key = (path, protocols)
        found = self._watched_files.get(key)
        if found is None:
            bare = path.lstrip("/")  # users omit the slash that a filesystem adds
            last, urls = (
                path.rstrip("/").rpartition("/")[2],
                tuple(f"{protocol}://{bare}" for protocol in protocols),
            )
            own = next((root for root in self._own if path.startswith(root)), None)
            if own is None:
                found = WatchedFile(
                    self, path, (path, bare, last, *urls), own=True, protocols=protocols
                )
            else:  # a local directory that the filesystem wraps
                relative = _relative(path, own)
                found = WatchedFile(
                    self, path, (relative, f"./{relative}", last), own=True, absolute=(path, *urls)
                )
            self._remember(key, found)
        return found

    def _remember(self, key: object, watched_file: WatchedFile) -> None:
        if len(self._watched_files) >= MAX_WATCHED_FILES:
            self._watched_files.clear()
        self._watched_files[key] = watched_file
        if (
            watched_file.own
            and not inside()
            and not watched_file.path.rpartition("/")[2].startswith(TOOL_FILE_PREFIX)
        ):
            names = self.controller.names.setdefault(SITE, {})
            if len(names) < MAX_SHOWN_NAMES:
                names[watched_file.path] = None


def begin(op: str, watched_file: WatchedFile | None) -> Passage | None:
    """Start an operation if storage is watched and this is not part of a different one.

    Return None if no fault is due.
    """
    storage = active()
    return (
        None
        if storage is None or watched_file is None or inside()
        else storage.begin(op, watched_file)
    )


@functools.cache
def _matcher(pattern: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(pattern)).match


def _is_absolute(pattern: str) -> bool:
    return os.path.isabs(pattern) or "://" in pattern


def _relative(path: str, own: str | None) -> str:
    """Return a path as reports show it.

    It is relative to the test's own directory, or to the working directory, or it is the last part.
    """
    if own is not None:
        below = path[len(own) :]
        # The first part is the directory that pytest numbers.
        return below.partition("/")[2] or below
    here = f"{Path.cwd().as_posix()}/"
    return path[len(here) :] if path.startswith(here) else path.rpartition("/")[2]


@functools.cache
def _interpreter() -> tuple[str, ...]:
    """Return the folders of the interpreter, of installed packages and of this package.

    No fault touches them.
    """
    roots = {*INTERPRETER, sys.prefix, sys.base_prefix, PACKAGE}
    return tuple(f"{Path(root).as_posix()}/" for root in roots if root != "/")
