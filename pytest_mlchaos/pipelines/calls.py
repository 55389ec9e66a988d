"""Define the calls of a pipeline that a judgement needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..core.records import Output

__all__ = ["Calls", "Step"]

Step = Callable[..., object] | None
"""A call of the pipeline (None), or a change of its input."""


class Calls(Protocol):
    """The pipeline, for the calls that a judgement needs."""

    def golden(
        self, steps: Sequence[Step] = (None,), look: Callable[[Any], Any] | None = None
    ) -> Output:
        """Return the output of the last of these steps without faults, from the start.

        ``look`` receives the value while the directories of this run are in place.
        """
        ...

    def again(self, died: bool, changed: Step = None) -> Output:
        """Call the pipeline again, without faults, perhaps after a change of its input."""
        ...

    def repeat(self, *, faults: bool = True) -> tuple[Mapping[str, list[str]], int]:
        """Repeat the first call. Return what it did not release, and the number of strikes."""
        ...

    def find(self, name: str) -> Path | None:
        """Return the path of a file of an output, in the directories as they are now."""
        ...
