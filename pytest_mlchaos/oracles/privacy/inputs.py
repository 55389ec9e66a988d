"""Read the inputs of attacks, and check their limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.privacy import error_text, kind_text
from ...core.validation import format_value, is_real
from ...errors import BadArgument

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["ask", "check_share_limit", "records_of", "scores_of"]


def check_share_limit(owner: str, name: str, limit: object) -> None:
    """Refuse a limit that is not a share from 0 to below 1."""
    if not is_real(limit) or not 0 <= limit < 1:  # type: ignore[operator]
        raise BadArgument(f"{owner}: {name} must be from 0 to below 1, got {format_value(limit)}")


def ask(owner: str, name: str, function: Callable[[Any], Any], value: Any) -> Any:
    """Call a function of the user, with its error as a ``BadArgument``."""
    try:
        return function(value)
    except Exception as error:
        raise BadArgument(f"{owner}: {name} raised {error_text(error)}") from error


def scores_of(values: Any, owner: str, name: str) -> Array:
    """Return finite scores, one for each record."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        array = np.asarray(values if hasattr(values, "__array__") else list(values), dtype=float)
    except (TypeError, ValueError):
        raise BadArgument(
            f"{owner}: {name} must be one number for each record, got {kind_text(values)}"
        ) from None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not len(array):
        raise BadArgument(
            f"{owner}: {name} must be one number for each record, got the shape {array.shape}"
        )
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise BadArgument(f"{owner}: {name} has {bad:,} values that are NaN or infinite")
    return array


def records_of(values: Any, owner: str, name: str, width: int | None = None) -> Array:
    """Return finite records as an array of one row for each."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise BadArgument(
            f"{owner}: {name} must be records of numbers, got {kind_text(values)}"
        ) from None
    if array.ndim < 1 or not array.size:
        raise BadArgument(
            f"{owner}: {name} must hold at least one record, got the shape {array.shape}"
        )
    array = array.reshape(len(array), -1)
    if not np.isfinite(array).all():
        raise BadArgument(f"{owner}: {name} has values that are NaN or infinite")
    if width is not None and array.shape[1] != width:
        raise BadArgument(
            f"{owner}: {name} must have {width} numbers for each record, got {array.shape[1]}"
        )
    return array
