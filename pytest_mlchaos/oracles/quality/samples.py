"""Read the samples of an oracle as arrays, and raise an error for values without a stated meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.privacy import error_text
from ...core.validation import format_value, index, is_real
from ...errors import BadArgument

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = [
    "check_bounds",
    "flags_of",
    "is_binary",
    "numbers_of",
    "same_length",
]


def raw_array(values: Any, what: str) -> Array:
    """Return an array of anything array-like: tensors, series, lists of numbers."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values
    if isinstance(values, (str, bytes, dict)) or not (
        hasattr(values, "__array__") or hasattr(values, "__iter__")
    ):
        raise BadArgument(
            f"{what} must be an array or a list of numbers, got {type(values).__name__}"
        )
    if not hasattr(values, "__array__"):
        values = [item.item() if getattr(item, "ndim", None) == 0 else item for item in values]
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise BadArgument(
            f"{what} must have rows of one length, got {type(values).__name__} "
            f"({error_text(error)})"
        ) from None


def numbers_of(values: Any, what: str, *, dimensions: tuple[int, ...] = (1,)) -> Array:
    """Return finite numbers as floats.

    Raise ``BadArgument`` for NaN, because only you know if it is a missing score or a wrong one.
    """
    import numpy as np

    array = raw_array(values, what)
    if array.dtype.kind == "O":
        wrong = next((item for item in array.ravel() if not _is_number(item)), None)
        if wrong is not None or any(item is None for item in array.ravel()):
            raise BadArgument(f"{what} must be numbers, got {type(wrong).__name__} among them")
        array = array.astype(float)
    if array.dtype.kind not in "biuf":
        raise BadArgument(f"{what} must be numbers, got values of dtype {array.dtype}")
    if array.ndim not in dimensions:
        raise BadArgument(
            f"{what} must have {' or '.join(map(str, dimensions))} dimension(s), got the shape "
            f"{list(array.shape)}"
        )
    array = array.astype(float)
    broken = ~np.isfinite(array)
    if broken.any():
        raise BadArgument(
            f"{what} must be finite, got {array[broken][0]} for sample "
            f"{int(np.argwhere(broken)[0][0])} (not finite for {int(broken.sum())} of "
            f"{array.size}). Drop these samples, or count them as wrong, before you judge"
        )
    return array


def flags_of(values: Any, what: str) -> Array:
    """Return true or false for each sample. Numbers must be 0 or 1."""
    array = numbers_of(values, what)
    if not is_binary(array):
        raise BadArgument(f"{what} must be true or false (1 or 0) for each sample")
    return array


def is_binary(array: Array) -> bool:
    """Return True if all numbers are 0 or 1."""
    return bool(((array == 0) | (array == 1)).all())


def same_length(owner: str, **arrays: Array) -> None:
    """Raise ``BadArgument`` unless all arrays have one length, above 0."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise BadArgument(
            f"{owner}: all must have one length, got "
            f"{', '.join(f'{name} with {length}' for name, length in lengths.items())}"
        )
    if not next(iter(lengths.values())):
        raise BadArgument(f"{owner}: {next(iter(lengths))} must not be empty")


def check_bounds(owner: str, at_least: object, at_most: object) -> None:
    """Raise ``BadArgument`` unless there is a bound, and both can hold."""
    if at_least is None and at_most is None:
        raise BadArgument(f"{owner}: give at_least=, at_most= or both. Without them it cannot fail")
    for name, value in (("at_least", at_least), ("at_most", at_most)):
        if value is not None and not is_real(value):
            raise BadArgument(f"{owner}: {name} must be a finite number, got {format_value(value)}")
    if at_least is not None and at_most is not None and at_least > at_most:  # type: ignore[operator]
        raise BadArgument(
            f"{owner}: at_least must not be above at_most, got {at_least} and {at_most}"
        )


def called(values: Any, owner: str) -> Any:
    """Return the values, or what a function returns that gives them."""
    if not callable(values) or hasattr(values, "__array__"):
        return values
    function: Callable[[], Any] = values
    return function()


def whole_number(owner: str, name: str, value: object, low: int = 0) -> int:
    """Return a whole number of at least ``low``."""
    number = index(value)
    if number is None or number < low:
        raise BadArgument(
            f"{owner}: {name} must be a whole number of {low} or more, got {format_value(value)}"
        )
    return number


def _is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float)) or hasattr(value, "__float__")
