"""Watch files that C++ and Rust read and write, with torch and safetensors.

The functions are ``torch.save``, ``torch.load``, and safetensors' ``save_file`` and ``load_file``.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from ...engine.import_hooks import when_imported
from ...engine.patching import Patches
from ...engine.scopes import inside, within
from .base import Passage, Storage, WatchedFile, active, mechanism
from .local import raw_of

__all__: list[str] = []

FUNCTIONS = (
    ("torch", "save", "write", 1, "f"),
    ("torch", "load", "read", 0, "f"),
    ("safetensors.torch", "save_file", "write", 1, "filename"),
    ("safetensors.torch", "load_file", "read", 0, "filename"),
    ("safetensors.numpy", "save_file", "write", 1, "filename"),
    ("safetensors.numpy", "load_file", "read", 0, "filename"),
)
"""The module, the function, the operation, and the position and name of the file argument."""


@mechanism
def install(storage: Storage, patches: Patches) -> None:
    """Wrap each function under all its names, as soon as its module is imported."""
    for module in dict.fromkeys(entry[0] for entry in FUNCTIONS):
        when_imported(module, patches, functools.partial(_wrap_module, module, patches))


def _wrap_module(module: str, patches: Patches) -> None:
    loaded = sys.modules[module]
    for _, name, op, position, keyword in (entry for entry in FUNCTIONS if entry[0] == module):
        original = getattr(loaded, name)
        patches.replace_everywhere(original, _wrap(original, op, position, keyword))


def _wrap(original: Callable[..., Any], op: str, position: int, keyword: str) -> Callable[..., Any]:
    """Return a function that makes one visit of the open, and one of the read or write."""

    @functools.wraps(original)
    def call(*args: object, **kwargs: object) -> Any:
        storage = active()
        file: Any = args[position] if len(args) > position else kwargs.get(keyword)
        watched_file = None if storage is None or inside() else _watched_file(storage, file)
        if storage is None or watched_file is None or not watched_file.watched:
            return original(*args, **kwargs)
        opening = None if _is_object(file) else storage.begin("open", watched_file)
        if opening is not None:
            with opening:
                opening.wait()
                _finish_open(file, op)
        passage = storage.begin(op, watched_file)
        if passage is None:
            with within(op):
                return original(*args, **kwargs)
        with passage:
            _finish_open(file, op)
            passage.wait()
            if op == "read" and passage.operation.keep is not None:
                result = _cut(original, passage, position, keyword, args, kwargs)
            else:
                if op == "read":
                    passage.stop_read(_size(file))
                result = original(*args, **kwargs)
                if op == "write":
                    _stop_write(passage, file)
        passage.transferred(_size(file))
        return result

    return call


def _finish_open(file: Any, op: str) -> None:
    """Open the file as the function does before anything can fail.

    A file to be written is then empty.
    """
    if not _is_object(file):
        open(file, "rb" if op == "read" else "wb").close()


def _stop_write(passage: Passage, file: Any) -> None:
    """Cut the written file at the point where its transfer stops, and raise the error."""
    point, size = passage.operation.breaks, _size(file)
    if point is None or size is None or (point.error is None and not point.reports_all):
        return
    if not _is_object(file):
        with open(file, "rb") as written:
            point.data = written.read()
    passed = point.passes(size)
    if passed < size:
        if _is_object(file):
            file.truncate(passed)
        else:
            os.truncate(file, passed)
        point.stop()


def _is_object(file: object) -> bool:
    return not isinstance(file, (str, bytes, os.PathLike))


def _watched_file(storage: Storage, file: object) -> WatchedFile | None:
    """Return the watched file of a path, or of a real file that was opened earlier.

    Other file objects make their own visits.
    """
    if not _is_object(file):
        return storage.local(file)
    raw = raw_of(file)
    return (
        storage.local(raw.name)
        if type(raw) is io.FileIO and isinstance(raw.name, (str, bytes, os.PathLike))
        else None
    )


def _size(file: Any) -> int | None:
    try:
        return os.fstat(file.fileno()).st_size if _is_object(file) else os.path.getsize(file)
    except OSError:
        return None


def _cut(
    original: Callable[..., Any],
    passage: Passage,
    position: int,
    keyword: str,
    args: Sequence[Any],
    kwargs: Any,
) -> Any:
    """Read from a shortened copy, because the reader is C++ or Rust, and may map the file."""
    file = args[position] if len(args) > position else kwargs[keyword]
    source = raw_of(file).name if _is_object(file) else file
    with tempfile.TemporaryDirectory(prefix="mlchaos-") as folder:
        copy = os.path.join(folder, os.path.basename(os.fsdecode(source)))
        shutil.copyfile(source, copy)
        os.truncate(copy, passage.operation.ends_at(os.path.getsize(copy)))
        if len(args) > position:
            return original(*args[:position], copy, *args[position + 1 :], **kwargs)
        return original(*args, **{**kwargs, keyword: copy})
