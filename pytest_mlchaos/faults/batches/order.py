"""Define faults of the order, the number and the size of batches."""

from __future__ import annotations

from typing import Any, ClassVar

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.validation import check_share, format_value, parse_duration
from ...engine.changes import alike, fingerprint
from ...errors import BadArgument
from ..data_fault import DataFault
from .base import Batch, copy_payload

__all__ = [
    "DelayBatch",
    "DropBatch",
    "DuplicateBatch",
    "EmptyBatch",
    "ReorderBatches",
    "ShortBatch",
    "StaleBatch",
]
LAYER = "Batches"


def _check_number(fault: DataFault, name: str, least: int) -> None:
    value = getattr(fault, name)
    if value is not None and not is_drawn(value) and value < least:
        raise BadArgument(
            f"{fault.name}: {name} must be {least} or more, got {format_value(value)}"
        )


@register
class DropBatch(DataFault):
    """A batch, or several in a row, never reach the loop. It gets the next one.

    Args:
        count: The number of lost batches.

    Imitates: a shard that cannot be read and is skipped, a worker whose result is dropped, a
    consumer that missed messages.

    Fidelity: the batches are loaded and thrown away. A library that skips a shard spends no time on
    it.

    Example: ``@chaos.drop_batch(at=2)``
    """

    site = "data.batch"
    random = False
    scales: ClassVar = {"count": (1, 2, 4, 8, 16)}
    count: int = 1

    def check(self) -> None:
        """Check the parameters."""
        _check_number(self, "count", 1)

    def apply(self, visit: Visit) -> Any:
        """Return the next batch instead. If there is none, the stream ends."""
        count = self.scaled("count")
        visit.note(count=count)
        following = visit.payload
        for _ in range(count):
            following = visit.stream.pull()
        return following


@register
class DuplicateBatch(DataFault):
    """A batch comes again, right after itself.

    Args:
        copies: The number of additional copies. They share no memory with the batch.

    Imitates: a message that is delivered at least once, a sampler that starts a shard anew, a retry
    whose first attempt had succeeded.

    Fidelity: the copies come at once and next to each other.

    Example: ``@chaos.duplicate_batch(at=2)``
    """

    site = "data.batch"
    random = False
    scales: ClassVar = {"copies": (1, 2, 4, 8, 16)}
    copies: int = 1

    def check(self) -> None:
        """Check the parameters."""
        _check_number(self, "copies", 1)

    def apply(self, visit: Visit) -> None:
        """Put the batch into the stream again."""
        copies = self.scaled("copies")
        visit.note(copies=copies)
        visit.stream.push(*(copy_payload(visit.payload) for _ in range(copies)))


@register
class ReorderBatches(DataFault):
    """The next batches come in a different order.

    None is lost. Fewer are reordered if the stream ends before. At the last batch nothing can be
    reordered, and no strike counts.

    Args:
        window: The number of batches that change places.

    Imitates: workers that finish out of order, partitions of a queue that are read in turns, a
    loader without ``in_order``.

    Fidelity: they are held back until all are there, so the first comes late and the others at
    once.

    Example: ``@chaos.reorder_batches(window=4, at=0)``
    """

    site = "data.batch"
    scales: ClassVar = {"window": (2, 3, 4, 8, 16)}
    window: int = 4

    def check(self) -> None:
        """Check the parameters."""
        _check_number(self, "window", 2)

    def apply(self, visit: Visit) -> Any:
        """Take batches out of the stream, and put them back in a different order."""
        import numpy as np

        held = [visit.payload]
        try:
            while len(held) < self.scaled("window"):
                held.append(visit.stream.pull())
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001
            # The loader may raise anything. Raise it after these batches.
            visit.stream.end(error)
        if len(held) < 2:
            visit.skip()
            return None
        rng = np.random.default_rng(visit.seed)
        order = rng.permutation(len(held))
        prints = [fingerprint(one) for one in held]
        # equal batches get one number, so swapping them does not count as a change
        kinds = [place if one is None else prints.index(one) for place, one in enumerate(prints)]
        for _ in held:
            if [kinds[place] for place in order] != kinds:
                break
            order = np.roll(order, 1)
        else:
            visit.stream.push(*held[1:])
            visit.skip()
            return None
        visit.note(order=[int(place) for place in order])
        first, *others = [held[place] for place in order]
        visit.stream.push(*others)
        return first


@register
class DelayBatch(DataFault):
    """A batch comes later.

    Args:
        delay: Seconds, or ``"150ms"``, ``"2s"``.

    Imitates: slow storage, a cold cache, a starved preprocessing worker, a back-pressured queue.

    Fidelity: the loop waits at the loader, and workers go on loading ahead meanwhile. With workers
    time is real, also if the clock of the test is virtual: the loop really waits. Severities 4 and
    5 (1 and 10 minutes) then exceed a test's default time limit.

    Example: ``@chaos.delay_batch(delay="30s", at=2)``
    """

    site = "data.batch"
    random = False
    scales: ClassVar = {"delay": (0.1, 1.0, 10.0, 60.0, 600.0)}
    delay: Any = 1.0

    def check(self) -> None:
        """Convert ``delay`` to seconds."""
        if not is_drawn(self.delay):
            object.__setattr__(self, "delay", parse_duration(self.delay, f"{self.name}: delay"))

    def apply(self, visit: Visit) -> None:
        """Wait."""
        visit.sleep(self.scaled("delay"))


