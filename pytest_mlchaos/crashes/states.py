"""Make crash states from the recorded changes.

These are the states that were seen, torn files, and the states that a power loss may leave.
"""

from __future__ import annotations

import dataclasses
import itertools
import mmap
from collections.abc import Iterator, Sequence

from .model import COMPLETING, Change, Content, CrashState, File, Tree, tree_key
from .ranks.orders import Order
from .recording.content_store import BLOCK_BYTES, EMPTY, ContentStore

__all__ = ["CrashStates", "completed_writes"]

MAX_STABLE_LETTERS = 10
"""A temporary name with at most this many extra letters (``.tmp``, ``.partial``) is taken to be the
same in each run."""


@dataclasses.dataclass(frozen=True)
class _Found:
    """A state without its number."""

    label: str
    step: int
    path: str
    what: str
    tree: Tree
    torn: bool = False
    index: int | None = None
    """The number of the change that it belongs to."""


class CrashStates:
    """The distinct crash states of a recorded run, in order of time.

    ``torn`` adds files that are cut while they are written in place. ``power`` adds states after a
    power loss. It may take data that no ``fsync`` wrote back, and directory entries whose directory
    was not written back.
    """

    def __init__(self, contents: ContentStore, *, torn: bool, power: bool) -> None:
        self._contents = contents
        self._torn = torn
        self._power = power

    def states(
        self,
        start: Tree | None,
        changes: Sequence[Change],
        known: set[frozenset[object]],
        *,
        steps: int,
        parent: str | None = None,
        order: Order | None = None,
    ) -> list[CrashState]:
        """Return the states that are not in ``known``, and add them to it.

        Args:
            start: The directory's content before the run.
            changes: The recorded changes.
            known: The keys of the trees that were found before.
            steps: The number of steps of the run.
            parent: The state from which the run resumed, if any.
            order: For changes of several ranks, one order of them.
        """
        found: list[CrashState] = []
        until = _until(start, changes, steps)
        numbers: dict[str, int] = {}
        for one in self._all(start, changes):
            key = tree_key(one.tree)
            if key in known:
                continue
            known.add(key)
            base = f"{one.label}#{one.step}"
            if order is not None and one.index is not None:
                base = order.prefixes[one.index] + base
            numbers[base] = number = numbers.get(base, 0) + 1
            name = base if number == 1 else f"{base}.{number}"
            state = CrashState(
                name,
                one.step,
                one.path,
                one.what,
                one.tree,
                one.torn,
                max(one.step, until.get(key, 0)),
                parent,
            )
            found.append(state if order is None else _in_order(state, order, one))
        return found

    def of_ranks(
        self,
        start: Tree | None,
        orders: Sequence[Order],
        known: set[frozenset[object]],
        *,
        steps: int,
        parent: str | None = None,
    ) -> list[CrashState]:
        """Return the states that several ranks leave, so that each comes after those before it.

        Args:
            start: The directory's content before the run.
            orders: Orders of the changes of all ranks.
            known: The keys of the trees that were found before.
            steps: The number of steps of the run.
            parent: The state from which the run resumed, if any.
        """
        found: list[CrashState] = []
        for number, order in enumerate(orders):
            first = start if number == 0 else None
            found += self.states(
                first, order.changes, known, steps=steps, parent=parent, order=order
            )
        return sorted(found, key=lambda state: sum(state.cut))

    def _all(self, start: Tree | None, changes: Sequence[Change]) -> Iterator[_Found]:
        if start is not None:
            yield _Found("start", 0, "", "before anything was written", start)
        for index, (change, target) in enumerate(zip(changes, _renamed_to(changes), strict=True)):
            for one in self._after(changes, index, change, target):
                yield dataclasses.replace(one, index=index)

    def _after(
        self, changes: Sequence[Change], index: int, change: Change, target: str | None
    ) -> Iterator[_Found]:
        if self._torn and change.kind == "grew":
            yield from self._cuts(changes, index, target)
        if change.after is not None and change.kind not in ("closed", "synced"):
            label, what = _named(changes, index, target)
            yield _Found(label, change.step, change.path, what, change.after)
        if self._power:
            yield from self._power_losses(change)

    # -- torn writes -------------------------------------------------------------------------------

    def _cuts(self, changes: Sequence[Change], index: int, target: str | None) -> Iterator[_Found]:
        """Yield the file cut at lengths that it had in between and that were not seen."""
        change = changes[index]
        content = _content(change.after, change.path)
        if content is None or change.before is None:
            return
        first, final = _version(changes, index)
        held = change.before.get(change.path)
        for size, why in sorted(self._lengths(change, content, first, final).items()):
            if change.start < size < content.size or (
                size == change.start == 0 and not isinstance(held, File)
            ):
                torn = self._with(change.before, change.path, self._contents.cut(content, size))
                label, what = (
                    f"{_name(change.path, target)}@{size}",
                    f"{change.path} cut at byte {size} of {final}{why}",
                )
                yield _Found(label, change.step, change.path, what, torn, torn=True)

    def _lengths(self, change: Change, content: Content, first: int, final: int) -> dict[int, str]:
        """Return the lengths at which a file may be cut, with the reasons.

        The file grew from ``first`` to ``final`` since it was opened.

        Source: ``generic_perform_write`` of the Linux kernel looks for a fatal signal after each
        page, and after each group of pages. So a kill cuts one write only at a multiple of the page
        size. It never cuts a write within a page.
        """
        middle = first + (final - first) // 2
        found = {0: ""} if first == 0 else {}
        if self._power and change.path in change.unsynced:
            found.update(dict.fromkeys((middle, final - 1), " by a power loss"))
        if change.writes > 1:
            ends = self._ends_of_writes(change, content) or _likely_ends_of_writes(change, content)
            found.update(dict.fromkeys(ends, f" (estimated: one call made {change.writes} writes)"))
        found.update((size // mmap.PAGESIZE * mmap.PAGESIZE, "") for size in (middle, final - 1))
        return found

    def _ends_of_writes(self, change: Change, content: Content) -> tuple[int, ...]:
        """Return where writes ended, if there were as many writes as lines.

        Each line is then assumed to be one write. Return an empty tuple otherwise.
        """
        size = content.size - change.start
        added = self._contents.part(content, change.start, size) if size <= BLOCK_BYTES else b""
        if not added.endswith(b"\n") or added.count(b"\n") != change.writes:
            return ()
        ends = list(
            itertools.accumulate(
                (len(line) + 1 for line in added.split(b"\n")[:-2]), initial=change.start
            )
        )[1:]
        return ends[(len(ends) - 1) // 2], ends[-1]

    def _with(self, tree: Tree, path: str, content: Content | None) -> Tree:
        """Return the tree with that content at a path, or without the path for None."""
        others = {name: node for name, node in tree.items() if name != path}
        if content is None:
            return others
        held = tree.get(path)
        return {
            **others,
            path: dataclasses.replace(held, content=content)
            if isinstance(held, File)
            else File(content),
        }

    # -- power losses ------------------------------------------------------------------------------

    def _power_losses(self, change: Change) -> Iterator[_Found]:
        """Yield the states that a power loss may leave after a change.

        After a file is complete under its name, its data may be lost while the name remains, or the
        name may be lost. After a removal, the removal may last while the data of the replacement is
        lost.

        Source: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014; the
        ``auto_da_alloc`` and ``data=`` options of ext4.
        Fidelity: the order of a file system's own writes is not imitated (ext4 writes back a file
        that is renamed over another).
        """
        tree, path = change.after, change.path
        if tree is not None and change.kind == "removed":
            yield from self._lost_with(change, tree)
            return
        content = _content(tree, path)
        if tree is None or content is None or change.kind not in COMPLETING:
            return
        if path in change.unsynced and content.size:
            for variant, left in (("empty", EMPTY), ("zeros", self._contents.zeros(content.size))):
                what = f"{path} {'empty' if left is EMPTY else 'filled with zeros'} after a power loss (no fsync wrote it back)"
                yield _Found(
                    f"{path}~{variant}",
                    change.step,
                    path,
                    what,
                    self._with(tree, path, left),
                    torn=True,
                )
        if path in change.loose:
            what = f"{path} lost by a power loss (no fsync wrote its directory back)"
            if change.kind == "moved" and change.before is not None:
                yield _Found(f"{path}~lost", change.step, path, what, change.before, torn=True)
            elif change.kind != "moved":
                yield _Found(
                    f"{path}~lost", change.step, path, what, self._with(tree, path, None), torn=True
                )

    def _lost_with(self, change: Change, tree: Tree) -> Iterator[_Found]:
        held = {
            name: node
            for name in change.unsynced
            if isinstance(node := tree.get(name), File) and node.content.size
        }
        for variant in ("empty", "zeros") if held else ():
            lost = {
                name: dataclasses.replace(
                    node,
                    content=EMPTY
                    if variant == "empty"
                    else self._contents.zeros(node.content.size),
                )
                for name, node in held.items()
            }
            left = "empty" if variant == "empty" else "filled with zeros"
            what = f"{change.path} removed, and {', '.join(sorted(held))} {left} after a power loss (no fsync wrote it back)"
            yield _Found(
                f"{change.path}~removed~{variant}",
                change.step,
                change.path,
                what,
                {**tree, **lost},
                torn=True,
            )


def _in_order(state: CrashState, order: Order, one: _Found) -> CrashState:
    """Add the ranks to a state."""
    if one.index is None:
        return dataclasses.replace(state, cut=tuple(0 for _ in (order.after or [()])[0]))
    return dataclasses.replace(
        state,
        what=state.what + order.remarks[one.index],
        cut=(order.before if one.torn else order.after)[one.index],
    )


def _until(
    start: Tree | None, changes: Sequence[Change], steps: int
) -> dict[frozenset[object], int]:
    """Return the last step during which the directory held each content."""
    found: dict[frozenset[object], int] = {}
    now = tree_key(start) if start is not None else None
    for change in changes:
        if change.after is None or change.after is change.before:
            continue
        key = tree_key(change.after)
        if now is not None and key != now:
            found[now] = max(change.step, found.get(now, 0))
        now = key
    if now is not None:
        found[now] = steps
    return found


def _content(tree: Tree | None, path: str) -> Content | None:
    node = tree.get(path) if tree is not None else None
    return node.content if isinstance(node, File) else None


def _version(changes: Sequence[Change], index: int) -> tuple[int, int]:
    """Return a file's lengths when it was opened and when it was closed."""
    path = changes[index].path
    first = changes[index].start
    for earlier in range(index - 1, -1, -1):
        change = changes[earlier]
        if change.path == path:
            if change.kind != "grew":
                break
            first = change.start
    return first, _final(changes, index)


def _likely_ends_of_writes(change: Change, content: Content) -> tuple[int, ...]:
    """Return where one of several writes may have ended.

    These are the middle, one byte before the end, and the last whole block, because C's buffers
    write whole blocks.
    """
    size = content.size - change.start
    return (
        change.start + size // 2,
        change.start + size // mmap.PAGESIZE * mmap.PAGESIZE,
        content.size - 1,
    )


def _final(changes: Sequence[Change], index: int) -> int:
    """Return the length of a file when it is closed."""
    path, size = changes[index].path, 0
    for later in range(index, len(changes)):
        change = changes[later]
        if change.path == path or change.source == path:
            content = _content(change.after, path)
            if content is not None and change.kind in ("created", "grew", "rewritten"):
                size = content.size
            elif content is None or later > index:
                break
    return size


def _named(changes: Sequence[Change], index: int, target: str | None) -> tuple[str, str]:
    """Return the label and the text of the state after a change.

    ``target`` is the path to which the file is renamed later.
    """
    change = changes[index]
    path, content = change.path or ".", _content(change.after, change.path)
    name = _name(change.path, target) or "."
    if change.kind == "removed":
        return f"{path}~removed", f"{path} removed"
    if change.kind == "moved":
        return name, f"{path} just renamed from {change.source}"
    if change.kind == "link":
        return name, f"{path} just linked"
    if change.kind == "folder":
        return name, f"directory {path} just created"
    if change.kind == "arrived" or content is None:
        return name, f"{path} just put in place"
    final = _final(changes, index)
    if content.size < final or (final == 0 and change.kind == "truncated"):
        return f"{name}@{content.size}", f"{path} cut at byte {content.size} of {final}"
    return name, f"{path} complete" if change.kind != "rewritten" else f"{path} rewritten in place"


def _name(path: str, target: str | None) -> str:
    """Return a file's name in a state's id.

    This is its path, or the path to which it is renamed if its own name differs in each run.
    """
    if target is None:
        return path
    own, final = path.rpartition("/")[2], target.rpartition("/")[2]
    rest = own.replace(final, "", 1)
    is_stable = (
        final in own
        and len(rest) <= MAX_STABLE_LETTERS
        and not any(letter.isdigit() for letter in rest)
    )
    return path if is_stable else f"{target}~tmp"


def _renamed_to(changes: Sequence[Change]) -> list[str | None]:
    """Return for each change the path to which its file or directory is renamed later, or None."""
    found: list[str | None] = [None] * len(changes)
    later: dict[str, str | None] = {}
    for index in range(len(changes) - 1, -1, -1):
        change = changes[index]
        found[index] = later.get(change.path)
        if change.kind in ("removed", "created", "arrived", "moved"):
            later[change.path] = None
        if change.kind == "moved" and change.source is not None:
            later[change.source] = change.path
    return found


def completed_writes(changes: Sequence[Change]) -> list[Change]:
    """Return the changes that completed a file under its final name."""
    return [
        change
        for change, target in zip(changes, _renamed_to(changes), strict=True)
        if _content(change.after, change.path) is not None
        and (change.kind in ("moved", "arrived") or (change.kind == "closed" and target is None))
    ]
