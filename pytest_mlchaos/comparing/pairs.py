"""Define the record of one seed, as data."""

from __future__ import annotations

import dataclasses

__all__ = ["SeedPair"]


@dataclasses.dataclass(frozen=True, slots=True)
class SeedPair:
    """The metrics of one seed.

    Attributes:
        seed: The seed.
        golden: The metric without faults.
        faulted: The metric under the test's faults.
        missed: The faults that did not strike. If there are any, the pair is not evidence.
    """

    seed: int
    golden: float
    faulted: float
    missed: tuple[str, ...] = ()
