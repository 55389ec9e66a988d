"""Define faults of a table's values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.validation import format_value, parse_duration
from ...errors import BadArgument
from .base import NUMBERS, Column, Table, UnsupportedColumn, all_same, places
from .fault import MAX_REDRAWS, SHARES, ColumnFault, Spot, rows_of

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ClockSkew", "MissingValues", "Outliers", "SwappedValues", "UnseenCategory"]
LAYER = "Tables"


BLOCK_VALUES = 32_768
OFF = {**SHARES, "magnitude": (3.0, 5.0, 10.0, 30.0, 100.0)}


@register
class MissingValues(ColumnFault):
    """Values of a table are missing.

    A missing value is what the library reads from a gap in a file. Integers and truth values of
    NumPy's dtypes become float64 and NaN. Nullable columns and those of Arrow keep their dtype.
    Texts of NumPy become empty. Values of records become None.

    Args:
        column: A name, or a list of names. Without it, all columns.
        mechanism: ``"mcar"``: completely at random. ``"mar"``: if the values of the column
            ``given`` are high. ``"mnar"``: if the values themselves are high. The last two take
            half of the values in a window of the highest, or all of them if the share is above a
            half.
        given: For ``"mar"``, the name of the column that decides.

    Imitates: a sensor that drops out, a form with optional fields, a join that finds no partner, a
    survey that the rich do not answer.

    Fidelity: columns are hit independently. In real tables values of one row go missing together.

    Source: Rubin, Inference and missing data, Biometrika 1976; Jenga (Schelter et al., EDBT 2021).

    Example: ``@chaos.missing_values(column="age", fraction=0.2, at=0)``
    """

    scales = SHARES
    changes_result = True
    member_of: ClassVar = {"bad_data": 30}
    tried_as: ClassVar = ({"fraction": 0.25, "file": "*"}, {"fraction": 0.25})
    fraction: float = 0.1
    mechanism: Literal["mcar", "mar", "mnar"] = "mcar"
    given: str | int | None = None

    def check(self) -> None:
        """Check that ``given`` and its mechanism are given together."""
        super().check()
        if not is_drawn(self.mechanism) and (self.mechanism == "mar") != (self.given is not None):
            raise BadArgument(
                f"missing_values: mechanism='mar' and given= go together, got {self.mechanism!r} "
                f"and {format_value(self.given)}"
            )

    def changed(self, column: Column, spot: Spot) -> tuple[Any, int]:
        """Return the column with missing values at these places."""
        if self.mechanism == "mcar":
            where = rows_of(column, self.scaled("fraction"), spot.rng)
        else:
            where = self._among_the_highest(spot.table, column, spot.rng)
        return column.without(where), len(where)

    def _among_the_highest(self, table: Table, column: Column, rng: np.random.Generator) -> Any:
        import numpy as np

        judged = (
            column if self.mechanism == "mnar" else table.column(self.wanted(table, self.given)[0])
        )
        codes, nulls = (
            np.nan_to_num(judged.codes(), nan=-np.inf, posinf=np.inf, neginf=-np.inf),
            column.closed(),
        )
        present = np.arange(column.size) if nulls is None else np.flatnonzero(~nulls)
        if not len(present):
            raise UnsupportedColumn("has no values")
        count = max(1, round(self.scaled("fraction") * len(present)))
        window = min(len(present), 2 * count)
        highest = np.sort(
            np.argpartition(codes[present], len(present) - window)[len(present) - window :]
        )
        return present[highest[places(rng, window, count)]]


@register
class Outliers(ColumnFault):
    """Values of a table are far off.

    Integers are rounded and stay within their dtype.

    Args:
        column: A name, or a list of names. Without it, all columns of numbers.
        magnitude: The distance, up or down, in standard deviations of the column. For a constant
            column, in units. In a single record, as a multiple of the value.

    Imitates: a faulty sensor, a slip of the decimal point, a sentinel such as 9999 that was taken
    for a number.

    Fidelity: each value by itself. A real sensor is off for a while.

    Example: ``@chaos.outliers(column="income", fraction=0.01, magnitude=20, at=0)``
    """

    fits = NUMBERS
    scales = OFF
    fraction: float = 0.05
    magnitude: float = 10.0

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.magnitude) and not 0 < self.magnitude < float("inf"):
            raise BadArgument(
                f"outliers: magnitude must be above 0 and finite, got "
                f"{format_value(self.magnitude)}"
            )

    def changed(self, column: Column, spot: Spot) -> tuple[Any, int]:
        """Return the column with values moved up or down."""
        import numpy as np

        from .numpy import fit_dtype

        values = column.numbers()
        where = rows_of(column, self.scaled("fraction"), spot.rng)
        # One value has no spread, so its own size stands for it.
        spread = abs(float(values[where[0]])) if spot.table.single else 0.0
        distance = self.scaled("magnitude") * (spread or _spread(values, column.nulls()))
        if column.kind == "integer":
            distance = max(1.0, distance)
        moves = distance * (2.0 * spot.rng.integers(0, 2, len(where), dtype=np.int8) - 1)
        old = values[where]
        new = fit_dtype(old + moves, values.dtype)
        stuck = new == old  # these values are at the end of the dtype's range
        if stuck.any():
            new[stuck] = fit_dtype(old[stuck] - moves[stuck], values.dtype)
        if (new == old).all():
            raise UnsupportedColumn(
                "has values that are too large, or a dtype that is too small, for outliers"
            )
        return column.with_numbers(where, new), len(where)


def _spread(values: np.ndarray[Any, Any], nulls: Any) -> float:
    """Return the standard deviation of the finite values, or 1 if they are equal.

    It is computed in blocks that stay in the processor's cache.
    """
    import numpy as np

    present = values if nulls is None else values[~nulls]
    count, total, squares, centre = 0, 0.0, 0.0, 0.0
    with np.errstate(all="ignore"):
        for start in range(0, len(present), BLOCK_VALUES):
            off = present[start : start + BLOCK_VALUES].astype(np.float64)
            if not count or not np.isfinite(off.sum()):
                off = off[np.isfinite(off)]
                centre = float(off[0]) if not count and len(off) else centre
            off -= centre
            count, total, squares = (
                count + len(off),
                total + float(off.sum()),
                squares + float(np.einsum("i,i->", off, off)),
            )
    variance = squares / count - (total / count) ** 2 if count else 0.0
    return variance**0.5 if np.isfinite(variance) and variance > 0 else 1.0


@register
class UnseenCategory(ColumnFault):
    """A category appears that was never seen before.

    A column of pandas' or Arrow's category dtype gets it into its list.

    Args:
        column: A name, or a list of names. Without it, all columns of texts and categories. A
            column of integer codes must be named.
        value: The new one. Without it, ``"unseen"``, or a number above all others.

    Imitates: a new product, a new browser, a new country: what an encoder was never fitted on.

    Fidelity: one new value for a column. The share of each value shrinks alike.

    Example: ``@chaos.unseen_category(column="country", at=0)``
    """

    fits = ("text", "category")
    fits_named = ("integer",)
    scales = SHARES
    fraction: float = 0.05
    value: str | int | None = None

    def changed(self, column: Column, spot: Spot) -> tuple[Any, int]:
        """Return the column with a new value at these places."""
        where = rows_of(column, self.scaled("fraction"), spot.rng)
        try:
            return column.with_category(where, self._new(column)), len(where)
        except (
            TypeError,
            ValueError,
            OverflowError,
        ):
            # Pyarrow's errors are ValueErrors and TypeErrors.
            raise UnsupportedColumn(
                f"of the dtype {column.dtype} does not take the value. Give a different one with "
                f"value="
            ) from None

    def _new(self, column: Column) -> Any:
        if self.value is not None:
            if column.holds(self.value):
                raise UnsupportedColumn("holds the value already. Give a different one with value=")
            return self.value
        if column.kind == "integer":
            return int(column.numbers().max()) + 1
        value = "unseen"
        while column.holds(value):
            value += "_"
        return value


@register
class ClockSkew(ColumnFault):
    """Some rows have timestamps from a wrong clock.

    Args:
        column: A name, or a list of names. Without it, all columns of dates and times.
        by: The lead of the clock: seconds, or ``"1h"``. Use ``"-5m"`` for a clock that is slow.
        producer: The column that names the producer of each row, such as a host. Then all rows of
            some producers are off, and ``fraction`` is the share of the producers. At least one is
            off and at least one is right.

    Imitates: a host without time synchronisation, a device that came up in 1970 and was set later.

    Fidelity: one constant offset. A real clock drifts. Without ``producer``, rows are drawn evenly.

    Example: ``@chaos.clock_skew(column="seen_at", by="-2h", at=0)``
    """

    fits = ("time",)
    scales = SHARES
    fraction: float = 0.1
    by: float | str = "1h"
    producer: str | int | None = None

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.by) and not self._seconds():
            raise BadArgument(
                f"clock_skew: by must be a duration forwards ('1h') or backwards ('-1h'), got "
                f"{format_value(self.by)}"
            )

    def _seconds(self) -> float:
        if isinstance(self.by, str) and self.by.lstrip().startswith("-"):
            return -parse_duration(self.by.lstrip()[1:], "clock_skew: by")
        if isinstance(self.by, (int, float)) and self.by < 0:
            return -parse_duration(-self.by, "clock_skew: by")
        return parse_duration(self.by, "clock_skew: by")

    def changed(self, column: Column, spot: Spot) -> tuple[Any, int]:
        """Return the column with shifted times at these places."""
        where = (
            rows_of(column, self.scaled("fraction"), spot.rng)
            if self.producer is None
            else self._of_producers(column, spot)
        )
        ticks = round(self._seconds() * column.ticks_per_second())
        if not ticks:
            raise UnsupportedColumn(f"of the dtype {column.dtype} is too coarse for by={self.by!r}")
        return column.with_numbers(where, column.numbers()[where] + ticks), len(where)

    def _of_producers(self, column: Column, spot: Spot) -> Any:
        """Return the places of all times of some producers."""
        import numpy as np

        judged = spot.table.column(self.wanted(spot.table, self.producer)[0])
        codes = judged.codes()
        nulls = column.closed()
        present = ~np.isnan(codes) if nulls is None else ~np.isnan(codes) & ~nulls
        names = np.unique(codes[present])
        if len(names) < 2:
            raise UnsupportedColumn(
                f"has times of {len(names)} producer, and two are needed to see a skew"
            )
        count = min(len(names) - 1, max(1, round(self.scaled("fraction") * len(names))))
        chosen = names[places(spot.rng, len(names), count)]
        return np.flatnonzero(present & np.isin(codes, chosen))


@register
class SwappedValues(ColumnFault):
    """Values are in each other's places.

    Args:
        column: A name, or a list of names. Between columns: two, of one dtype. Without it, all
            columns, or two that are drawn.
        fraction: The share of the values that is hit: at least two between rows, and at least one
            row between columns.
        between: ``"rows"``: values of one column change places among rows. ``"columns"``: two
            columns exchange their values in some rows.

    Imitates: input in the wrong field of a form, a sort of one column alone, an off-by-one in a
    parser.

    Fidelity: rows are drawn evenly. A real slip hits a block of them.

    Source: Jenga (Schelter et al., EDBT 2021), ``SwappedValues``.

    Example: ``@chaos.swapped_values(column=["first_name", "last_name"], between="columns", at=0)``
    """

    scales = SHARES
    fraction: float = 0.1
    between: Literal["rows", "columns"] = "rows"

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if (
            self.between == "columns"
            and self.column is not None
            and not is_drawn(self.column)
            and len(_as_tuple(self.column)) != 2
        ):
            raise BadArgument(
                f"swapped_values: between='columns' needs two names in column=, got "
                f"{format_value(self.column)}"
            )

    def change(self, table: Table, rng: np.random.Generator, visit: Visit) -> Any:
        """Change one column at a time, or one pair."""
        if self.between == "rows":
            return super().change(table, rng, visit)
        reason: object = "it has no two columns of one dtype whose values differ"
        for one, other in self._pairs(table, rng):
            ours, theirs = table.open_column(one), table.column(other)
            try:
                where = _where_they_differ(ours, theirs, self.scaled("fraction"), rng)
                fresh = {
                    one: ours.replaced(where, theirs, where),
                    other: theirs.replaced(where, ours, where),
                }
            except UnsupportedColumn as why:
                reason = (
                    reason
                    if self.column is None
                    else f"the columns {table.quoted(one)} and {table.quoted(other)}: {why}"
                )
                continue
            visit.note(columns=[table.label(one), table.label(other)], rows=len(where))
            return table.replaced(fresh)
        raise self.refused(table, str(reason))

    def _pairs(self, table: Table, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Yield the named pair, or else pairs of one dtype in random order."""
        if self.column is not None:
            one, other = self.wanted(table, self.column)
            yield one, other
            return
        order = [int(place) for place in rng.permutation(len(table.names))]
        for number, one in enumerate(order):
            yield from (
                (one, other)
                for other in order[number + 1 :]
                if table.dtype(one) == table.dtype(other)
            )

    def changed(self, column: Column, spot: Spot) -> tuple[Any, int]:
        """Return one column with some values swapped. Draw again while these are all equal."""
        import numpy as np

        for _ in range(MAX_REDRAWS):
            where = rows_of(
                column, max(self.scaled("fraction"), min(1.0, 2 / column.size)), spot.rng
            )
            if len(where) < 2:
                raise UnsupportedColumn("has fewer than two values")
            there = np.roll(where, int(spot.rng.integers(1, len(where))))
            if not all_same(column, where, column, there):
                return column.replaced(where, column, there), len(where)
        raise UnsupportedColumn("has the same value in all rows that were drawn")


def _as_tuple(column: object) -> tuple[Any, ...]:
    return column if isinstance(column, tuple) else (column,)


def _where_they_differ(ours: Column, theirs: Column, share: float, rng: np.random.Generator) -> Any:
    import numpy as np

    if ours.dtype != theirs.dtype:
        raise UnsupportedColumn(f"their dtypes differ, {ours.dtype} and {theirs.dtype}")
    everywhere = np.arange(ours.size)
    differ = ~np.asarray(ours.same(everywhere, theirs, everywhere), dtype=bool)
    where = np.flatnonzero(differ if ours.only is None else differ & ours.only)
    if not len(where):
        raise UnsupportedColumn("they hold the same values")
    rows = ours.size if ours.only is None else int(ours.only.sum())
    return where[places(rng, len(where), min(len(where), max(1, round(share * rows))))]
