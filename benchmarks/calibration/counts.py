"""Keep how often each simulation gave an alarm, and judge the rates.

A file in ``counts/`` has a line for each simulation of an area: the number of repetitions, in how
many of them the oracle raised the false alarm or found the effect, and the outcomes of the first
ones, by which a later run notices that the oracle has changed. The number of a repetition and the
key of its line seed its random numbers, so a run continues where the last one stopped.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_mlchaos.oracles.intervals import clopper_pearson

from . import SHAPES, Case, cases

__all__ = [
    "CONFIDENCE",
    "EXCEPTIONS",
    "FOLDER",
    "SHARES",
    "TOLERATED",
    "WANTED",
    "WANTED_CURVE",
    "Count",
    "Key",
    "curve_size",
    "find_problem",
    "has_to_run",
    "jobs",
    "read",
    "simulate",
    "write",
]

FOLDER = Path(__file__).parent / "counts"
WANTED = 1_000
"""The fewest repetitions of a rate that is judged."""
WANTED_CURVE = 400
MOST = 10_000
"""A rate that is not decided after this number of repetitions is violated."""
REMEMBERED = 20
CONFIDENCE = 0.99
TOLERATED = 1.5
"""The upper bound of a rate of false alarms may be so many times alpha."""
EXCEPTIONS: dict[str, str] = {
    f"{oracle} | null | {n} | skewed": "`assert_not_worse` assumes that paired differences are "
    "symmetric about their mean, as its docstring says. With rare large losses it is wrong more often"
    for oracle, sizes in (
        ("assert_not_worse", (8, 16, 50)),
        ("assert_not_worse (sequential, passes)", (8, 50, 500)),
        ("assert_not_worse (sequential, worse)", (8, 50, 500)),
    )
    for n in sizes
}
"""Rates that are known to be violated, by their line in the counts, with the reason."""
SHARES = (0.25, 0.5, 0.75)
"""The points of a curve of power, as shares of the documented effect."""


@dataclasses.dataclass(frozen=True, order=True)
class Key:
    """A simulation.

    Attributes:
        oracle: The name of the case.
        kind: ``"null"`` or ``"effect"``.
        n: The number of samples.
        shape: The distribution of the data.
        share: The share of the documented effect.
    """

    oracle: str
    kind: str
    n: int
    shape: str
    share: float = 1.0

    def __str__(self) -> str:
        share = "" if self.share == 1 else f" x {self.share:g}"
        return f"{self.oracle} | {self.kind}{share} | {self.n} | {self.shape}"

    @classmethod
    def of(cls, text: str) -> Key:
        """Return the key that a text stands for."""
        oracle, what, n, shape = text.split(" | ")
        kind, _, share = what.partition(" x ")
        return cls(oracle, kind, int(n), shape, float(share or 1))


@dataclasses.dataclass(frozen=True)
class Count:
    """How often something happened."""

    repetitions: int = 0
    found: int = 0
    first: str = ""

    def added(self, outcomes: str) -> Count:
        """Return the count after more repetitions, each of which is 0 or 1."""
        return Count(
            self.repetitions + len(outcomes),
            self.found + outcomes.count("1"),
            (self.first + outcomes)[:REMEMBERED],
        )

    @property
    def rate(self) -> float:
        """Return the share of repetitions in which it happened."""
        return self.found / max(self.repetitions, 1)

    @property
    def low(self) -> float:
        """Return the exact lower bound of the rate."""
        return self._bounds("lower").low if self.repetitions else 0.0

    @property
    def high(self) -> float:
        """Return the exact upper bound of the rate."""
        return self._bounds("upper").high if self.repetitions else 1.0

    def _bounds(self, side: Any) -> Any:
        return clopper_pearson(self.found, self.repetitions, CONFIDENCE, side)


def jobs(area: str) -> Iterator[Key]:
    """Yield everything that is simulated of an area."""
    for oracle, case in cases(area).items():
        for n in case.sizes:
            for shape in case.shapes:
                yield Key(oracle, "null", n, shape)
                yield Key(oracle, "effect", n, shape)
        for share in SHARES:
            yield Key(oracle, "effect", curve_size(case), case.shapes[0], share)


def curve_size(case: Case) -> int:
    """Return the number of samples for which a curve is drawn."""
    return max(n for n in case.sizes if n <= 500)


def simulate(key: Key, case: Case, start: int, stop: int) -> str:
    """Return 1 or 0 for each repetition."""
    import numpy as np

    seed = zlib.crc32(f"{key.oracle} {key.kind} {key.share:g}".encode())
    found = []
    for repetition in range(start, stop):
        rng = np.random.default_rng([seed, key.n, SHAPES.index(key.shape), repetition])
        if key.kind == "null":
            found.append(case.null(rng, key.n, key.shape))
        else:
            found.append(case.effect(rng, key.n, key.shape, key.share))
    return "".join(str(int(one)) for one in found)


def find_problem(key: Key, count: Count, case: Case) -> str:
    """Return which promise a rate violates, or an empty text."""
    few = count.repetitions < WANTED
    if key.kind == "null":
        most = TOLERATED * case.alpha
        if count.low > most or (count.repetitions >= MOST and count.high > most):
            return f"false alarms: {count.rate:.3f}, at most {count.high:.3f}, expected {most:.3f}"
        return ""
    least = case.power.get(key.n)
    if least is None or key.share != 1 or few:
        return ""
    if count.high < least or (count.repetitions >= MOST and count.low < least):
        return f"power: {count.rate:.3f}, at least {count.low:.3f}, documented {least:g}"
    return ""


def has_to_run(key: Key, count: Count, case: Case) -> int:
    """Return how many repetitions a rate needs to be decided, with those that it has."""
    if key.share != 1:
        return WANTED_CURVE
    if count.repetitions < WANTED:
        return WANTED
    if find_problem(key, count, case) or count.repetitions >= MOST:
        return count.repetitions
    least = case.power.get(key.n, 0.0)
    is_null = key.kind == "null"
    is_decided = count.high <= TOLERATED * case.alpha if is_null else count.low >= least
    return count.repetitions if is_decided else min(2 * count.repetitions, MOST)


def read(area: str, folder: Path = FOLDER) -> dict[Key, Count]:
    """Return the counts of an area."""
    path = folder / f"{area}.json"
    if not path.exists():
        return {}
    lines = json.loads(path.read_text(encoding="utf-8"))
    return {Key.of(text): Count(*values) for text, values in lines.items()}


def write(area: str, counts: dict[Key, Count], folder: Path = FOLDER) -> None:
    """Write the counts of an area, a line for each, so that diffs can be read."""
    lines = [
        f"{json.dumps(str(key))}: {json.dumps([one.repetitions, one.found, one.first])}"
        for key, one in sorted(counts.items())
    ]
    folder.mkdir(exist_ok=True)
    path = folder / f"{area}.json"
    beside = path.with_suffix(".part")
    beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(beside, path)
