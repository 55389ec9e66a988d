"""Watch a stream of batches for drift, with one false-alarm rate for all looks together."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...core.recording import judged
from ...core.validation import format_value
from ...errors import BadArgument, Drifted, Inconclusive
from ..columns import ColumnValues, columns_of
from .derived import embedded
from .evidence import BINS, PRIORS, Evidence, Ranks
from .findings import label
from .options import check_alpha
from .single import Test, trouble

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DriftMonitor"]

FEWEST_ROWS = 50
"""The smallest reference. With fewer rows, new ones soon outnumber them."""
DIRECTIONS = 5
"""The number of principal directions in which vectors are watched."""
_MOST_SHOWN = 10


class DriftMonitor:
    """Watch batches for drift from a reference, and look after each of them.

    ``alpha`` is the probability of a false alarm *ever*, over all batches and columns: it is a
    sequential test, so you may look as often as you like and stop at any time.

    Numbers are compared by their ranks, categories by an order that a hash decides. Two or more
    columns of numbers are also watched together, and vectors in 5 principal directions: both by the
    distance to the nearest rows of one half of the reference, which sees unusual combinations.

    Args:
        reference: The values to compare with: a column or a table as for ``assert_no_drift``, of 50
            rows or more (100 for vectors).
        alpha: The probability of a false alarm, over all batches.
        kind: ``"embeddings"`` if two-dimensional data are one vector for each row.
        embed: A function of a list of texts that returns a vector for each. For a table, a dict by
            column.

    Example:
        ``monitor = DriftMonitor(reference)``, then ``monitor.update(batch)`` for each batch, which
        returns True from the alarm on, and ``monitor.assert_no_drift()`` at the end.

    Fidelity: rows are exchangeable without drift. A series with a trend or a season drifts by this
    definition. A drift that comes back to the reference, or that begins after thousands of rows,
    needs more rows to be found. Times cannot be watched, because they always move on.

    Source: Vovk, Nouretdinov and Gammerman (2003), "Testing exchangeability on-line". The ranks are
    p-values of conformal prediction, the bets a mixture over histograms and over beginnings.
    """

    def __init__(
        self,
        reference: object,
        *,
        alpha: float = 0.05,
        kind: str | None = None,
        embed: Callable[[list[str]], Any] | Mapping[Any, Callable[[list[str]], Any]] | None = None,
    ) -> None:
        check_alpha("DriftMonitor", alpha)
        if kind not in (None, "embeddings"):
            raise BadArgument(
                f"DriftMonitor: kind must be None or 'embeddings', got {format_value(kind)}"
            )
        self._alpha, self._kind, self._embed = alpha, kind, embed
        self._columns = self._read(reference, "reference")
        self._streams = _streams_of(self._columns)
        self._batches = self._rows = 0
        self._most = 0.0  # the largest logarithm of the evidence
        self._story: str | None = None

    @property
    def batches(self) -> int:
        """Return the number of batches so far."""
        return self._batches

    @property
    def drifted(self) -> bool:
        """Return True from the alarm on."""
        return self._story is not None

    @property
    def p(self) -> float:
        """Return a p-value that is valid at any time: small if drift was seen in any batch."""
        return math.exp(-self._most)

    def update(self, batch: object) -> bool:
        """Add a batch, and return True if a drift was seen, in this batch or before.

        A batch that cannot be judged (empty, NaN, other columns) counts as drift.
        """
        self._batches += 1
        try:
            columns = self._read(batch, "the batch")
            found = _differences(self._columns, columns)
        except BadArgument as error:
            found = str(error)
        if found is not None:
            self._most = math.inf
            self._story = self._story or f"batch {self._batches} cannot be judged: {found}"
            return True
        self._rows += next(iter(columns.values())).rows
        for stream in self._streams:
            stream.add(columns)
        capital = math.log(len(self._streams))
        logs = [stream.evidence.log_capital for stream in self._streams]
        highest = max(logs)
        self._most = max(
            self._most, highest + math.log(sum(math.exp(one - highest) for one in logs)) - capital
        )
        if self._story is None and self._most >= -math.log(self._alpha):
            self._story = self._describe()
        return self.drifted

    def assert_no_drift(self) -> None:
        """Raise ``Drifted`` if a batch so far has shown a drift.

        Raises:
            Drifted: The evidence reached 1 / alpha, or a batch could not be judged.
            Inconclusive: There were so few rows that no drift could have been seen.
        """
        judged("assert_no_drift", None, self._assert)

    def _assert(self) -> None:
        if self._story is not None:
            raise Drifted(self._story)
        fewest = self._fewest_rows()
        if self._rows < fewest:
            raise Inconclusive(
                f"DriftMonitor: {self._rows} rows in {self._batches} batches cannot show any drift. "
                f"Give {fewest} rows or more"
            )

    def _fewest_rows(self) -> int:
        """Return the smallest number of rows that can raise an alarm, if all have the same rank."""
        needed = math.log(2 * len(self._streams) * len(PRIORS) / self._alpha)
        prior, logs, rows = PRIORS[0], 0.0, 0
        while logs < needed:
            logs += math.log(BINS * (prior + rows) / (prior * BINS + rows))
            rows += 1
        return rows

    def _read(self, data: object, what: str) -> dict[Any, ColumnValues]:
        columns = columns_of(data, what, vectors=self._kind is not None)
        return columns if self._embed is None else embedded(columns, self._embed)

    def _describe(self) -> str:
        lines = [
            f"drift after {self._batches} batches ({self._rows} rows): the evidence is "
            f"{math.exp(min(self._most, 700)):.3g} (alarm at {1 / self._alpha:.3g}), p = {self.p:.2g}"
        ]
        ranked = sorted(self._streams, key=lambda one: -one.evidence.log_capital)
        shown = [one for one in ranked if one.evidence.log_capital >= -math.log(self._alpha)]
        for stream in (shown or ranked[:1])[:_MOST_SHOWN]:
            evidence = stream.evidence
            rank = f", mean rank {evidence.mean_rank:.2f} instead of 0.50" if stream.ordered else ""
            lines.append(
                f"{stream.name}: evidence {math.exp(min(evidence.log_capital, 700)):.3g}, since "
                f"batch {evidence.since + 1}{rank}"
            )
        return "\n  ".join(lines)


# -- streams ---------------------------------------------------------------------------------------


class _Stream:
    """One score of each row, and its evidence."""

    def __init__(
        self,
        name: str,
        score: Callable[[Mapping[Any, ColumnValues]], Any],
        reference: np.ndarray[Any, Any],
        seed: int,
        *,
        ordered: bool = True,
    ) -> None:
        self.name, self.ordered = name, ordered
        self.evidence = Evidence()
        self._score, self._ranks = score, Ranks(reference, seed)

    def add(self, columns: Mapping[Any, ColumnValues]) -> None:
        self.evidence.add(self._ranks.next(self._score(columns)))


def _streams_of(columns: Mapping[Any, ColumnValues]) -> list[_Stream]:
    found: list[_Stream] = []
    numeric = [name for name, column in columns.items() if column.kind == "numbers"]
    for name, column in columns.items():
        where = label(name, columns)
        problem = trouble(column, _ANY)
        least = 2 * FEWEST_ROWS if column.kind == "vectors" else FEWEST_ROWS
        if problem is None and column.rows < least:
            problem = f"has {column.rows} values, fewer than {least}"
        if problem is None and column.kind == "times":
            problem = "holds times, which always move on. Give numbers, such as the hour"
        if problem is not None:
            raise BadArgument(f"DriftMonitor: this reference cannot be used: {where} {problem}")
        if column.kind == "numbers":
            found.append(_Stream(where, _numbers(name), _numbers(name)(columns), len(found)))
        elif column.kind == "categories":
            codes = _codes(name)
            found.append(_Stream(where, codes, codes(columns), len(found), ordered=False))
        else:
            found += _vector_streams(where, (name,), columns, len(found), DIRECTIONS)
    if len(numeric) > 1 and columns[numeric[0]].rows >= 2 * FEWEST_ROWS:
        where = f"{len(numeric)} columns together"
        found += _vector_streams(where, tuple(numeric), columns, len(found), 0)
    return found


_ANY = Test("", (), "ks", 0.0, 0.05, 0.05, 10)


def _numbers(name: Any) -> Callable[[Mapping[Any, ColumnValues]], Any]:
    return lambda columns: columns[name].values.astype("f8")


def _codes(name: Any) -> Callable[[Mapping[Any, ColumnValues]], Any]:
    """Return a function that puts categories in an order that no data decide."""
    import numpy as np

    def score(columns: Mapping[Any, ColumnValues]) -> Any:
        known: dict[Any, int] = {}
        for value in columns[name].values:
            if value not in known:
                known[value] = zlib.crc32(repr(value).encode())
        return np.array([known[value] for value in columns[name].values], dtype=float)

    return score


def _vector_streams(
    where: str,
    names: tuple[Any, ...],
    columns: Mapping[Any, ColumnValues],
    seed: int,
    directions: int,
) -> list[_Stream]:
    """Return streams of scores that one half of the reference defines. The other half is ranked."""
    import numpy as np

    def points(given: Mapping[Any, ColumnValues]) -> Any:
        blocks = [given[name].values.astype("f8") for name in names]
        return np.column_stack(blocks)

    rows = points(columns)
    order = np.random.default_rng(0).permutation(len(rows))
    half = order[: len(rows) // 2]
    train, rest = rows[half], rows[order[len(rows) // 2 :]]
    middle = np.median(train, axis=0)
    if len(names) > 1:
        low, high = np.quantile(train, [0.25, 0.75], axis=0)
        spread = np.where(high > low, high - low, train.std(0))
    else:  # the directions of an embedding mean something
        spread = np.full(train.shape[1], np.sqrt(train.var(0).sum()))
    spread[spread == 0] = 1.0
    train = (train - middle) / spread
    axes = np.linalg.svd(train - train.mean(0), full_matrices=False)[2][:directions]
    k = max(1, round(math.sqrt(len(train)) / 2))
    found = [(_along(axis), f", direction {place + 1}") for place, axis in enumerate(axes)]
    found.append((_nearest(train, k), ", distance to the reference"))
    streams = []
    for place, (score, suffix) in enumerate(found):
        scaled = _scaled_score(score, points, middle, spread)
        streams.append(
            _Stream(where + suffix, scaled, score((rest - middle) / spread), seed + place)
        )
    return streams


def _along(axis: np.ndarray[Any, Any]) -> Callable[[Any], Any]:
    return lambda points: points @ axis


def _nearest(train: np.ndarray[Any, Any], k: int) -> Callable[[Any], Any]:
    """Return a function of points: the distance to their k-th nearest point of the reference."""
    import numpy as np

    norms = (train**2).sum(1)

    def score(points: Any) -> Any:
        found = []
        for at in range(0, len(points), 1000):
            part = points[at : at + 1000]
            squares = (part**2).sum(1)[:, None] + norms - 2 * part @ train.T
            found.append(np.partition(squares, k - 1, axis=1)[:, k - 1])
        return np.concatenate(found)

    return score


def _scaled_score(
    score: Callable[[Any], Any],
    points: Callable[[Mapping[Any, ColumnValues]], Any],
    middle: Any,
    spread: Any,
) -> Callable[[Mapping[Any, ColumnValues]], Any]:
    return lambda columns: score((points(columns) - middle) / spread)


def _differences(
    before: Mapping[Any, ColumnValues], after: Mapping[Any, ColumnValues]
) -> str | None:
    """Return why a batch cannot be compared, or None."""
    if before.keys() != after.keys():
        return "its columns are not those of the reference"
    for name, column in after.items():
        where = label(name, before)
        problem = trouble(column, _IN_BATCH)
        if problem is not None:
            return f"{where} {problem}"
        if column.kind != before[name].kind:
            return f"{where} holds {column.kind}, but the reference holds {before[name].kind}"
        if column.kind == "vectors" and column.values.shape[1:] != before[name].values.shape[1:]:
            return f"{where} has {column.values.shape[1]} dimensions instead of {before[name].values.shape[1]}"
    return None


_IN_BATCH = Test("", (), "ks", 0.0, 0.05, 0.05, 10, strict=False)
