"""Adapt polars' DataFrames, which are Arrow's tables in memory."""

from __future__ import annotations

import sys
from typing import Any

from .arrow import ArrowTable
from .base import Table, carrier

__all__ = ["PolarsTable"]


class PolarsTable(ArrowTable):
    """A polars DataFrame, converted to Arrow's table and back."""

    def __init__(self, value: Any) -> None:
        super().__init__(value.to_arrow())
        self.value = value

    def _back(self, table: object) -> Any:
        return sys.modules["polars"].from_arrow(table)

    def kept(self) -> Any:
        """Return the table itself, because its columns never change."""
        return self.value.clone()

    def followed_by(self, other: object) -> Any:
        """Return both tables in one."""
        return sys.modules["polars"].concat([self.value, other])

    def dtype(self, place: int) -> str:
        """Return polars' name of the dtype."""
        return str(self.value.dtypes[place])


@carrier
def adapt_polars(value: object) -> Table | None:
    """Adapt a DataFrame of polars."""
    kind = type(value)
    is_frame = kind.__module__.partition(".")[0] == "polars" and kind.__name__ == "DataFrame"
    return PolarsTable(value) if is_frame else None
