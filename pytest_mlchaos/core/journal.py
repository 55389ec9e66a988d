"""The journal: an append-only record of the faults that struck. No times, no values of the user's data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
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
    """The strikes of one trial, in the order in which they happened."""

    def __init__(self) -> None:
        self._strikes: list[Strike] = []

    def append(self, strike: Strike) -> None:
        """Record one more."""
        self._strikes.append(strike)

    @overload
    def __getitem__(self, item: int) -> Strike: ...
    @overload
    def __getitem__(self, item: slice) -> tuple[Strike, ...]: ...
    def __getitem__(self, item: int | slice) -> Strike | tuple[Strike, ...]:
        return tuple(self._strikes[item]) if isinstance(item, slice) else self._strikes[item]

    def __len__(self) -> int:
        return len(self._strikes)

    def __iter__(self) -> Iterator[Strike]:
        return iter(tuple(self._strikes))

    def __repr__(self) -> str:
        return f"<Journal of {len(self)} strikes>"

    def lines(self, **context: Any) -> list[str]:
        """One JSON object a strike, keys in a fixed order: equal journals are equal byte for byte."""
        return [json.dumps({**context, **strike.as_dict()}, sort_keys=True, default=str) for strike in self._strikes]
