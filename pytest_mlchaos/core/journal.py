"""The journal: an append-only record of the faults that struck. No times, no values of the user's data."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

__all__ = ["Journal", "Strike"]


@dataclasses.dataclass(frozen=True, slots=True)
class Strike:
    """One fault that struck: at which site and visit, and what it did (shapes and counts)."""

    fault: str
    site: str
    visit: int
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.fault} struck {self.site} {self.visit}"

    def of_rank(self, rank: int) -> Strike:
        """Return the strike as one of this rank."""
        return dataclasses.replace(self, details={"rank": rank, **self.details})

    def as_dict(self) -> dict[str, Any]:
        """The strike as plain data."""
        return {"fault": self.fault, "site": self.site, "visit": self.visit, **({"details": dict(self.details)} if self.details else {})}


class Journal(Sequence[Strike]):
    """The strikes of one trial, in the order in which they happened.

    As text (``lines``) they have an order that no thread decides: process after process, and in each by site, visit and what struck.
    """

    def __init__(self, refresh: Callable[[], object] = lambda: None) -> None:
        """Make an empty journal. ``refresh`` is called before it is read: it appends what other processes have told."""
        self._refresh = refresh
        self._strikes: list[Strike] = []
        self._ends: set[int] = set()  # how many strikes there were when a process ended

    def append(self, strike: Strike) -> None:
        """Record one more."""
        self._strikes.append(strike)

    def end_process(self) -> None:
        """The strikes so far come before all that follow, in any order of lines."""
        self._ends.add(len(self._strikes))

    @overload
    def __getitem__(self, item: int) -> Strike: ...
    @overload
    def __getitem__(self, item: slice) -> tuple[Strike, ...]: ...
    def __getitem__(self, item: int | slice) -> Strike | tuple[Strike, ...]:
        self._refresh()
        return tuple(self._strikes[item]) if isinstance(item, slice) else self._strikes[item]

    def __len__(self) -> int:
        self._refresh()
        return len(self._strikes)

    def __iter__(self) -> Iterator[Strike]:
        self._refresh()
        return iter(tuple(self._strikes))

    def __repr__(self) -> str:
        return f"<Journal of {len(self)} strikes>"

    def lines(self, **context: Any) -> list[str]:
        """Return one JSON object for each strike, in a fixed order of lines and keys: equal journals are equal byte for byte."""
        self._refresh()
        lines = []
        for start, end in itertools.pairwise(sorted({0, *self._ends, len(self._strikes)})):
            told = [(strike.site, strike.visit, _line(strike, context)) for strike in self._strikes[start:end]]
            lines += [line for _, _, line in sorted(told)]
        return lines


def _line(strike: Strike, context: Mapping[str, Any]) -> str:
    return json.dumps({**context, **strike.as_dict()}, sort_keys=True, default=str)
