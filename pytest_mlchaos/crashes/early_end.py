"""End a resumed run early, once it has matched the golden run for long enough.

What a run does from then on follows from the state that is compared: the digests of each step, and
the content of the directory. Something that no digest sees may still differ, for example an average
in a Python number. So ``horizon="auto"`` runs one of each kind to its end, and ``explore.py`` runs
all to their ends if one of those differs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..engine.scopes import INTERNAL_OPERATION, within
from ..runs.diagnosis import step_keys, unused_generators
from ..runs.traces import Trace
from .end_digests import digest_of_values
from .model import Change, Content, Folder, Link, Node, Tree, completed_files
from .observations import contents_of
from .recording.content_store import ContentStore, digest_of_file
from .recording.listing import Status, list_tree
from .recording.location import ReadLog

__all__ = ["EarlyEnd", "GoldenSteps", "automatic_horizon", "golden_steps"]

Seen = Mapping[str, object]
"""A directory: for each path its target, its kind, or the size and the digests of its content."""


class Stop(BaseException):
    """Ends a run that has matched the golden run for long enough."""


@dataclasses.dataclass(frozen=True)
class GoldenSteps:
    """Hold what a run is compared with after each step. It is sent to fresh processes.

    Attributes:
        keys: A key of each step, which is equal if all that is traced is equal.
        unused: The generators that are not compared.
        directories: The directory after a number of complete steps, where it changed. None: its
            content is unknown.
        root: The work directory, or None if its content is not compared.
    """

    keys: Sequence[bytes]
    unused: frozenset[str]
    directories: Mapping[int, Seen | None] = dataclasses.field(default_factory=dict)
    root: str | None = None

    def directory_after(self, steps: int) -> Seen | None:
        """Return the directory after that number of complete steps, or None if it is unknown."""
        known = [number for number in self.directories if number <= steps]
        return self.directories[max(known)] if known else None


class EarlyEnd:
    """Ends one run after ``horizon`` matching steps. It is called after each step.

    Args:
        golden: The steps of the golden run.
        horizon: The number of matching steps.
        start: The directory from which the run starts.
        done: The checkpoints from which a run has gone on to its end, or None if no run needs to.
    """

    def __init__(
        self,
        golden: GoldenSteps,
        horizon: int,
        start: Tree | None = None,
        done: Collection[frozenset[tuple[str, Node]]] | None = None,
    ) -> None:
        self._golden = golden
        self._horizon = horizon
        self._start = start
        self._done = done
        self._places = {key: place for place, key in enumerate(golden.keys)}
        self._place = -1
        self._count = 0
        self._refused: tuple[object, Seen] | None = None

    def __call__(self, trace: Trace, reads: ReadLog) -> None:
        """Look at the last step.

        Raises:
            Stop: The run is over.
        """
        place = self._places.get(step_keys(trace.steps[-1:], self._golden.unused)[0], -1)
        if place < 0:
            self._count = 0
        else:
            self._count = self._count + 1 if place == self._place + 1 else 1
        self._place = place
        is_due = trace.matched_from is None and self._count >= self._horizon
        if not is_due or not self._is_in_order(reads):
            return
        trace.matched_from = reads.opened()
        if (
            self._done is None
            or self._start is None
            or contents_of(self._start, trace.matched_from) in self._done
        ):
            trace.stopped, trace.stopped_after = True, self._place + 1
            raise Stop

    def _is_in_order(self, reads: ReadLog) -> bool:
        """Return True if the directory is as in the golden run."""
        if self._golden.root is None:
            return True
        expected = self._golden.directory_after(self._place + 1)
        if expected is None:
            return False
        with within(INTERNAL_OPERATION), reads.unseen():
            found = list_tree(self._golden.root)
            # Files are read again only after a change, because this is called after each step.
            if found is None or self._refused == (found, expected):
                return False
            self._refused = found, expected
            return _are_equal(self._golden.root, found, expected)


def golden_steps(
    trace: Trace,
    start: Tree | None,
    changes: Sequence[Change],
    contents: ContentStore,
    root: Path | None,
) -> GoldenSteps:
    """Return what runs are compared with.

    Args:
        trace: The steps of the golden run.
        start: The directory before it.
        changes: Its changes.
        contents: The contents of files.
        root: The work directory, or None if its content is not compared.
    """
    unused = unused_generators(trace)
    keys = step_keys(trace.steps, unused)
    if root is None:
        return GoldenSteps(keys, unused)
    # After a number of complete steps, all changes during the steps before it have been made.
    trees: dict[int, Tree | None] = {0: start}
    for change in changes:
        trees[change.step + 1] = change.after
    values: dict[bytes, bytes] = {}

    def seen(tree: Tree | None) -> Seen | None:
        return (
            None
            if tree is None
            else {path: _seen(node, values, contents) for path, node in tree.items() if path}
        )

    return GoldenSteps(
        keys, unused, {number: seen(tree) for number, tree in trees.items()}, str(root)
    )


def _seen(node: Node, values: dict[bytes, bytes], contents: ContentStore) -> object:
    if isinstance(node, Link):
        return "link", node.target
    if isinstance(node, Folder):
        return "folder"
    digest = node.content.digest
    if digest not in values:
        values[digest] = _values(node.content, contents)
    return node.content.size, digest, values[digest]


def _values(content: Content, contents: ContentStore) -> bytes:
    """Return a digest of a content's values, which may be equal for different bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "content")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            contents.write(content, fd)
        finally:
            os.close(fd)
        return digest_of_values(path)


def _are_equal(root: str, found: Mapping[str, Status], expected: Seen) -> bool:
    """Return True if the directory is as expected. Files are equal if their values are."""
    if found.keys() - {""} != expected.keys():
        return False
    with contextlib.suppress(OSError):
        return all(
            _is_equal(os.path.join(root, path), found[path], seen)
            for path, seen in expected.items()
        )
    return False


def _is_equal(path: str, status: Status, seen: object) -> bool:
    if status.is_link:
        return seen == ("link", os.readlink(path))
    if status.is_folder:
        return seen == "folder"
    if not isinstance(seen, tuple) or len(seen) != 3:
        return False
    size, digest, values = seen
    same = status.size == size and digest_of_file(path) == digest
    return same or bool(digest_of_values(path) == values)


def automatic_horizon(trace: Trace, changes: Sequence[Change]) -> int | None:
    """Return the steps of an epoch or between two saves, whichever are more, and one step more.

    The one step shows what the save has left. Return None if nothing was saved between steps, or if
    the golden run is not longer than that: then no run can end early.
    """
    steps = len(trace.steps)
    saves = sorted({change.step for change, _ in completed_files(changes) if change.step})
    if not saves:
        return None
    gaps = [later - save for save, later in zip([0, *saves], saves, strict=False)]
    horizon = max(*gaps, trace.epoch_steps or 0) + 1
    return horizon if horizon < steps else None
