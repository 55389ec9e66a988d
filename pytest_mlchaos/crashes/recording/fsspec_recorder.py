"""Report the end of each writing operation on any fsspec filesystem.

This reports only the moments. The recorder finds the changes by listing the prefix, because an
operation may fail half-way, do nothing, or do more than its name says.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from ...core.interrupts import uninterruptible
from ...engine.fsspec_sync import calling_wrapped
from ...engine.patching import Patches, family
from ...engine.scopes import INTERNAL_OPERATION, inside, within
from .fsspec_prefix import is_ours

__all__ = ["Operations"]

WHOLE = {"pipe_file": 0, "put_file": 1, "cp_file": 1, "rm_file": 0}
"""Operations that count as one request, by the index of the argument that names their object."""
MADE_OF_OTHERS = ("rm", "_rm", "mv", "mv_file", "touch", "mkdir", "makedirs", "rmdir")
WRITE_TURN_SECONDS = 30.0
"""A coroutine waits at most this long for others that write.

Writes at the same time would finish in an order that cannot be observed.
"""
_WHOLE: ContextVar[bool] = ContextVar("mlchaos_whole_operation", default=False)


class Operations:
    """While this is entered, it calls a listener after each operation that writes.

    The listener receives ``made``: True if the operation was to complete an object. ``under_way()``
    returns the paths that are being written. Until that ends, an object store shows the previous
    content.
    """

    def __init__(self) -> None:
        self._listener: Callable[[bool], object] | None = None
        self._patches = Patches()
        self._files: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._whole: dict[object, str] = {}
        self._turns: weakref.WeakKeyDictionary[Any, asyncio.Lock] = weakref.WeakKeyDictionary()

    def under_way(self) -> set[str]:
        """Return the paths that are being written, in the form that their filesystem uses."""
        return {path for _, path in list(self._files.values())} | set(self._whole.copy().values())

    @uninterruptible
    def heard(self, listener: Callable[[bool], object]) -> Iterator[None]:
        """Call ``listener(made)`` after each operation. At the end, no path counts as under way."""
        if not self._patches:
            self.__enter__()
        self._listener = listener
        try:
            yield
        finally:
            self._listener = None
            self._files.clear()
            self._whole.clear()

    def _unseen(self) -> bool:
        """Return True if an operation does not count.

        Nothing listens, or it is a part of a larger operation, or it is internal.
        """
        return self._listener is None or _WHOLE.get() or inside() == INTERNAL_OPERATION or is_ours()

    def __enter__(self) -> Operations:
        """Wrap all filesystem classes.

        The process that entered this also leaves it. A process that was started for one run ends
        with the wrappers.
        """
        import fsspec.asyn as asyn
        import fsspec.spec as spec

        meta: Any = spec._Cached
        created = meta.__init__

        @functools.wraps(created)
        def defined(cls: object, *args: object, **kwargs: object) -> None:
            created(cls, *args, **kwargs)
            self._wrap(cls)

        self._patches.set(meta, "__init__", defined)
        for cls in family(spec.AbstractFileSystem):
            self._wrap(cls)
        self._patches.replace_everywhere(asyn.sync, calling_wrapped(asyn.sync))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patches.undo()

    def _wrap(self, cls: object) -> None:
        """Wrap the methods that a class itself defines. Local filesystems are left out."""
        if "file" in _protocols(cls):
            return
        for name, function in list(vars(cls).items()):
            if not inspect.isfunction(function):
                continue
            known = name if name in MADE_OF_OTHERS else name.removeprefix("_")
            if known in WHOLE or known in MADE_OF_OTHERS:
                self._patches.set(cls, name, self._wrapped(function, WHOLE.get(known)))
            elif name in ("_open", "open_async"):
                self._patches.set(cls, name, self._opening(function))

    # -- operations --------------------------------------------------------------------------------

    def _wrapped(self, function: Callable[..., Any], target: int | None) -> Any:
        names = list(inspect.signature(function).parameters)[1:]

        def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if target is None:
                return None
            return args[target] if len(args) > target else kwargs.get(names[target])

        @functools.wraps(function)
        def called(fs: object, *args: object, **kwargs: object) -> Any:
            if self._unseen():
                return function(fs, *args, **kwargs)
            try:
                with self._one(fs, call(args, kwargs)):
                    return function(fs, *args, **kwargs)
            finally:
                self._look(target is not None).result()

        @functools.wraps(function)
        async def called_async(fs: object, *args: object, **kwargs: object) -> Any:
            if self._unseen():
                return await function(fs, *args, **kwargs)
            async with self._turn(target):
                try:
                    with self._one(fs, call(args, kwargs)):
                        return await function(fs, *args, **kwargs)
                finally:
                    await asyncio.wrap_future(self._look(target is not None))

        return called_async if inspect.iscoroutinefunction(function) else called

    @contextlib.contextmanager
    def _one(self, fs: Any, path: Any) -> Iterator[None]:
        """Mark an operation on a path, so that its parts do not count.

        The path is None for an operation whose parts count instead.
        """
        if path is None:
            yield
            return
        token, mark = _WHOLE.set(True), object()
        if isinstance(path, (str, os.PathLike)):
            self._whole[mark] = fs._strip_protocol(os.fspath(path))
        try:
            yield
        finally:
            self._whole.pop(mark, None)
            _WHOLE.reset(token)

    @contextlib.asynccontextmanager
    async def _turn(self, target: int | None) -> Any:
        """Make whole operations of one event loop take turns.

        The wait is limited, because the subject may have a reason to overlap them.
        """
        if target is None:
            yield
            return
        turn = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        mine = False
        with contextlib.suppress(asyncio.TimeoutError):
            mine = await asyncio.wait_for(turn.acquire(), WRITE_TURN_SECONDS)
        try:
            yield
        finally:
            if mine:
                turn.release()

    def _look(self, made: bool) -> Future[None]:
        """Call the listener in a new thread.

        The current thread may run an event loop or the garbage collector.
        """
        done: Future[None] = Future()
        listener = self._listener

        def look() -> None:
            try:
                with within(INTERNAL_OPERATION):
                    if listener is not None:
                        listener(made)
                done.set_result(None)
            except BaseException as error:  # noqa: BLE001  # raised again by result()
                done.set_exception(error)

        threading.Thread(target=look, name="mlchaos-look", daemon=True).start()
        return done

    # -- open files --------------------------------------------------------------------------------

    def _opening(self, function: Callable[..., Any]) -> Any:
        """Wrap a method that opens a file. The file counts as being written until it is closed."""

        @functools.wraps(function)
        def opened(
            fs: object, path: object, mode: str = "rb", *args: object, **kwargs: object
        ) -> Any:
            if self._unseen() or not set(mode) & set("wxa+"):
                return function(fs, path, mode, *args, **kwargs)
            with self._one(fs, path):
                return self._opened(fs, path, function(fs, path, mode, *args, **kwargs))

        @functools.wraps(function)
        async def opened_async(
            fs: object, path: object, mode: str = "rb", *args: object, **kwargs: object
        ) -> Any:
            if self._unseen() or not set(mode) & set("wxa+"):
                return await function(fs, path, mode, *args, **kwargs)
            with self._one(fs, path):
                return self._opened(fs, path, await function(fs, path, mode, *args, **kwargs))

        return opened_async if inspect.iscoroutinefunction(function) else opened

    def _opened(self, fs: Any, path: Any, file: Any) -> Any:
        if isinstance(path, (str, os.PathLike)):
            key, files = id(file), self._files
            with contextlib.suppress(TypeError):
                # No weak references to it, or its class cannot be changed.
                self._watch(type(file))
                files[key] = (
                    weakref.ref(file, lambda _: files.pop(key, None)),
                    fs._strip_protocol(os.fspath(path)),
                )
        return file

    def _watch(self, cls: object) -> None:
        """Wrap ``close`` and ``commit`` of a file class. They complete a file."""
        for name in ("close", "commit"):
            function = getattr(cls, name, None)
            if function is not None and getattr(function, "_mlchaos_watch", None) is not self:
                wrapper = self._ending(function)
                wrapper._mlchaos_watch = self
                self._patches.set(cls, name, wrapper)

    def _ending(self, function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def ended(file: object, *args: object, **kwargs: object) -> Any:
            try:
                return function(file, *args, **kwargs)
            finally:
                if self._done(file, function):
                    self._look(True).result()

        @functools.wraps(function)
        async def ended_async(file: object, *args: object, **kwargs: object) -> Any:
            try:
                return await function(file, *args, **kwargs)
            finally:
                if self._done(file, function):
                    await asyncio.wrap_future(self._look(True))

        return ended_async if inspect.iscoroutinefunction(function) else ended

    def _done(self, file: object, function: Callable[..., Any]) -> bool:
        """Return True if the call may have completed an object."""
        if self._unseen():
            return False
        known = self._files.get(id(file))
        if function.__name__ == "commit":
            return known is None or known[0]() is not file
        return (
            self._files.pop(id(file), None) is not None
            if known is not None and known[0]() is file
            else False
        )


def _protocols(cls: object) -> tuple[str, ...]:
    protocol = getattr(cls, "protocol", ())
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
