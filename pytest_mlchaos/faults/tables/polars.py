"""Polars' DataFrames, which are Arrow's tables in memory."""

from __future__ import annotations

import sys
from typing import Any

from .arrow import ArrowTable

__all__ = ["PolarsTable"]


class PolarsTable(ArrowTable):
    """A polars DataFrame, as Arrow's table and back."""

    def __init__(self, value: Any) -> None:
        super().__init__(value.to_arrow())
        self.value = value

    def _back(self, table: Any) -> Any:
        return sys.modules["polars"].from_arrow(table)

    def kept(self) -> Any:
        """Its columns never change."""
        return self.value.clone()

    def followed_by(self, other: Any) -> Any:
        """As polars does it."""
        return sys.modules["polars"].concat([self.value, other])

    def dtype(self, place: int) -> str:
        """Polars' own word."""
        return str(self.value.dtypes[place])
