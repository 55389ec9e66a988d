"""Pass copies of files outside of the test's own directories, so that faults can change them."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..engine.controller import Controller
from ..engine.scopes import INTERNAL_OPERATION, within
from ..errors import MlchaosError

__all__ = ["with_copies"]

MAX_FILES = 1000
MAX_BYTES = 256 << 20
"""A larger directory is not copied, so no fault can strike its files."""


def with_copies(controller: Controller, args: tuple[Any, ...], scratch: Path) -> tuple[Any, ...]:
    """Return the arguments of a subject, with copies in place of the user's files.

    Only paths outside of the test's own directories are copied, and only if a fault may change
    files at rest. The copies are removed at the end of the trial.

    Raise ``MlchaosError`` at the end of the trial if an original has changed meanwhile.
    """
    if not controller.subject_listeners or not controller.scheduled:
        return args
    return tuple(_copied(controller, argument, scratch) for argument in args)


def _copied(controller: Controller, argument: Any, scratch: Path) -> Any:
    path = _outside(argument, scratch)
    if path is None:
        return argument
    with within(INTERNAL_OPERATION):
        files = _few_files(path)
        if files is None:
            return argument
        before = _digest(files)
        home = scratch.resolve() / f"inputs-{secrets.token_hex(4)}"
        home.mkdir(mode=0o700)
        controller.resources.callback(_end, home, path, before)
        copy = home / path.name
        if path.is_dir():
            shutil.copytree(path, copy, symlinks=True)
        else:
            shutil.copy2(path, copy)
    if isinstance(argument, str):
        return str(copy)
    return type(argument)(copy) if isinstance(argument, Path) else copy


def _outside(argument: Any, scratch: Path) -> Path | None:
    """Return the existing path that an argument names, outside of ``scratch``."""
    if not isinstance(argument, os.PathLike) and not (
        isinstance(argument, str) and _looks_like_a_path(argument)
    ):
        return None
    path = Path(os.path.abspath(os.fsdecode(argument)))
    own = (scratch, scratch.resolve())
    if any(path.is_relative_to(root) or root.is_relative_to(path) for root in own):
        return None
    return path if path.is_file() or path.is_dir() else None


def _looks_like_a_path(text: str) -> bool:
    """Return False for a word, which may also be the name of a file or folder by chance."""
    if "\0" in text:
        return False
    return os.path.isabs(text) or os.sep in text or bool(os.path.splitext(text)[1])


def _few_files(path: Path) -> list[Path] | None:
    """Return the files at or below a path, or None if they are too many or too large."""
    found: list[Path] = []
    size = 0
    for file in _below(path):
        found.append(file)
        size += file.stat().st_size
        if len(found) > MAX_FILES or size > MAX_BYTES:
            return None
    return found


def _below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(folder, name)
            if file.is_file():
                yield file


def _digest(files: list[Path]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(os.fsencode(file))
        digest.update(file.read_bytes())
    return digest.digest()


def _end(home: Path, path: Path, before: bytes) -> None:
    with within(INTERNAL_OPERATION):
        shutil.rmtree(home, ignore_errors=True)
        if _digest(_few_files(path) or []) != before:
            raise MlchaosError(
                f"the file {path.name} outside of the test's directories changed during a trial "
                f"that damages files. The trial used a copy, so something else writes it"
            )
