"""Turn texts into vectors, and predicted probabilities into columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ...core.validation import format_value
from ...errors import BadArgument
from ..columns import ColumnValues, columns_of

__all__ = ["embed_texts", "embedded", "probability_columns"]

Columns = Mapping[Any, ColumnValues]
TOLERANCE = 1e-3
"""Probabilities of a row add up to 1 within this. Those of half precision do."""


def embedded(columns: Columns, embed: Any) -> dict[Any, ColumnValues]:
    """Return the columns, with vectors instead of texts where ``embed`` has a function."""
    if not isinstance(embed, Mapping):
        if None not in columns:
            raise BadArgument(
                "assert_no_drift: embed must be a dict of functions by column for a table, got "
                f"{format_value(embed)}"
            )
        embed = {None: embed}
    found = dict(columns)
    for name, function in embed.items():
        if name in columns:  # a column that is not there is found by the comparison of names
            found[name] = _embed_column(columns[name], function)
    return found


def _embed_column(column: ColumnValues, function: Callable[[list[str]], Any]) -> ColumnValues:
    if column.kind != "categories" or not all(isinstance(one, str) for one in column.values):
        raise BadArgument("embed= takes a column of texts, got one of other values")
    if not column.values:
        return column
    vectors = embed_texts(function, column.values)
    if vectors.missing:
        raise BadArgument(f"embed= returned NaN for {vectors.missing} texts")
    return dataclasses.replace(column, kind="vectors", values=vectors.values)


def embed_texts(function: Callable[[list[str]], Any], texts: list[str]) -> ColumnValues:
    """Return a column with a vector for each text."""
    found = columns_of(function(list(texts)), "the result of embed=", vectors=True)
    column = found.get(None)
    if column is None or column.kind != "vectors" or column.rows != len(texts):
        raise BadArgument(
            f"embed= must return a vector for each of {len(texts)} texts (an array of two "
            f"dimensions)"
        )
    return column


def probability_columns(columns: Columns, what: str) -> dict[Any, ColumnValues]:
    """Return the predicted class, its probability, and the vectors, as columns.

    The vectors are square roots, so their distances are those of Hellinger.
    """
    import numpy as np

    column = columns.get(None)
    if column is None or column.kind != "vectors" or column.values.shape[1] < 2:
        raise BadArgument(f"{what} must be rows of probabilities of two or more classes")
    values = column.values
    wrong = (values < 0).any(1) | ~(abs(values.sum(1) - 1) <= TOLERANCE)
    if wrong.any():
        raise BadArgument(
            f"{what} must be probabilities, but {int(wrong.sum())} of {len(values)} rows have a "
            f"negative value or do not add up to 1"
        )
    made: dict[str, tuple[str, Any]] = {
        "predicted_class": ("categories", values.argmax(1).tolist() if len(values) else []),
        "confidence": ("numbers", values.max(1) if len(values) else np.array([])),
        "probabilities": ("vectors", np.sqrt(values)),
    }
    return {
        name: dataclasses.replace(column, kind=kind, values=content)
        for name, (kind, content) in made.items()
    }
