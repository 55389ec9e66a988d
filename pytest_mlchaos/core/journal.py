"""Define the journal: an append-only record of strikes.

It holds no values of the user's data. Its texts have no times, because those may differ.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

from .phases import struck

__all__ = ["Journal", "Strike"]


@dataclasses.dataclass(frozen=True, slots=True)
class Strike:
    """One strike of a fault: its site, its visit, and its effect in shapes and counts."""

    fault: str
    site: str
    visit: int
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.fault} struck {self._visited}"

    @property
    def place(self) -> str:
        """Return the moment in words, for example ``at collective.all_reduce 8 (step 3)``."""
        return f"{self.details.get('when', 'at')} {self._visited}"

    @property
    def _visited(self) -> str:
        """Return the site and the visit, with the operation and the step where they are known."""
        op, step = self.details.get("op"), self.details.get("step")
        facts = [] if op is None or self.site.endswith(f".{op}") else [str(op)]
        if step is not None:
            facts.append(f"step {step}")
        more = f" ({', '.join(facts)})" if facts else ""
        return f"{self.site} {self.visit}{more}"

    def of_rank(self, rank: int) -> Strike:
        """Return the strike with this rank."""
        return dataclasses.replace(self, details={"rank": rank, **self.details})

    def as_dict(self) -> dict[str, Any]:
        """Return the strike as plain data."""
        return {
            "fault": self.fault,
            "site": self.site,
            "visit": self.visit,
            **({"details": dict(self.details)} if self.details else {}),
        }


class Journal(Sequence[Strike]):
    """The strikes of one trial, in the order in which they happened.

    ``in_order`` sorts them, because threads do not run in a fixed order: by process, and in each
    process by site, visit and fault.
    """

    def __init__(self, refresh: Callable[[], object] = lambda: None) -> None:
        """Make an empty journal.

        ``refresh`` is called before each read, to add the strikes of other processes.
        """
        self._refresh = refresh
        self._strikes: list[Strike] = []
        # By the identity of the strike, so that threads cannot mix them up.
        self._seconds: dict[int, float] = {}
        # The number of strikes at each end of a process.
        self._ends: set[int] = set()

    def append(self, strike: Strike, seconds: float | None = None) -> None:
        """Add a strike.

        Args:
            strike: The strike.
            seconds: Its time since the start of the trial, on the trial's clock. None if a
                different process reported it.
        """
        if seconds is not None:
            self._seconds[id(strike)] = seconds
        self._strikes.append(strike)
        struck(strike)

    def end_process(self) -> None:
        """Keep the strikes so far before all later ones in ``in_order``."""
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

    def in_order(self) -> list[Strike]:
        """Return the strikes in a fixed order, so that equal journals are written alike."""
        self._refresh()
        found: list[Strike] = []
        for start, end in itertools.pairwise(sorted({0, *self._ends, len(self._strikes)})):
            found += sorted(self._strikes[start:end], key=_place)
        return found

    def seconds_in_order(self) -> list[float | None]:
        """Return the times of the strikes, in the same order."""
        return [self._seconds.get(id(strike)) for strike in self.in_order()]

    def lines(self, **context: object) -> list[str]:
        """Return one JSON object per strike, in a fixed order of lines and keys.

        Equal journals give equal bytes.
        """
        return [_text({**context, **strike.as_dict()}) for strike in self.in_order()]


def _place(strike: Strike) -> tuple[str, int, str]:
    return strike.site, strike.visit, _text(strike.as_dict())


def _text(strike: Mapping[str, Any]) -> str:
    return json.dumps(strike, sort_keys=True, default=str)
