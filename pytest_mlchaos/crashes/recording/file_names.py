"""Track the names of files in the recorded directory.

Names elsewhere are tracked, too, because those files may be moved into the directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..model import Link
from .content_store import ContentStore
from .history import History, moved_path
from .inodes import Entry, Inode
from .outside_files import Shadow, Shadows

__all__ = ["Names"]

_MAX_LINKS = 40
"""Follow at most this many symbolic links in one path, as Linux does."""


class Names:
    """The entry of each absolute path, after the calls so far.

    Changes in the recorded directory go to its history.
    """

    def __init__(self, history: History, contents: ContentStore, shadows: Shadows) -> None:
        self._history = history
        self._contents = contents
        self._shadows = shadows
        self._outside: dict[str, Entry] = {}

    def relative(self, path: str) -> str | None:
        """Return the path relative to the directory, or None if it is elsewhere."""
        root = self._history.root
        return (
            "" if path == root else path[len(root) + 1 :] if path.startswith(f"{root}/") else None
        )

    def known(self, path: str) -> Entry:
        """Return the entry at a path, or None if it is unknown."""
        relative = self.relative(path)
        return self._outside.get(path) if relative is None else self._history.tree.get(relative)

    def shadow_at(self, path: str) -> Shadow | None:
        """Return the copy of the file at a path, or None if it was never written."""
        entry = self.known(path)
        return self._shadows.of(entry[0]) if isinstance(entry, tuple) else None

    def resolve(self, path: str, *, follow: bool, depth: int = 0) -> str:
        """Resolve symbolic links in a path.

        Args:
            path: An absolute path.
            follow: True to resolve a link at the end, too.
            depth: The number of links that were followed before.
        """
        path = path.rstrip("/") or "/"
        above, name = os.path.split(path)
        if name in ("", ".", ".."):
            return self.folder(path)
        path = os.path.join(self.folder(above, depth), name)
        target = self._target(path) if follow and depth < _MAX_LINKS else None
        return (
            path
            if target is None
            else self.resolve(
                os.path.join(os.path.dirname(path), target), follow=True, depth=depth + 1
            )
        )

    def folder(self, path: str, depth: int = 0) -> str:
        """Return a directory's path without links."""
        found = "/"
        for name in path.split("/"):
            if name == "..":
                found = os.path.dirname(found)
            elif name not in ("", "."):
                found = os.path.join(found, name)
                target = self._target(found) if depth < _MAX_LINKS else None
                if target is not None:
                    found = self.folder(os.path.join(os.path.dirname(found), target), depth + 1)
        return found

    def _target(self, path: str) -> str | None:
        """Return the target of a link, or None if the path is not a link."""
        if self.relative(path) is None and path not in self._outside:
            with contextlib.suppress(OSError):
                return os.readlink(path)
            return None
        entry = self.known(path)
        held = entry[0].versions[entry[1]] if isinstance(entry, tuple) else None
        return held.target if isinstance(held, Link) else None

    def move(self, source: str, target: str) -> None:
        """Rename a path."""
        origin, path, history = self.relative(source), self.relative(target), self._history
        one, other = self.known(source), self.known(target)
        if source == target or (
            isinstance(one, tuple) and isinstance(other, tuple) and one[0] is other[0]
        ):
            return  # rename(2) keeps both names if they are links to one file
        before = history.tree
        if origin is not None and path is not None:
            if origin in before:
                history.rename(origin, path)
                history.note("moved", path, before, origin)
            return
        moving = dict(self._below(source))
        self.take_out(source)
        self.take_out(target)
        for name, entry in moving.items():
            self.enter(moved_path(name, source, target), entry)
        if path is not None:
            if not moving:  # the source is unknown
                history.tree = {**history.tree, path: None}
            history.note("arrived", path, before)
        elif origin is not None:
            history.note("removed", origin, before)

    def exchange(self, one: str, other: str) -> None:
        """Exchange two paths."""
        before, found = self._history.tree, (dict(self._below(one)), dict(self._below(other)))
        for path in (one, other):
            self.take_out(path)
        for moving, source, target in ((found[0], one, other), (found[1], other, one)):
            for name, entry in moving.items():
                self.enter(moved_path(name, source, target), entry)
        paths = [path for path in map(self.relative, (one, other)) if path is not None]
        if paths:
            self._history.note("arrived", paths[0], before)

    def _below(self, path: str) -> Iterator[tuple[str, Entry]]:
        """Yield the absolute path and entry of each known path, from this one downwards."""
        relative = self.relative(path)
        names: Iterable[tuple[str, Entry]] = self._outside.items()
        if relative is not None:
            names = ((self._history.at(name), entry) for name, entry in self._history.tree.items())
        return (
            (name, entry)
            for name, entry in list(names)
            if name == path or name.startswith(f"{path}/")
        )

    def take_out(self, path: str) -> None:
        """Remove a name and all names below it."""
        relative = self.relative(path)
        if relative is not None:
            self._history.forget(relative)
            return
        for name, _ in list(self._below(path)):
            del self._outside[name]

    def enter(self, path: str, entry: Entry) -> None:
        """Give an entry a name."""
        relative, history = self.relative(path), self._history
        shadow = self._shadows.of(entry[0]) if isinstance(entry, tuple) else None
        if relative is None:
            self._outside[path] = entry
        elif isinstance(entry, tuple):
            inode = entry[0]
            if shadow is not None and not inode.paths:
                held = shadow.file(self._contents)
                if held is None or inode.versions[-1] != held:
                    inode.versions.append(held)
            history.enter(relative, inode)
        else:
            history.forget(relative)
            history.tree = {**history.tree, relative: entry}
            history.loose |= {relative}

    def linked(self, source: str, target: str) -> None:
        """Add a hard link."""
        entry = self.known(source)
        if entry is None and self.relative(source) is None and os.path.isfile(source):
            shadow = self._shadows.copied(Path(source))
            entry = shadow.inode, 0
        self.named(entry, target)

    def named(self, entry: Entry, path: str) -> None:
        """Add a name for an entry. None stands for an unknown file."""
        before, relative = self._history.tree, self.relative(path)
        if entry is None and relative is not None:
            self._history.tree = {**before, relative: None}
        elif entry is not None:
            self.enter(path, entry)
        if relative is not None:
            self._history.note("created", relative, before, names=frozenset({relative}))

    def made_link(self, target: bytes, path: str) -> None:
        """Add a symbolic link."""
        inode = Inode("", Link(os.fsdecode(target)))
        inode.paths.clear()
        self.named((inode, 0), path)

    def removed(self, path: str) -> None:
        """Remove a name, and note the change."""
        before, relative = self._history.tree, self.relative(path)
        self.take_out(path)
        if relative is not None and relative in before:
            self._history.note("removed", relative, before)
