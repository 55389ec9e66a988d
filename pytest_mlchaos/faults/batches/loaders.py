"""Define faults of a loader: it fails, or its stream is interrupted."""

from __future__ import annotations

from typing import Any, ClassVar

from ...core.faults import is_drawn, register
from ...core.sites import Visit, derive_seed
from ...core.validation import format_value, index, parse_duration
from ...errors import BadArgument
from ..calls import error_name, make_error
from ..data_fault import DataFault

__all__ = ["LoaderFailure", "StreamInterruption"]
LAYER = "Batches"


@register
class LoaderFailure(DataFault):
    """The loader raises instead of returning a batch.

    Args:
        error: An exception class or instance, or its name (``"OSError(5, 'Input/output error')"``),
            as the dataset's own code would raise it. This batch is lost, and the next call gets the
            next one. Without it, a worker has died: ``RuntimeError: DataLoader worker (pid(s) ...)
            exited unexpectedly``. The next calls of this iterator get the same error, until the
            loop begins a new epoch.

    Imitates: a worker that the kernel's OOM killer or a segmentation fault has ended; a broken
    sample; a file that is gone.

    Fidelity: a worker that "died" is ended in order, and so are the others. Persistent workers are
    not touched.

    Source: the text is torch's, torch/utils/data/dataloader.py

    Example: ``@chaos.loader_failure(at=2)``
    """

    member_of: ClassVar = {"bad_data": 20}
    site = "data.batch"
    random = False
    error: Any = None

    def check(self) -> None:
        """Store ``error`` by its name, so that a schedule stays plain data."""
        if self.error is not None and not is_drawn(self.error):
            object.__setattr__(self, "error", error_name(self.error, self.name))

    def apply(self, visit: Visit) -> None:
        """Raise the error."""
        if self.error is not None:
            visit.fail(make_error(self.error, "the loader", self.name))
        pid = 10_000 + derive_seed("pid", visit.index) % 50_000
        text = f"DataLoader worker (pid(s) {pid}) exited unexpectedly"
        if visit.source is not None:
            visit.source.end(RuntimeError(text))
        _end_workers(visit.attributes.get("loader"))
        visit.fail(RuntimeError(text))


def _end_workers(iterator: object) -> None:
    """End a loader's workers now.

    The exception keeps the iterator alive, and the garbage collector would take 5 s for each
    worker.
    """
    end = getattr(iterator, "_shutdown_workers", None)
    if end is not None and not getattr(iterator, "_persistent_workers", False):
        end()


@register
class StreamInterruption(DataFault):
    """The stream of batches breaks off: it ends now, or goes on after a gap.

    Args:
        resume_after: The number of batches, from this one on, that are lost before the stream goes
            on. Without it, the epoch ends early, without an error.
        gap: The duration of the gap: seconds, or ``"30s"``.

    Imitates: a streaming dataset whose connection is closed, a consumer group that rebalances and
    comes back at a later offset, a sharded reader that takes a missing shard for the end.

    Fidelity: the batch at which the stream breaks off is lost, and the next epoch is complete.
    ``len(loader)`` still counts all.

    Example: ``@chaos.stream_interruption(resume_after=3, gap="30s", at=2)``
    """

    changes_result = True
    member_of: ClassVar = {"bad_data": 24}
    site = "data.batch"
    random = False
    scales: ClassVar = {"resume_after": (1, 4, 16, 64, 256)}
    resume_after: int | None = None
    gap: Any = 0.0

    def check(self) -> None:
        """Check the parameters, and convert ``gap`` to seconds."""
        if index(self.resume_after) == 0 or (
            isinstance(self.resume_after, int) and self.resume_after < 0
        ):
            raise BadArgument(
                f"stream_interruption: resume_after must be 1 or more, got "
                f"{format_value(self.resume_after)}"
            )
        if not is_drawn(self.gap):
            object.__setattr__(self, "gap", parse_duration(self.gap, f"{self.name}: gap"))

    def apply(self, visit: Visit) -> Any:
        """End the stream, or skip part of it."""
        lost = self.scaled("resume_after")
        visit.note(lost="the rest" if lost is None else lost)
        if self.gap:  # an interruption may lose no batch
            visit.sleep(self.gap)
        if lost is None:
            visit.stream.end()
            visit.fail(StopIteration())
        following = visit.payload
        for _ in range(lost):
            following = visit.stream.pull()
        return following
