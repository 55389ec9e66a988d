"""Define composite faults: one line asks if code survives everything of one kind."""

from __future__ import annotations

from typing import Any, ClassVar

from ..core.composites import CompositeFault
from ..core.faults import register
from ..core.validation import parse_duration

__all__ = ["BadData", "BadDay", "BadStorage"]
LAYER = "Many faults at once"


@register
class BadData(CompositeFault):
    """The data are damaged, incomplete, late or repeated.

    The search tries each fault of files, tables, records, batches and streams that fits the test.
    A fault fits if the trial without faults passed its site. Each trial has one fault. Set
    ``max_faults`` for more.

    Imitates: a day on which an upstream job failed.

    Fidelity: damage that a sound program cannot notice is not tried, for example a digit that
    differs in a CSV file. Declare ``damaged_file(kind="bit_flip")`` or ``corrupt_batch`` for that.
    Events of a ``target`` are repeated only if they have an id or a time, and reordered only if
    they have a time.

    Example: @chaos.bad_data
    """


@register
class BadStorage(CompositeFault):
    """Storage and networks are slow, full, unreachable, or break half-way.

    The search tries each fault of storage and networks that fits the test. A fault fits if the
    trial without faults passed its site. Each trial has one fault. Set ``max_faults`` for more.

    Imitates: a failing disk, a full volume, an object store that throttles or times out.

    Fidelity: damage that a sound client cannot notice is not tried, for example a bit that flips on
    the way. Declare ``corrupt_bytes`` for that.

    Example: @chaos.bad_storage
    """


@register
class BadDay(CompositeFault):
    """Anything goes wrong: data, storage, the network, the process, the device, or the model.

    The search tries each fault of ``bad_data`` and ``bad_storage``, and those of training and
    serving that a sound program survives. A fault fits if the trial without faults passed its
    site. The search ends after its budget, and the report says what it did not try.

    Args:
        budget: The time limit of the search: seconds, or ``"2m"``. None for no limit. The setting
            ``budget`` of the test has priority.

    Imitates: a bad day.

    Fidelity: that of each fault that it tries.

    Example: @chaos.bad_day
    """

    includes: ClassVar = (BadData.name, BadStorage.name)
    budget: Any = 60.0

    def check(self) -> None:
        """Convert ``budget`` to seconds."""
        super().check()
        if self.budget is not None:
            seconds = parse_duration(self.budget, f"{self.name}: budget")
            object.__setattr__(self, "budget", seconds)

    @property
    def budget_seconds(self) -> float | None:
        """Return the time limit of the search."""
        seconds: float | None = self.budget
        return seconds
