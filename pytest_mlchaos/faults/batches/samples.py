"""Determine the number of samples in a batch, and the fields with one entry per sample.

A mapping, a dataclass, a named tuple, or an object whose attributes hold arrays is a structure of
fields. An array of one axis or more is a field, and its first axis counts the samples. A list or
tuple without arrays is a field if its length is the number of samples. One with arrays is

- a list of samples, if its items are alike and cannot be fields (dicts of the same keys, or tuples,
  with single numbers in them or with first axes that differ; or three or more images of 1 or 3
  channels), or if its length is the number of samples and its arrays have different first axes;
- else a structure of fields, for example ``[x, y]`` as a loader collates pairs.

All fields must agree on the number. If both readings are possible, the batch is unclear.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .pytree import Leaf, is_array, is_tensor, leaves, parts

__all__ = ["Field", "UnclearSamples", "fields_of_samples"]


class UnclearSamples(Exception):
    """Signal that the samples of a batch cannot be separated."""


@dataclasses.dataclass(frozen=True)
class Field:
    """A field with one entry per sample: an array, or a list (``value`` is a list of samples)."""

    path: tuple[Any, ...]
    value: Any
    length: int
    sure: bool = True

    @property
    def name(self) -> str:
        """Return the path and the number of entries, for example ``images (4)``."""
        return f"{'.'.join(map(str, self.path)) or 'batch'} ({self.length})"


def fields_of_samples(batch: object) -> list[Field]:
    """Return all fields of a batch. Raise ``UnclearSamples`` if there are several readings."""
    doubts: list[str] = []
    found = list(_votes(batch, doubts))
    if not any(field.sure for field in found) and doubts:
        raise UnclearSamples(
            f"cannot tell whether {doubts[0]} is a list of samples or of fields (a dict or a tuple "
            f"of fields is clear),"
        )
    voting = [field for field in found if field.sure] or found
    if not voting:
        return []
    samples = _common_length(voting)
    fields = list(
        _fields(
            batch, samples, any(field.sure and not _is_sequence(field.value) for field in found)
        )
    )
    _common_length(fields)
    return fields


def _common_length(fields: list[Field]) -> int:
    lengths = {field.length for field in fields}
    if len(lengths) > 1:
        raise UnclearSamples(
            f"cannot tell the samples, because the lengths of "
            f"{', '.join(field.name for field in fields[:8])} differ,"
        )
    return lengths.pop() if lengths else 0


def _is_sequence(value: object) -> bool:
    return isinstance(value, (list, tuple, collections.deque)) and not hasattr(value, "_fields")


def _kind(item: object) -> str:
    if is_tensor(item) or is_array(item):
        return "array"
    if _is_sequence(item):
        return "sequence"
    if isinstance(item, (str, bytes, int, float, complex)):
        return "plain"
    record = dataclasses.is_dataclass(item) and not isinstance(item, type)
    return (
        "structure"
        if record or isinstance(item, (Mapping, tuple)) or any(parts(item))
        else "object"
    )


def _kinds(items: Sequence[Any]) -> set[str]:
    return {_kind(item) for item in items if item is not None}


def _firsts(value: object) -> set[int | None]:
    """Return the lengths of the first axes in a value. None stands for a single number."""
    return {
        leaf.length() if leaf.has_axes() and leaf.layout_problem() is None else None
        for leaf in leaves(value, held=parts)
    }


def _are_images(items: Sequence[Any]) -> bool:
    shapes = [
        tuple(item.shape)
        for item in items
        if _kind(item) == "array" and Leaf((), item).layout_problem() is None
    ]
    return len(shapes) == len(items) and all(
        len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= 8 for shape in shapes
    )


def _signature(item: object) -> Any:
    held = dict(parts(item))
    return tuple(held) if _kind(item) == "structure" else tuple(map(_kind, held.values()))


def _are_alike(items: Sequence[Any]) -> bool:
    """Return True if containers have the same keys, or the same kinds of values at the same
    positions.
    """
    return len({(type(item), _signature(item)) for item in items}) == 1


def _are_samples(items: Sequence[Any]) -> bool:
    """Return True if containers of one kind cannot be fields.

    They cannot if they hold single numbers, or first axes that differ.
    """
    firsts = _firsts(items)
    plain = any(_kind(child) == "plain" for item in items for _, child in parts(item))
    return _are_alike(items) and (plain or len(firsts) > 1 or None in firsts)


def _votes(
    value: Any, doubts: list[str], path: tuple[Any, ...] = (), sure: bool = True
) -> Iterator[Field]:
    """Yield the fields that determine the number of samples."""
    if _kind(value) == "array":
        if value.shape:
            yield Field(path, value, int(value.shape[0]), sure)
        return
    if not _is_sequence(value) or not value:
        for name, child in parts(value):
            yield from _votes(child, doubts, (*path, name), sure)
        return
    kinds, name = _kinds(value), ".".join(map(str, path)) or "the batch"
    containers = kinds <= {"structure", "sequence"} and len(kinds) == 1 and bool(_firsts(value))
    listed = path or isinstance(value, list)
    if (containers and _are_samples(value)) or (listed and len(value) > 2 and _are_images(value)):
        yield Field(path, value, len(value))
        return
    shapes = (
        {(tuple(item.shape), item.dtype) for item in value if item is not None}
        if kinds == {"array"}
        else set()
    )
    equal = len(shapes) == 1 and len(value) > 2 and listed
    if (
        (kinds == {"structure"} and containers and len(value) > 1 and _are_alike(value))
        or equal
        or (listed and _are_images(value))
    ):
        doubts.append(name)
    for place, child in enumerate(value):
        yield from _votes(child, doubts, (*path, place), sure and len(kinds) > 1)


def _fields(value: Any, samples: int, arrays: bool, path: tuple[Any, ...] = ()) -> Iterator[Field]:
    """Yield all fields that have one entry per sample, or should have."""
    if _kind(value) == "array":
        if value.shape:
            yield Field(path, value, int(value.shape[0]))
        return
    if _is_sequence(value) and value and _is_list_of_samples(value, samples, arrays, path):
        yield Field(path, value, len(value))
        return
    for name, child in parts(value):
        yield from _fields(child, samples, arrays, (*path, name))


def _is_list_of_samples(value: Any, samples: int, arrays: bool, path: tuple[Any, ...]) -> bool:
    kinds, firsts = _kinds(value), _firsts(value)
    name = f"{'.'.join(map(str, path)) or 'the batch'} ({len(value)})"
    crossed = kinds == {"sequence"} and all(len(item) == samples for item in value)
    if len(value) != samples:
        odd = (
            isinstance(value, list)
            and len(kinds) == 1
            and bool(kinds & {"object", "structure"})
            and not firsts
        )
        return odd or (kinds == {"structure"} and bool(firsts) and _are_samples(value))
    unclear = UnclearSamples(
        f"cannot tell whether {name} is a list of samples or of fields of {samples} samples"
    )
    if not firsts:
        if crossed and not (
            isinstance(value, list) and all(isinstance(item, list) for item in value)
        ):
            raise unclear
        return len(kinds) <= 1 or not any(
            _is_sequence(item) and len(item) == samples for item in value
        )
    if len(kinds) > 1:
        return False
    if crossed:
        inner = all(len(_kinds(item)) <= 1 for item in value)
        if inner and _are_alike(value) and firsts != {samples}:
            raise unclear
        return not inner and _are_alike(value)
    if kinds == {"array"} and firsts == {samples}:
        if (path or _are_images(value)) and len(
            {tuple(item.shape) for item in value if item is not None}
        ) == 1:
            if arrays or not _are_images(value):
                raise unclear
            return True
        return False
    return kinds == {"array"} or _are_alike(value)
