"""Find the changes between two contents of a directory.

Changes that are certain are reported one by one, others as one change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from ..model import Content, File, Kind, Link, Node, Tree
from .content_store import EMPTY, ContentStore
from .history import moved_path

__all__ = ["TreeChange", "TreeSnapshot", "differences"]

Key = tuple[int, int]
_ZERO_PROBE_BYTES = 512
"""Check this many bytes for zeros."""


@dataclasses.dataclass(frozen=True, slots=True)
class TreeSnapshot:
    """A directory's content, with the (device, inode) of each path."""

    tree: Tree
    keys: Mapping[str, Key]

    def is_same(self, path: str, other: TreeSnapshot) -> bool:
        """Return True if a path is the same file with the same content in both."""
        return self.keys.get(path) == other.keys.get(path) and self.tree.get(
            path
        ) == other.tree.get(path)


@dataclasses.dataclass(frozen=True, slots=True)
class TreeChange:
    """One change. ``after`` is the whole directory after it."""

    kind: Kind
    path: str
    after: Tree
    start: int = 0
    source: str | None = None


def differences(
    before: TreeSnapshot,
    after: TreeSnapshot,
    contents: ContentStore,
    torn: Callable[[str], bool],
    newest: Callable[[str], int],
) -> list[TreeChange]:
    """Return the changes between two snapshots.

    If several things happened, their order is unknown. They are then one change, and no content in
    between is made up.

    Args:
        before: The earlier snapshot.
        after: The later snapshot.
        contents: The store of their contents.
        torn: Returns True if a file was only written to.
        newest: Returns the time of a path's last status change.
    """
    gone = before.tree.keys() - after.tree.keys()
    came = after.tree.keys() - before.tree.keys()
    other = {path for path in after.tree.keys() - came if not before.is_same(path, after)}
    if not gone and not came and not other:
        return []
    if (
        not gone
        and not came
        and len({after.keys[path] for path in other}) == 1
        and _are_files(before, after, other)
    ):
        return [_written(before, after, contents, min(other), torn)]
    top = _top(gone)
    source = _source(before, after, top, _top(came | other))
    if source is not None:
        return [source]
    if not came and not other and top is not None:
        return [TreeChange("removed", top, after.tree)]
    top = _top(came)
    if not gone and not other and top is not None:
        return _came(before, after, contents, top, torn if len(came) == 1 else None)
    changed = [path for path in came | other if isinstance(after.tree[path], File)]
    return [
        TreeChange(
            "arrived", max(changed, key=lambda path: (newest(path), path), default=""), after.tree
        )
    ]


def _are_files(before: TreeSnapshot, after: TreeSnapshot, paths: set[str]) -> bool:
    """Return True if these paths were and are the same plain files."""
    return all(
        isinstance(before.tree[path], File)
        and isinstance(after.tree[path], File)
        and before.keys[path] == after.keys[path]
        for path in paths
    )


def _written(
    before: TreeSnapshot,
    after: TreeSnapshot,
    contents: ContentStore,
    path: str,
    torn: Callable[[str], bool],
) -> TreeChange:
    """Return the change of a file whose content changed."""
    old, new = before.tree[path], after.tree[path]
    assert isinstance(old, File)
    assert isinstance(new, File)
    if new.content.size == 0:
        return TreeChange("truncated", path, after.tree)
    if new.content.size <= old.content.size or not contents.begins_with(new.content, old.content):
        return TreeChange("rewritten", path, after.tree)
    start = _start(contents, new.content, old.content.size) if torn(path) else new.content.size
    return TreeChange("grew", path, after.tree, start)


def _start(contents: ContentStore, content: Content, size: int) -> int:
    """Return the length from which cuts of a grown file are possible states.

    If the new part begins with zeros, the file may have been given its length first, or have a
    hole. Then none of its cuts is possible.
    """
    return size if contents.part(content, size, _ZERO_PROBE_BYTES).strip(b"\0") else content.size


def _top(paths: set[str]) -> str | None:
    """Return the path to which all others belong or under which they are, or None."""
    if not paths:
        return None
    first = min(paths, key=lambda path: (path.count("/") if path else -1, path))
    inside = f"{first}/" if first else ""
    return first if all(path == first or path.startswith(inside) for path in paths) else None


def _source(
    before: TreeSnapshot, after: TreeSnapshot, origin: str | None, path: str | None
) -> TreeChange | None:
    """Return the rename, if the difference is exactly one rename, or None."""
    if not origin or not path or before.keys[origin] != after.keys[path]:
        return None
    inside = f"{path}/"
    kept = {name for name in before.tree if name != path and not name.startswith(inside)}
    tree = {moved_path(name, origin, path): before.tree[name] for name in kept}
    keys = {moved_path(name, origin, path): before.keys[name] for name in kept}
    return (
        TreeChange("moved", path, after.tree, source=origin)
        if tree == after.tree and keys == after.keys
        else None
    )


def _came(
    before: TreeSnapshot,
    after: TreeSnapshot,
    contents: ContentStore,
    path: str,
    torn: Callable[[str], bool] | None,
) -> list[TreeChange]:
    """Return the changes for a new path. ``torn`` is None if paths below it are new, too."""
    node: Node = after.tree[path]
    if torn is not None and not isinstance(node, File):
        return [TreeChange("link" if isinstance(node, Link) else "folder", path, after.tree)]
    if torn is not None and isinstance(node, File) and after.keys[path] not in before.keys.values():
        if not node.content.size:
            return [TreeChange("created", path, after.tree)]
        if torn(path):
            empty = {**after.tree, path: dataclasses.replace(node, content=EMPTY)}
            return [
                TreeChange("created", path, empty),
                TreeChange("grew", path, after.tree, _start(contents, node.content, 0)),
            ]
    return [TreeChange("arrived", path, after.tree)]
