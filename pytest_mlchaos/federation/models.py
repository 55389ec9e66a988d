"""Compare global models: are they whole and finite, and how far apart are they?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..core.privacy import path_text
from .updates import is_array, leaves, same_form

__all__ = ["describe_damage", "distance"]

SHOWN_NAMES = 5


def describe_damage(model: Any, first: Any) -> str | None:
    """Return what is wrong with a global model, compared with the first one, or None."""
    if not any(_size(leaf) for _, leaf in leaves(model) if leaf is not None):
        return f"is empty ({type(model).__name__})"
    if not same_form(model, first):
        return f"has a different form: {_form_difference(model, first)}"
    broken = [(path, _not_finite(leaf), _size(leaf)) for path, leaf in leaves(model)]
    usual = {path: _not_finite(leaf) for path, leaf in leaves(first)}
    found = [
        f"{_name(path)}: {count} of {size} value{'' if size == 1 else 's'}"
        for path, count, size in broken
        if count > usual[path]
    ]
    if not found:
        return None
    rest = f" and {len(found) - SHOWN_NAMES} more" if len(found) > SHOWN_NAMES else ""
    return f"is NaN or infinite: {', '.join(found[:SHOWN_NAMES])}{rest}"


def distance(model: Any, other: Any) -> float:
    """Return the Euclidean distance of two models. NaN if their forms differ."""
    if not same_form(model, other):
        return math.nan
    pairs = zip(leaves(model), leaves(other), strict=True)
    return math.sqrt(sum(_squared(one, two) for (_, one), (_, two) in pairs))


def _name(path: tuple[Any, ...]) -> str:
    return path_text(path) or "the model"


def _size(leaf: Any) -> int:
    """Return the number of values."""
    return math.prod(leaf.shape) if is_array(leaf) else 1


def _not_finite(leaf: Any) -> int:
    """Return the number of values that are NaN or infinite."""
    if is_array(leaf):
        finite = abs(_plain(leaf)) < math.inf
        return _size(leaf) - int(finite.sum())
    return int(isinstance(leaf, float) and not math.isfinite(leaf))


def _plain(leaf: Any) -> Any:
    return leaf.detach() if hasattr(leaf, "detach") else leaf


def _squared(one: Any, two: Any) -> float:
    if not is_array(one):
        return float(one - two) ** 2
    difference = _double(one) - _double(two)
    return float((abs(difference) ** 2).sum())


def _double(leaf: Any) -> Any:
    leaf = _plain(leaf)
    if hasattr(leaf, "double"):
        return leaf.cpu().double()
    return leaf.astype("complex128" if leaf.dtype.kind == "c" else "float64")


def _form_difference(model: Any, first: Any) -> str:
    if isinstance(model, Mapping) and isinstance(first, Mapping):
        parts = [
            f"{word} {', '.join(map(_key, names[:SHOWN_NAMES]))}"
            for word, names in (
                ("it lacks", [name for name in first if name not in model]),
                ("it also has", [name for name in model if name not in first]),
            )
            if names
        ]
        if parts:
            return " and ".join(parts)
    found = dict(leaves(model))
    for path, leaf in leaves(first):
        other = found.get(path)
        if other is None:
            return f"{_name(path)} is missing"
        if not same_form(other, leaf):
            return f"{_name(path)} is {_shape(other)} instead of {_shape(leaf)}"
    return f"{len(found)} arrays instead of {sum(1 for _ in leaves(first))}"


def _key(name: Any) -> str:
    return _name((name,))


def _shape(leaf: Any) -> str:
    return f"an array of shape {tuple(leaf.shape)}" if is_array(leaf) else type(leaf).__name__
