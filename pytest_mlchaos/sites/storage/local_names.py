"""Watch low-level opens, renames and removals of local files.

The functions are replaced under each name by which they were imported.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from ...engine.patching import Patches
from ...engine.scopes import inside, within
from ...engine.stand_ins import unbound
from .base import Storage, WatchedFile, active, begin, mechanism

__all__: list[str] = []

EVENTS = {"open": "open", "os.rename": "rename", "os.remove": "remove"}


@mechanism
def install(storage: Storage, patches: Patches) -> None:
    """Wrap the functions under all their names. An audit hook detects other calls."""
    wrapped = [
        (os.open, _opener(os.open)),
        *((function, _renamer(function)) for function in (os.rename, os.replace)),
        *((function, _remover(function)) for function in (os.remove, os.unlink)),
    ]
    replaced = [(original, unbound(wrapper, original)) for original, wrapper in wrapped]
    for original, wrapper in replaced:
        patches.replace_everywhere(original, wrapper)
    for supports in (os.supports_dir_fd, os.supports_follow_symlinks):
        wrappers = {wrapper for original, wrapper in replaced if original in supports}
        supports.update(wrappers)
        patches.on_undo(functools.partial(supports.difference_update, wrappers))
    _audit()


def _opener(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    # It has the name of the original
    def open(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:  # noqa: A001
        watched_file = _file_at(path, flags, dir_fd)
        passage = begin("open", watched_file)
        storage = active()
        if storage is not None and watched_file is not None and flags & (os.O_WRONLY | os.O_RDWR):
            storage.note_writer(watched_file.file)
        number: int | None = None
        try:
            with passage or within("open"):
                if passage is not None:
                    passage.wait()
                number = original(path, flags, mode, dir_fd=dir_fd)
        except BaseException:
            if number is not None:
                os.close(number)
            raise
        if storage is not None:
            for op in ("read", "write"):
                storage.descriptor_breaks.pop((number, op), None)
        return number

    return open


def _at(path: Any, dir_fd: int | None) -> WatchedFile | None:
    """Return the watched file of a path that may be relative to an open directory."""
    storage = active()
    if storage is None or inside():
        return None
    if dir_fd is None or os.path.isabs(path):
        return storage.local(path)
    try:
        return storage.local(
            os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), os.fsdecode(path))
        )
    except OSError:
        return None


def _file_at(path: Any, flags: int, dir_fd: int | None) -> WatchedFile | None:
    """Return the watched file of an ``os.open`` call, or None for a directory."""
    watched_file = _at(path, dir_fd)
    if (
        watched_file is None
        or not watched_file.watched
        or flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
    ):
        return watched_file
    try:
        is_folder = os.path.isdir(
            path if dir_fd is None else os.path.join(f"/proc/self/fd/{dir_fd}", os.fsdecode(path))
        )
    except (OSError, ValueError):
        return watched_file
    return None if is_folder else watched_file


# -- renaming and removing -------------------------------------------------------------------------


def _renamer(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def rename(
        src: object, dst: object, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        source, target = _at(src, src_dir_fd), _at(dst, dst_dir_fd)
        passage = (
            begin("rename", source.renamed_to(target))
            if source is not None and target is not None
            else None
        )
        with passage or within("rename"):
            if passage is not None:
                passage.wait()
            original(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    return rename


def _remover(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def remove(path: object, *, dir_fd: int | None = None) -> None:
        passage = begin("remove", _at(path, dir_fd))
        with passage or within("remove"):
            if passage is not None:
                passage.wait()
            original(path, dir_fd=dir_fd)

    return remove


# -- the net ---------------------------------------------------------------------------------------


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    op = EVENTS.get(event)
    if op is None:
        return
    storage = active()
    if storage is None or inside():
        return
    caller = sys._getframe().f_back
    # The interpreter opens its script without a caller.
    if caller is None or _is_import(caller.f_code.co_filename):
        return
    if op == "open":
        watched_file = (
            None if isinstance(arguments[0], int) else _file_at(arguments[0], arguments[2], None)
        )
    elif op == "rename":
        source, target = (
            _at(path, number)
            for path, number in zip(arguments[:2], _numbers(arguments[2:4]), strict=True)
        )
        watched_file = (
            source.renamed_to(target) if source is not None and target is not None else None
        )
    else:
        watched_file = _at(arguments[0], *_numbers(arguments[1:2]))
    passage = begin(op, watched_file)
    if passage is not None:
        with passage:
            passage.wait()


def _numbers(descriptors: tuple[int, ...]) -> list[int | None]:
    return [None if number == -1 else number for number in descriptors]


def _is_import(filename: str) -> bool:
    return filename.startswith("<frozen importlib")


@functools.cache
def _audit() -> None:
    """Install the hook, once per process, because Python cannot remove audit hooks."""
    sys.addaudithook(_hook)