@register
class StaleBatch(DataFault):
    """An earlier batch comes again in the place of this one, which is lost.

    Args:
        age: The number of batches between them. At visits before that, no strike counts.

    Imitates: a pinned or shared-memory buffer that is read before it was filled anew, a cache under
    the wrong key, a feature that is not refreshed.

    Fidelity: the whole batch is the old one. A real race mixes old and new bytes. It is a copy of
    what the loader returned then.

    Example: ``@chaos.stale_batch(age=1, at=3)``
    """

    site = "data.batch"
    random = False
    scales: ClassVar = {"age": (1, 2, 4, 8, 16)}
    age: int = 1

    def check(self) -> None:
        """Check the parameters."""
        _check_number(self, "age", 1)

    def observe(self, visit: Visit) -> None:
        """Keep a copy of a batch that will be needed later."""
        age = self.scaled("age")
        visit.memory.pop(visit.index - age - 1, None)
        if visit.is_due(visit.index + age):
            visit.memory[visit.index] = copy_payload(visit.payload)

    def apply(self, visit: Visit) -> Any:
        """Return the old batch."""
        age = self.scaled("age")
        visit.note(age=age)
        old = visit.memory.pop(visit.index - age, None)
        if old is None or alike(old, visit.payload):
            visit.skip()
            return None
        return old


@register
class ShortBatch(DataFault):
    """A batch has fewer samples: the last ones are missing, in all fields alike.

    These hold an entry for each sample: arrays, along their first axis, and lists and tuples of
    that length with any content (texts, images, dicts, None, arrays of different first axes).
    Dicts, dataclasses, named tuples and other objects with arrays in their attributes are
    structures of such fields. So are lists and tuples of arrays that agree on the first axis (``[x,
    y]``). A list is one of samples if its items are dicts or tuples alike that hold single numbers
    or first axes that differ, or if it has three or more images of 1 or 3 channels. So a list of
    images next to a list of dicts is cut in both. If fields disagree on the number of samples, or
    both readings are possible, the batch is refused. Tuples, dicts and one array for the labels
    make it clear.

    Args:
        fraction: The share of missing samples. At least one is missing, and at least one stays.
        size: The number of samples that stay, instead of ``fraction``.

    Imitates: the last batch of an epoch without ``drop_last``, a consumer's time-out, rows that a
    filter has removed.

    Fidelity: the missing samples are lost. They do not come with the next batch.

    Example: ``@chaos.short_batch(size=1, at=2)``
    """

    changes_result = True
    member_of: ClassVar = {"bad_data": 34}
    site = "data.batch"
    random = False
    scales: ClassVar = {"fraction": (0.1, 0.25, 0.5, 0.75, 0.9)}
    fraction: float = 0.5
    size: int | None = None

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.fraction):
            check_share(self.name, "fraction", self.fraction)
        _check_number(self, "size", 1)
        if (
            self.size is not None
            and not is_drawn(self.fraction)
            and (self.fraction != 0.5 or self.severity is not None)
        ):
            raise BadArgument(
                f"short_batch: size={self.size!r} is the number of samples left, so give neither "
                f"fraction nor severity"
            )

    def apply(self, visit: Visit) -> Any:
        """Return the first samples."""
        batch = Batch(self.name, visit.payload)
        samples = batch.samples()
        left = (
            self.size
            if self.size is not None
            else max(1, samples - max(1, round(self.scaled("fraction") * samples)))
        )
        if left >= samples:
            raise batch.mismatch(
                f"cannot leave {left} of {samples} samples", ". empty_batch leaves none"
            )
        visit.note(samples=samples, left=left)
        return batch.taken(range(left))


@register
class EmptyBatch(DataFault):
    """A batch has no samples at all. Each array and list of samples has length 0, and the other
    axes stay.

    Samples are recognised as by ``short_batch``.

    Imitates: a filter that removes every row, a collate function that skips broken samples, a
    consumer that timed out.

    Fidelity: types and the other axes are right. What a library makes of no rows (a list, a missing
    field) is not imitated.

    Example: ``@chaos.empty_batch(at=2)``
    """

    changes_result = True
    member_of: ClassVar = {"bad_data": 26}
    site = "data.batch"
    random = False

    def apply(self, visit: Visit) -> Any:
        """Return no samples."""
        batch = Batch(self.name, visit.payload)
        samples = batch.samples()
        if not samples:
            raise batch.mismatch("found no samples to remove", "")
        visit.note(samples=samples)
        return batch.taken(range(0))
