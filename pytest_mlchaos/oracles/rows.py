"""Judge that a batch predicts as its rows do, whatever is in the batch with them."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..core.privacy import data_text, error_text
from ..core.recording import oracle
from ..core.validation import CALLABLE, TOLERANCE, check_arguments
from ..errors import BadArgument, Inconclusive, MlchaosError, NotRowIndependent
from .state import first_difference

__all__ = ["assert_row_independent"]

SIZES = (2, 3, 8)
"""The sizes of the batches in a shuffled order, besides that of all rows."""
SHOWN_MATES = 5


@oracle
@check_arguments("assert_row_independent", handler=CALLABLE, rtol=TOLERANCE, atol=TOLERANCE)
def assert_row_independent(
    handler: Callable[[Any], Any], rows: Any, *, rtol: float = 1e-4, atol: float = 1e-6
) -> None:
    """Raise ``NotRowIndependent`` unless a batch predicts as its rows do one by one.

    Each row is predicted alone. Then all rows are predicted together, in the reverse order, and
    shuffled in batches of 2, 3 and 8. So padding, normalisation over the batch, a mixed-up order
    and one bad row that fails its batch are found. The message names the first row, and the
    smallest change of its batch that changes its prediction.

    Args:
        handler: A function of a batch that returns a prediction for each row, plain or async.
        rows: Two rows or more: a list, an array, a tensor, a data frame, or a dict of columns. The
            handler gets the same kind.
        rtol: Numbers may differ by ``atol + rtol * abs(expected)``. Libraries round differently in
            batches of different sizes. Half precision needs about 0.01.
        atol: See ``rtol``.

    Raises:
        NotRowIndependent: A row has a different prediction in some batch, or the batch fails.
        Inconclusive: The handler predicts differently when it gets the same row again.
        BadArgument: There are fewer than two rows, or each row fails alone.
    """
    table = _Table(rows)
    if len(table) < 2:
        raise BadArgument(
            f"assert_row_independent: rows must be two or more, got {len(table)}. A batch of one "
            f"row shows nothing"
        )
    _Judgement(handler, table, rtol, atol).judge()


class _Table:
    """Rows of any kind, of which some can be taken in any order."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self._columns = isinstance(rows, Mapping)
        try:
            self._length = len(next(iter(rows.values()))) if self._columns else len(rows)
        except (TypeError, StopIteration):
            raise BadArgument(
                "assert_row_independent: rows must be a list, an array, a tensor, a data frame or "
                f"a dict of columns, got {data_text(rows)}"
            ) from None

    def __len__(self) -> int:
        return self._length

    def take(self, places: Sequence[int]) -> Any:
        """Return these rows as a batch of the same kind."""
        if self._columns:
            return {name: _taken(column, places) for name, column in self._rows.items()}
        return _taken(self._rows, places)


def _taken(values: Any, places: Sequence[int]) -> Any:
    if hasattr(values, "iloc"):
        return values.iloc[list(places)]
    if hasattr(values, "shape") and hasattr(values, "dtype"):
        return values[list(places)]
    taken = [values[place] for place in places]
    return tuple(taken) if type(values) is tuple else taken


class _Judgement:
    """Predict rows alone and in batches, and compare."""

    def __init__(
        self, handler: Callable[[Any], Any], table: _Table, rtol: float, atol: float
    ) -> None:
        self._handler = handler
        self._table = table
        self._rtol = rtol
        self._atol = atol
        self._alone: list[Any] = []

    def judge(self) -> None:
        """Raise a verdict if one is due."""
        self._alone = [self._predicted([place]) for place in range(len(self._table))]
        failed = [one for one in self._alone if isinstance(one, Exception)]
        if len(failed) == len(self._alone):
            raise BadArgument(
                f"assert_row_independent: each row fails alone, so there is nothing to compare: "
                f"{error_text(failed[0])}"
            ) from failed[0]
        for places in self._batches():
            found = self._first_wrong(places)
            if found is not None:
                self._blame(places, *found)

    def _batches(self) -> Iterator[list[int]]:
        every = list(range(len(self._table)))
        yield every
        yield every[::-1]
        shuffled = random.Random(0).sample(every, len(every))
        for size in SIZES:
            if size < len(every):
                for start in range(0, len(every), size):
                    yield shuffled[start : start + size]

    def _predicted(self, places: Sequence[int]) -> Any:
        """Return the predictions of a batch, one for each row, or the error that it raised."""
        try:
            result = self._handler(self._table.take(places))
            if inspect.isawaitable(result):
                result = asyncio.run(_awaited(result))
        except MlchaosError:
            raise
        except Exception as error:  # noqa: BLE001  # an error is what this batch predicts
            return error
        predictions = _Table(result)
        if len(predictions) != len(places):
            raise NotRowIndependent(
                f"{len(predictions)} predictions for a batch of {len(places)} rows"
            )
        return [predictions.take([place]) for place in range(len(places))]

    def _first_wrong(self, places: Sequence[int]) -> tuple[int, str] | None:
        """Return the first row of a batch that differs from its prediction alone, and how.

        A row that fails alone may predict anything, but may not fail the others.
        """
        found = self._predicted(places)
        for at, place in enumerate(places):
            alone = self._alone[place]
            if isinstance(alone, Exception):
                continue
            if isinstance(found, Exception):
                return place, f"the batch raises {error_text(found)}"
            difference = first_difference(
                found[at], alone[0], rtol=self._rtol, atol=self._atol, name="prediction"
            )
            if difference is not None:
                return place, difference
        return None

    def _blame(self, places: list[int], row: int, how: str) -> None:
        """Raise the verdict on a row, with the batch-mates that change it."""
        again = self._predicted([row])
        if isinstance(again, Exception) or first_difference(
            again[0], self._alone[row][0], rtol=self._rtol, atol=self._atol, name="prediction"
        ):
            raise Inconclusive(
                f"assert_row_independent: row {row} alone predicts differently when it is asked "
                f"again, so the handler has state or draws random numbers. Put the model into "
                f"evaluation mode, or seed it"
            )
        mates = [place for place in places if place != row]
        for mate in mates:
            pair = [place for place in places if place in (row, mate)]
            wrong = self._first_wrong(pair)
            if wrong is not None and wrong[0] == row:
                bad = isinstance(self._alone[mate], Exception)
                raise NotRowIndependent(
                    f"row {row} predicts differently in a batch with row {mate} than alone: "
                    f"{wrong[1]}" + (f"\n  row {mate} fails alone, too" if bad else "")
                )
        shown = ", ".join(map(str, mates[:SHOWN_MATES])) + (", ..." if mates[SHOWN_MATES:] else "")
        raise NotRowIndependent(
            f"row {row} predicts differently in a batch of {len(places)} rows than alone: {how}\n  "
            f"with rows {shown}. No single one of them changes it"
        )


async def _awaited(result: Any) -> Any:
    return await result
