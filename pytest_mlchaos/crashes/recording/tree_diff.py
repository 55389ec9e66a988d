"""The changes that lead from one content of a directory to the next that was seen: those that are certain, else one for all of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from ..model import Content, File, Kind, Link, Node, Tree
from .content_store import EMPTY, ContentStore
from .history import moved_path

__all__ = ["TreeChange", "TreeSnapshot", "differences"]

Key = tuple[int, int]
_ZERO_PROBE_BYTES = 512
"""So many bytes are looked at."""


@dataclasses.dataclass(frozen=True, slots=True)
class TreeSnapshot:
    """A directory's content as it was seen, and which file (device, inode) each path was."""

    tree: Tree
    keys: Mapping[str, Key]

    def is_same(self, path: str, other: TreeSnapshot) -> bool:
        """Whether both have the same there: the same file, holding the same."""
        return self.keys.get(path) == other.keys.get(path) and self.tree.get(path) == other.tree.get(path)


@dataclasses.dataclass(frozen=True, slots=True)
class TreeChange:
    """One change; ``after``: the whole directory behind it."""

    kind: Kind
    path: str
    after: Tree
    start: int = 0
    source: str | None = None


def differences(
    before: TreeSnapshot, after: TreeSnapshot, contents: ContentStore, torn: Callable[[str], bool], newest: Callable[[str], int]
) -> list[TreeChange]:
    """What happened. ``torn``: whether a file was written to, and nothing else was done; ``newest``: when a path's status changed.

    Where several things happened, their order is not known: they are one change, and no content in between is made up.
    """
    gone = before.tree.keys() - after.tree.keys()
    came = after.tree.keys() - before.tree.keys()
    other = {path for path in after.tree.keys() - came if not before.is_same(path, after)}
    if not gone and not came and not other:
        return []
    if not gone and not came and len({after.keys[path] for path in other}) == 1 and _are_files(before, after, other):
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
    return [TreeChange("arrived", max(changed, key=lambda path: (newest(path), path), default=""), after.tree)]


def _are_files(before: TreeSnapshot, after: TreeSnapshot, paths: set[str]) -> bool:
    """Whether they were, and are, the same plain files."""
    return all(
        isinstance(before.tree[path], File) and isinstance(after.tree[path], File) and before.keys[path] == after.keys[path]
        for path in paths
    )


def _written(before: TreeSnapshot, after: TreeSnapshot, contents: ContentStore, path: str, torn: Callable[[str], bool]) -> TreeChange:
    """A file holds something else."""
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
    """From where on a file that has grown has beginnings that may be left.

    What was added and begins with zeros was given its length first, or has a hole, for all that is known: it has none.
    """
    return size if contents.part(content, size, _ZERO_PROBE_BYTES).strip(b"\0") else content.size


def _top(paths: set[str]) -> str | None:
    """The one path that all of these are, or lie below; None where there is none."""
    if not paths:
        return None
    first = min(paths, key=lambda path: (path.count("/") if path else -1, path))
    inside = f"{first}/" if first else ""
    return first if all(path == first or path.startswith(inside) for path in paths) else None


def _source(before: TreeSnapshot, after: TreeSnapshot, origin: str | None, path: str | None) -> TreeChange | None:
    """The rename that this is, if it is one and nothing else."""
    if not origin or not path or before.keys[origin] != after.keys[path]:
        return None
    inside = f"{path}/"
    kept = {name for name in before.tree if name != path and not name.startswith(inside)}
    tree = {moved_path(name, origin, path): before.tree[name] for name in kept}
    keys = {moved_path(name, origin, path): before.keys[name] for name in kept}
    return TreeChange("moved", path, after.tree, source=origin) if tree == after.tree and keys == after.keys else None


def _came(
    before: TreeSnapshot, after: TreeSnapshot, contents: ContentStore, path: str, torn: Callable[[str], bool] | None
) -> list[TreeChange]:
    """Something is new. ``torn`` None: and so is what lies below it."""
    node: Node = after.tree[path]
    if torn is not None and not isinstance(node, File):
        return [TreeChange("link" if isinstance(node, Link) else "folder", path, after.tree)]
    if torn is not None and isinstance(node, File) and after.keys[path] not in before.keys.values():
        if not node.content.size:
            return [TreeChange("created", path, after.tree)]
        if torn(path):
            empty = {**after.tree, path: dataclasses.replace(node, content=EMPTY)}
            return [TreeChange("created", path, empty), TreeChange("grew", path, after.tree, _start(contents, node.content, 0))]
    return [TreeChange("arrived", path, after.tree)]
