"""Find values that are not finite in a model or a state dict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["first_not_finite"]

MAX_DEPTH = 8


def first_not_finite(state: object) -> str | None:
    """Describe the tensors of a model or a state dict that hold NaN or infinity, or return None.

    ``-inf`` counts in the parameters of a model alone, because a buffer may be a mask.

    Args:
        state: A torch module, a state dict, an array, or a list or dict of these.
    """
    found = [
        f"{name or 'the state'}: {count} value{'' if count == 1 else 's'}"
        for name, value, masked in _tensors(state, "", 0)
        if (count := _broken(value, masked=masked))
    ]
    if not found:
        return None
    more = f" ... and {len(found) - 5} more" if len(found) > 5 else ""
    return f"NaN or infinite: {', '.join(found[:5])}{more}"


def _tensors(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any, bool]]:
    """Yield the name and the value of each tensor, and True if it may be a mask."""
    if callable(getattr(value, "named_parameters", None)):
        prefix = f"{name}." if name else ""
        yield from ((prefix + key, one, False) for key, one in value.named_parameters())
        yield from ((prefix + key, one, True) for key, one in value.named_buffers())
    elif isinstance(value, Mapping) and depth < MAX_DEPTH:
        for key, one in value.items():
            yield from _tensors(one, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, (list, tuple)) and depth < MAX_DEPTH:
        for place, one in enumerate(value):
            yield from _tensors(one, f"{name}[{place}]", depth + 1)
    elif hasattr(value, "__array__") or isinstance(value, float):
        yield name, value, True


def _broken(value: Any, *, masked: bool) -> int:
    """Return the number of values that are not finite."""
    import numpy as np

    if isinstance(value, float):
        return int(math.isnan(value) or value == math.inf)
    if hasattr(value, "detach"):
        tensor = value.detach()
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return 0
        broken = ~tensor.isfinite()
        if masked and not tensor.is_complex():
            broken &= tensor != -math.inf
        return int(broken.sum())
    array = np.asarray(value)
    if array.dtype.kind not in "fc":
        return 0
    broken = ~np.isfinite(array)
    if masked and array.dtype.kind == "f":
        broken &= array != -np.inf
    return int(broken.sum())
