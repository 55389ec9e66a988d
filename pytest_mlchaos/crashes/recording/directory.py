"""Restore the content of a directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

from ..model import File, Folder, Link, Node, Tree
from .content_store import BLOCK_BYTES, ContentStore
from .observer import reserve_far_block

__all__ = ["Disk"]


class Disk:
    """A directory that is made to hold one tree after the other.

    A large file that is unchanged since it was put there stays. All others are written again.
    """

    def __init__(self, root: Path, contents: ContentStore) -> None:
        self._root = os.path.abspath(root)
        self._contents = contents
        self._placed: dict[str, tuple[File, tuple[int, ...]]] = {}

    def hold(self, tree: Tree) -> None:
        """Make the directory hold exactly this tree."""
        kept = {
            path
            for path, (file, signature) in self._placed.items()
            if tree.get(path) == file and _signature(self._at(path)) == signature
        }
        self._clear(kept)
        self._placed = {path: placed for path, placed in self._placed.items() if path in kept}
        for path in sorted(tree):  # a directory comes before its files
            if path not in kept:
                self._put(path, tree[path])
        for path in sorted(tree, reverse=True):
            node = tree[path]
            if isinstance(node, Folder):
                os.chmod(self._at(path), node.mode)
                os.utime(self._at(path), ns=(node.mtime, node.mtime))

    def _at(self, path: str) -> str:
        return os.path.join(self._root, path) if path else self._root

    def _clear(self, kept: set[str]) -> None:
        if not kept:
            _remove(self._root)
            return
        above = {parent for path in kept for parent in _parents(path)}
        for folder, folders, files in os.walk(self._root):
            relative = os.path.relpath(folder, self._root).replace(os.sep, "/")
            for name in (*folders, *files):
                path = name if relative == "." else f"{relative}/{name}"
                if path not in kept and path not in above:
                    _remove(self._at(path))
            folders[:] = [
                name
                for name in folders
                if (name if relative == "." else f"{relative}/{name}") in above
            ]

    def _put(self, path: str, node: Node) -> None:
        at = self._at(path)
        if isinstance(node, Folder):
            os.makedirs(at, exist_ok=True)
            os.chmod(at, node.mode | stat.S_IRWXU)
        elif isinstance(node, Link):
            os.symlink(node.target, at)
        else:
            fd = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                self._contents.write(node.content, fd)
                reserve_far_block(fd)
                os.fchmod(fd, node.mode)
                os.utime(fd, ns=(node.mtime, node.mtime))
            finally:
                os.close(fd)
            if node.content.size > BLOCK_BYTES:
                self._placed[path] = (node, _signature(at))


def _signature(path: str) -> tuple[int, ...]:
    """Return values that differ if a file has changed.

    The change time is one of them. No program can set it, but it is coarse (some milliseconds).
    """
    try:
        status = os.lstat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path, onerror=_force_removal)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _force_removal(function: object, path: str, error: object) -> None:
    """Make a path's read-only directory writable, and remove the path."""
    with contextlib.suppress(OSError):
        os.chmod(os.path.dirname(path), stat.S_IRWXU)
        os.chmod(path, stat.S_IRWXU)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
