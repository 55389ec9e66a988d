"""Adapt Arrow's tables and record batches."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .base import Column, Table, UnsupportedColumn, ahead, carrier
from .numpy import fit_dtype

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

__all__ = ["ArrowColumn", "ArrowTable"]

_TICKS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def _kind(kind: object) -> str:
    import pyarrow as pa

    types = pa.types
    tests = (
        ("float", types.is_floating),
        ("integer", types.is_integer),
        ("boolean", types.is_boolean),
        (
            "text",
            lambda kind: (
                types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view"
            ),
        ),
        ("time", lambda kind: types.is_timestamp(kind) or types.is_date(kind)),
        ("category", types.is_dictionary),
    )
    return next((name for name, test in tests if test(kind)), "other")


class ArrowColumn(Column):
    """A chunked array. A change returns an array in one chunk, which shares buffers if possible."""

    def __init__(self, name: Any, values: Any) -> None:
        import pyarrow as pa

        self.name = name
        self.type = values.type
        self.dtype = str(values.type)
        self.kind = _kind(values.type)
        if isinstance(values, pa.ChunkedArray):
            self.array = values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
            if isinstance(self.array, pa.ChunkedArray):
                raise UnsupportedColumn("holds more text than one array can")
        else:
            self.array = values
        self.size = len(values)

    def nulls(self) -> Any:
        """Return the missing values by Arrow's validity bitmap. NaN is a value."""
        return (
            self.array.is_null().to_numpy(zero_copy_only=False) if self.array.null_count else None
        )

    def _ticks(self) -> Any:
        """Return times as their integers."""
        import pyarrow as pa

        return (
            self.array.view(pa.int32() if self.type.bit_width == 32 else pa.int64())
            if self.kind == "time"
            else self.array
        )

    def numbers(self) -> Any:
        """Return the values. They are a view of the buffer if no value is missing."""
        values = self._ticks()
        return (
            values.fill_null(False if self.kind == "boolean" else 0)
            if values.null_count
            else values
        ).to_numpy(zero_copy_only=False)

    def codes(self) -> Any:
        """Return numbers as they are, and texts and categories by their rank."""
        import numpy as np
        import pyarrow.compute as pc

        if self.kind in ("text", "category", "other"):
            plain = self.array.dictionary_decode() if self.kind == "category" else self.array
            try:
                values = (
                    pc.rank(plain, tiebreaker="dense")
                    .to_numpy(zero_copy_only=False)
                    .astype(np.float64)
                )
            except NotImplementedError:
                raise UnsupportedColumn(f"of the dtype {self.dtype} has no order") from None
        else:
            values = self.numbers().astype(np.float64)
        nulls = self.nulls()
        if nulls is not None:
            values[nulls] = np.nan
        return values

    def without(self, where: np.ndarray[Any, Any]) -> Any:
        """Return the column with a different validity bitmap. The values are shared."""
        import numpy as np
        import pyarrow as pa

        valid = np.ones(len(self.array), dtype=bool)
        valid[where] = False
        nulls = self.nulls()
        if nulls is not None:
            valid &= ~nulls
        if self.kind == "category":
            indices = ArrowColumn(self.name, self.array.indices).without(where)
            return pa.DictionaryArray.from_arrays(
                indices, self.array.dictionary, ordered=self.type.ordered
            )
        types = pa.types
        flat = (
            types.is_primitive(self.type)
            or types.is_decimal(self.type)
            or types.is_fixed_size_binary(self.type)
        )
        if (
            flat
            or self.kind == "text"
            or types.is_binary(self.type)
            or types.is_large_binary(self.type)
        ):
            bits = np.packbits(
                np.concatenate([np.ones(self.array.offset, dtype=bool), valid]), bitorder="little"
            )
            buffers = [pa.py_buffer(bits), *self.array.buffers()[1:]]
            return pa.Array.from_buffers(
                self.type, len(self.array), buffers, offset=self.array.offset
            )
        return self._chosen(pa.nulls(len(where), self.type), where)

    def with_numbers(self, where: np.ndarray[Any, Any], values: object) -> Any:
        """Return the column with other numbers in the same type."""
        import pyarrow as pa

        fresh = self.numbers().copy()
        fresh[where] = fit_dtype(values, fresh.dtype)
        made = pa.array(fresh, mask=self.nulls())
        return made.view(self.type) if self.kind == "time" else made.cast(self.type)

    def of_type(self, dtype: object) -> Column:
        """Return the column in Arrow's type of the same name."""
        import pyarrow as pa

        return ArrowColumn(self.name, self.array.cast(pa.from_numpy_dtype(dtype), safe=False))

    def texts(self, where: np.ndarray[Any, Any]) -> list[str]:
        """Return the texts as Python strings."""
        found: list[str] = self._at(where).to_pylist()
        return found

    def with_texts(self, where: np.ndarray[Any, Any], texts: Sequence[str]) -> Any:
        """Return the column with other texts in the same type."""
        import pyarrow as pa

        return self._chosen(pa.array(texts, type=self.type), where)

    def with_category(self, where: np.ndarray[Any, Any], value: Any) -> Any:
        """Return the column with one more entry in its dictionary."""
        import numpy as np
        import pyarrow as pa

        if self.kind != "category":
            return self._chosen(pa.array([value] * len(where), type=self.type), where)
        indices, entries = self.array.indices, self.array.dictionary
        known = pa.concat_arrays([entries, pa.array([value], type=entries.type)])
        wide = indices.cast(pa.int32()) if indices.type.bit_width < 32 else indices
        fresh = ArrowColumn(self.name, wide).with_numbers(where, np.full(len(where), len(entries)))
        return pa.DictionaryArray.from_arrays(
            fresh.cast(indices.type), known, ordered=self.type.ordered
        )

    def holds(self, value: object) -> bool:
        """Return True if a value, or an entry of the dictionary, is equal."""
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self.array.dictionary if self.kind == "category" else self.array
        return bool(pc.any(pc.equal(values, pa.scalar(value, type=values.type))).as_py())

    def same(self, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]) -> Any:
        """Compare element by element."""
        import numpy as np
        import pyarrow.compute as pc

        assert isinstance(other, ArrowColumn)  # columns of one table are of one kind
        ours, theirs = (_plain(values) for values in (self._at(where), other._at(there)))
        try:
            equal = pc.or_(
                pc.equal(ours, theirs).fill_null(False), pc.and_(ours.is_null(), theirs.is_null())
            )
        except NotImplementedError:  # nested types
            return np.array(
                [one == two for one, two in zip(ours.to_pylist(), theirs.to_pylist(), strict=True)]
            )
        return equal.to_numpy(zero_copy_only=False)

    def replaced(
        self, where: np.ndarray[Any, Any], other: Column, there: np.ndarray[Any, Any]
    ) -> Any:
        """Replace element by element."""
        assert isinstance(other, ArrowColumn)
        return self._chosen(other._at(there), where)

    def ticks_per_second(self) -> float:
        """Return the ticks of the type's unit."""
        unit = getattr(self.type, "unit", None)
        return _TICKS[unit] if unit is not None else 1e3 if self.type.bit_width == 64 else 1 / 86400

    def in_zone(self, seconds: int) -> Any:
        """Return the column in a different zone. Without a zone, shift the wall-clock values."""
        import numpy as np
        import pyarrow as pa

        if getattr(self.type, "tz", None) is not None:
            zone = str(ahead(self._offset(), seconds)).removeprefix("UTC") or "+00:00"
            return self.array.cast(pa.timestamp(self.type.unit, tz=zone))
        ticks = round(seconds * self.ticks_per_second())
        if not ticks:
            raise UnsupportedColumn(f"of the type {self.dtype} is too coarse for {seconds} s")
        everywhere = np.arange(len(self.array))
        return self.with_numbers(everywhere, self.numbers() + ticks)

    def _offset(self) -> Any:
        """Return the offset from UTC of the first time that is not missing."""
        import datetime

        import pyarrow as pa

        present = self._ticks().drop_null()
        if not len(present):
            raise UnsupportedColumn("has no values")
        since = datetime.timedelta(seconds=present[0].as_py() // int(self.ticks_per_second()))
        try:
            moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + since
            return moment.astimezone(pa.lib.string_to_tzinfo(self.type.tz)).utcoffset()
        # a time after the year 9999, or a zone that this machine does not have
        except (OverflowError, ValueError, LookupError) as why:
            raise UnsupportedColumn(
                f"of the dtype {self.dtype} has a first time that is not known in its zone "
                f"({type(why).__name__})"
            ) from None

    def recoded(self, order: np.ndarray[Any, Any]) -> Any:
        """Return the column with its dictionary in a different order, and adjusted indices."""
        import numpy as np
        import pyarrow as pa

        old = self.array.indices
        inverse = np.argsort(order)
        moved = inverse[ArrowColumn(self.name, old).numbers()]
        indices = pa.array(moved, mask=self.nulls()).cast(old.type)
        return pa.DictionaryArray.from_arrays(
            indices, self.array.dictionary.take(pa.array(order)), ordered=self.type.ordered
        )

    def category_count(self) -> int:
        """Return the length of the dictionary."""
        return len(self.array.dictionary) if self.kind == "category" else 0

    def as_text(self) -> Any:
        """Return the values as Arrow writes them."""
        import pyarrow as pa

        return self.array.cast(pa.string())

    def as_float(self) -> Any:
        """Return the values as float64."""
        import pyarrow as pa

        return self.array.cast(pa.float64(), safe=False)

    def _at(self, where: Any) -> Any:
        import pyarrow as pa

        return self.array.take(pa.array(where))

    def _chosen(self, others: Any, where: np.ndarray[Any, Any]) -> Any:
        """Return the array with other values at these places.

        It takes from both arrays, which works for any type.
        """
        import numpy as np
        import pyarrow as pa

        if len(where) == len(self.array):
            return others
        order = np.arange(len(self.array))
        order[where] = len(self.array) + np.arange(len(where))
        joined = (
            pa.chunked_array([self.array, others.cast(self.type)]).unify_dictionaries()
            if self.kind == "category"
            else None
        )
        both = (
            joined.combine_chunks()
            if joined is not None
            else pa.concat_arrays([self.array, others])
        )
        return both.take(pa.array(order))


def _plain(values: object) -> Any:
    return values.dictionary_decode() if hasattr(values, "dictionary_decode") else values


def _rename_in_metadata(metadata: Any, old: str, new: str) -> Any:
    """Return a schema's metadata with a new name for a column.

    pandas stores there the names of its columns and of its index.
    """
    import json

    try:
        notes = json.loads(metadata[b"pandas"])
        for column in notes["columns"]:
            if column.get("field_name", column["name"]) == old:
                column.update(name=new, field_name=new)
        notes["index_columns"] = [
            new if index == old else index for index in notes["index_columns"]
        ]
    except (
        TypeError,
        KeyError,
        ValueError,
        AttributeError,
    ):
        # Metadata is missing, or not in pandas' format.
        return metadata
    return {**metadata, b"pandas": json.dumps(notes).encode()}


class ArrowTable(Table):
    """A pyarrow Table or RecordBatch. The metadata of its schema and fields is kept."""

    def __init__(self, value: Any) -> None:
        import pyarrow as pa

        self.value = value
        self._batch = isinstance(value, pa.RecordBatch)
        self._table = pa.Table.from_batches([value]) if self._batch else value
        self.names = list(value.schema.names)
        self.rows = value.num_rows

    def _back(self, table: DataFrame) -> Any:
        """Return the table in its original class: a table, or one batch."""
        import pyarrow as pa

        if not self._batch:
            return table
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)

    def column(self, place: int) -> Column:
        """Return the column in one chunk."""
        return ArrowColumn(self.names[place], self._table.column(place))

    def dtype(self, place: int) -> str:
        """Return Arrow's name of the dtype."""
        return str(self.value.schema.field(place).type)

    def replaced(self, columns: Mapping[int, Any]) -> Any:
        """Return the table with other columns here. The rest is shared."""
        table = self._table
        for place, values in columns.items():
            field = table.schema.field(place).with_type(values.type)
            table = table.set_column(
                place, field.with_nullable(field.nullable or values.null_count > 0), values
            )
        return self._back(table)

    def arranged(self, positions: Sequence[int]) -> Any:
        """Return the table with these columns, which are shared."""
        return self._back(self._table.select(list(positions)))

    def renamed(self, place: int, name: Any) -> Any:
        """Return the table with a renamed column, also in pandas' metadata. The values are shared."""
        fresh = self._table.rename_columns(
            [name if here == place else old for here, old in enumerate(self.names)]
        )
        return self._back(
            fresh.replace_schema_metadata(
                _rename_in_metadata(self._table.schema.metadata, self.names[place], name)
            )
        )

    def numbered(self, name: Any) -> Any:
        """Return the table with one more column. The rest is shared."""
        import numpy as np
        import pyarrow as pa

        return self._back(
            self._table.add_column(0, pa.field(name, pa.int64()), pa.array(np.arange(self.rows)))
        )

    def taken(self, rows: np.ndarray[Any, Any]) -> Any:
        """Return a copy with the rows in that order."""
        import pyarrow as pa

        try:
            return self._back(self._table.take(pa.array(rows)))
        except NotImplementedError:
            for place, values in enumerate(self._table.columns):
                try:
                    values.take(pa.array([0]))
                except NotImplementedError:
                    raise UnsupportedColumn(
                        f"Arrow takes no rows out of {self.quoted(place)}, which is of the type "
                        f"{values.type}"
                    ) from None
            raise

    def kept(self) -> Any:
        """Return the table itself, because it never changes."""
        return self.value

    def followed_by(self, other: Any) -> Any:
        """Return both tables in one. The other one's chunks are shared."""
        import pyarrow as pa

        more = pa.Table.from_batches([other]) if self._batch else other
        return self._back(
            pa.concat_tables(
                [self._table, more.replace_schema_metadata(self._table.schema.metadata)]
            )
        )


@carrier
def adapt_arrow(value: object) -> Table | None:
    """Adapt a table or a record batch of Arrow."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(value, (arrow.Table, arrow.RecordBatch)):
        return ArrowTable(value)
    return None
