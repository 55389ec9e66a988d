"""Make Hypothesis strategies of edge cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...core.validation import format_value, index
from ...engine.table_types import is_frame
from ...errors import BadArgument, MissingExtra
from .schema import Field, fields_of_model, fields_of_records, is_model, of_value
from .values import edges_of, is_same

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["edge_cases"]

MOST_ROWS = 10_000
SEEN = 100
"""The number of rows of a table that are taken for examples."""


def edge_cases(schema: Any, rows: int = 3) -> Any:
    """Return a strategy of edge cases. See ``chaos.edge_cases``."""
    if not 1 <= (index(rows) or 0) <= MOST_ROWS:
        raise BadArgument(
            f"chaos.edge_cases: rows must be from 1 to {MOST_ROWS}, got {format_value(rows)}"
        )
    if is_frame(schema):
        if not hasattr(schema, "iloc") or not hasattr(schema, "columns"):
            raise BadArgument(
                f"chaos.edge_cases: a table must be a DataFrame of pandas, got "
                f"{type(schema).__name__}. Convert it with to_pandas() or to_frame()"
            )
        return _of_frame(schema, rows)
    if is_model(schema):
        return _of_records(fields_of_model(schema))
    if isinstance(schema, Mapping):
        return _of_records(fields_of_records([schema]))
    if isinstance(schema, list) and schema and all(isinstance(one, Mapping) for one in schema):
        return _of_records(fields_of_records(schema))
    edges = [] if schema is None else of_value(schema)[1]
    if edges in ([], [None]):
        raise BadArgument(
            f"chaos.edge_cases: schema must be an example, a type or a table, got "
            f"{format_value(schema)}"
        )
    return _strategies().sampled_from(edges)


def _strategies() -> Any:
    try:
        from hypothesis import strategies
    except ModuleNotFoundError:
        raise MissingExtra("chaos.edge_cases", "hypothesis", None) from None
    return strategies


def _of_records(fields: Mapping[Any, Field]) -> Any:
    """Return a strategy of records with at least one edge case. Simpler ones have exactly one."""
    st = _strategies()
    edges = {name: some for name, (_, some) in fields.items() if some}
    if not edges:
        raise BadArgument("chaos.edge_cases: no field of the schema has edge cases")
    # One choice for each field, of which the first is usual. So each shrinks by itself.
    pools = {
        name: st.sampled_from(
            [(one, False) for one in usual * (1 + len(some) // len(usual))]
            + [(one, True) for one in some]
        )
        for name, (usual, some) in fields.items()
    }

    @st.composite  # type: ignore[untyped-decorator]
    def records(draw: Any) -> dict[Any, Any]:
        drawn = {name: draw(pool) for name, pool in pools.items()}
        record = {name: value for name, (value, _) in drawn.items()}
        if not any(is_edge for _, is_edge in drawn.values()):
            name = draw(st.sampled_from(list(edges)))
            record[name] = draw(st.sampled_from(edges[name]))
        return record

    return records()


def _of_frame(frame: pd.DataFrame, rows: int) -> Any:
    """Return a strategy of tables with the columns and dtypes of this one."""
    st = _strategies()
    if not len(frame) or not len(frame.columns):
        raise BadArgument(
            f"chaos.edge_cases: the table must have rows and columns as examples, got "
            f"{len(frame)} rows and {len(frame.columns)} columns"
        )
    if not frame.columns.is_unique:
        raise BadArgument("chaos.edge_cases: the columns of the table must have different names")
    edges = {name: _of_column(frame[name]) for name in frame.columns}
    odd = [name for name, some in edges.items() if some]
    if not odd:
        raise BadArgument("chaos.edge_cases: no column of the table has a dtype with edge cases")

    numbers = st.lists(st.integers(0, len(frame) - 1), min_size=rows, max_size=rows)

    @st.composite  # type: ignore[untyped-decorator]
    def tables(draw: Any) -> Any:
        table = frame.iloc[draw(numbers)].reset_index(drop=True)
        spots = st.tuples(st.integers(0, rows - 1), st.sampled_from(odd))
        for row, name in draw(st.lists(spots, min_size=1, max_size=2 * rows, unique=True)):
            value = draw(st.sampled_from(edges[name]))
            table[name] = _with_value(table[name], row, value)
        return table

    return tables()


def _of_column(column: pd.Series[Any]) -> list[Any]:
    """Return the edge cases that the dtype of a column can hold."""
    import numpy as np
    import pandas as pd

    known = column.iloc[:SEEN].dropna().tolist()
    kind = getattr(column.dtype, "kind", "O")
    if not known:
        known = {"f": [0.5], "i": [1], "u": [1], "b": [True]}.get(kind, ["text"])
    elif kind in "iu":
        known = [int(column.min()), int(column.max())]
    found = []
    for edge in [*edges_of(known), *_bounds(column)]:
        try:
            with np.errstate(over="raise"):
                held = _with_value(column.iloc[:1], 0, edge).iloc[0]
        except (TypeError, ValueError, ArithmeticError):
            continue
        if not isinstance(held, (list, tuple, dict)) and pd.isna(held):
            is_kept = edge is None or edge != edge  # NaN
        else:
            is_kept = not is_same(held, column.iloc[0]) and _alike(held, edge)
        if is_kept:
            found.append(edge)
    return found


def _alike(held: Any, edge: Any) -> bool:
    """Return True if a column holds a value as it was set, and not a rounded or wrapped one."""
    import numpy as np

    try:
        with np.errstate(all="ignore"):
            return bool(held == edge)
    except (TypeError, ValueError):
        return False


def _bounds(column: pd.Series[Any]) -> list[Any]:
    """Return the smallest and the largest number of a dtype."""
    import numpy as np

    dtype = getattr(column.dtype, "numpy_dtype", column.dtype)
    if getattr(dtype, "kind", "O") in "iu":
        return [int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)]
    if getattr(dtype, "kind", "O") == "f":
        return [float(np.finfo(dtype).max), float(np.finfo(dtype).tiny)]
    return []


def _with_value(column: pd.Series[Any], row: int, value: Any) -> pd.Series[Any]:
    """Return a copy of a column with one value replaced, in the same dtype.

    An unseen category joins the list of a categorical column.
    """
    import pandas as pd

    dtype: Any = column.dtype
    is_category = isinstance(dtype, pd.CategoricalDtype) and value is not None
    if is_category and value not in dtype.categories:
        column = column.cat.add_categories([value])
        dtype = column.dtype
    values = column.tolist()
    values[row] = value
    if value is None and getattr(dtype, "kind", "O") in "iub" and isinstance(dtype, type(_plain())):
        raise TypeError("this dtype has no missing values")
    return pd.Series(values, index=column.index, name=column.name, dtype=dtype)


def _plain() -> Any:
    import numpy as np

    return np.dtype("int64")
