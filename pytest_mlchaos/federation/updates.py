"""Find the parameters in an update, whose form is the user's own, and replace them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core.federation import Mishap
from ..core.validation import is_real
from ..errors import PayloadMismatch

__all__ = ["changed_update", "leaves", "same_form"]

MAX_DEPTH = 4
"""The depth to which parameters are searched in an update."""
Path = tuple[Any, ...]


def is_array(value: object) -> bool:
    """Return True for an array or a tensor of any library."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_number(value: object) -> bool:
    return is_real(value) or (isinstance(value, float) and not isinstance(value, bool))


def same_form(value: Any, other: Any) -> bool:
    """Return True if both have the same names, lengths and shapes."""
    if is_array(value) or is_array(other):
        both = is_array(value) and is_array(other)
        return both and tuple(value.shape) == tuple(other.shape)
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return value.keys() == other.keys() and all(
            same_form(item, other[name]) for name, item in value.items()
        )
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(map(same_form, value, other))
    if isinstance(value, (Mapping, list, tuple)) or isinstance(other, (Mapping, list, tuple)):
        return False
    return _is_number(value) and _is_number(other)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the arrays and numbers of a model, with their names."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from leaves(item, (*path, place))
    else:
        yield path, value


def changed_update(
    update: Any, sent: Any, first: Any, mishaps: Sequence[Mishap], *, differences: bool
) -> Any:
    """Return an update with changed parameters.

    Args:
        update: What the client returned.
        sent: The global parameters that the client received.
        first: The global parameters at the start.
        mishaps: What changes the parameters, in this order.
        differences: True if updates hold differences from the global parameters.
    """
    for form in (sent, first):
        path = _find(update, form)
        if path is None:
            continue
        base = None if differences or not same_form(form, sent) else sent
        found = _at(update, path)
        for mishap in mishaps:
            if mishap.change is not None:
                found = mishap.change(found, base)
        return _replaced(update, path, found)
    if not same_form(sent, first):
        return update  # The global model is damaged already, so clients send what they can.
    raise PayloadMismatch(
        f"{mishaps[0].fault} found no parameters of the global model's form in the update, which "
        f"is {type(update).__name__}. Let the client return them, alone or inside a dict, a list "
        f"or an object"
    )


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the names and items of a container or an object."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name, None)
    elif not is_array(value) and hasattr(value, "__dict__") and not isinstance(value, type):
        yield from vars(value).items()


def _find(value: Any, form: Any, depth: int = 0) -> Path | None:
    """Return the path to the first part of this form."""
    if same_form(value, form):
        return ()
    if depth == MAX_DEPTH:
        return None
    for name, item in _parts(value):
        found = _find(item, form, depth + 1)
        if found is not None:
            return (name, *found)
    return None


def _at(value: Any, path: Path) -> Any:
    for name in path:
        value = dict(_parts(value))[name]
    return value


def _replaced(value: Any, path: Path, fresh: Any) -> Any:
    """Return a copy in which one part is replaced."""
    if not path:
        return fresh
    name, *rest = path
    inner = _replaced(dict(_parts(value))[name], tuple(rest), fresh)
    if isinstance(value, tuple):
        items = [inner if place == name else item for place, item in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{name: inner})
    result = copy.copy(value)
    if isinstance(value, (Mapping, list)):
        result[name] = inner
    else:
        setattr(result, name, inner)
    return result
