"""Decide which crash states a run cannot tell apart.

The rule works on pure data, so it is tested without a run.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable

from .model import File, Folder, Link, Node, Observed, Tree

__all__ = ["Observations", "contents_of", "looks_the_same"]


def looks_the_same(one: Tree, other: Tree, observed: Observed, compared: Collection[str]) -> bool:
    """Return True if a run that saw one directory would see the same in the other.

    The names must be equal, the contents of the files that it opened, and the sizes of those for
    which it may have asked. All of these must have been changed at the same time: a run may compare
    a time with that of another file, or with one that it has stored. A file that it left as it was
    must be equal if it is compared with the golden run's.

    Args:
        one: The directory that the run started from.
        other: A different directory.
        observed: What the run can have learned about the first one.
        compared: The files that are compared at the end of a run.
    """
    return _names(one) == _names(other) and _agree(one, other, observed, compared)


class Observations:
    """The directories from which runs have started, and what these runs have seen.

    Args:
        compared: The files that are compared at the end of a run.
    """

    def __init__(self, compared: Collection[str]) -> None:
        self._compared = compared
        self._known: dict[Hashable, list[tuple[Tree, Observed, int]]] = {}

    def add(self, tree: Tree, observed: Observed, number: int) -> None:
        """Add a run, with its number."""
        self._known.setdefault(_names(tree), []).append((tree, observed, number))

    def find(self, tree: Tree) -> int | None:
        """Return the number of the first run that would have gone the same way, or None."""
        for other, observed, number in self._known.get(_names(tree), ()):
            if _agree(other, tree, observed, self._compared):
                return number
        return None


def contents_of(tree: Tree, paths: Iterable[str]) -> frozenset[tuple[str, Node]]:
    """Return the files at these paths, as a key that is equal for equal contents."""
    return frozenset((path, tree[path]) for path in paths if path in tree)


def _names(tree: Tree) -> Hashable:
    """Return all that a run sees of a directory without a ``stat``, and the permissions."""
    return frozenset((path, *_kind(node)) for path, node in tree.items())


def _kind(node: Node) -> tuple[object, ...]:
    return ("link", node.target) if isinstance(node, Link) else (type(node).__name__, node.mode)


def _agree(one: Tree, other: Tree, observed: Observed, compared: Collection[str]) -> bool:
    asked = one.keys() if observed.asked is None else observed.asked & one.keys()
    opened = observed.read | (observed.kept & frozenset(compared))
    return (
        all(one.get(path) == other.get(path) for path in opened)
        and all(_size(one[path]) == _size(other[path]) for path in asked)
        and _times(one, asked | observed.read) == _times(other, asked | observed.read)
    )


def _size(node: Node) -> int:
    return node.content.size if isinstance(node, File) else 0


def _times(tree: Tree, paths: Iterable[str]) -> dict[str, int]:
    return {
        path: node.mtime for path in paths if isinstance(node := tree.get(path), (File, Folder))
    }
