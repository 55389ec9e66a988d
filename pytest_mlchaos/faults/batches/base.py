"""Find the fields, labels and samples of a batch of any type."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...core.faults import is_drawn
from ...core.privacy import may_be_hinted, path_text
from ...core.validation import did_you_mean, format_value
from ...errors import BadArgument, PayloadMismatch
from .pytree import Leaf, children, describe, leaves, numbers, parts, rebuilt
from .records import Each, copied_record, is_sequence
from .samples import Field, UnclearSamples, fields_of_samples

__all__ = ["Batch", "copy_payload", "field_name", "wanted_fields"]

_LABEL_NAMES = ("labels", "label", "targets", "target", "y")
_NO_LABELS = frozenset(
    (
        "id",
        "ids",
        "idx",
        "index",
        "indices",
        "mask",
        "masks",
        "len",
        "length",
        "lengths",
        "weight",
        "weights",
    )
)
"""Words in the names of fields that belong to labels, or hold whole numbers, but are not labels."""


def wanted_fields(owner: str, fields: object) -> Any:
    """Return the parameter ``fields`` in its normal form: None, one name or position, or a tuple of
    several.
    """
    if fields is None or is_drawn(fields):
        return fields
    wanted = (
        [fields]
        if isinstance(fields, (str, int))
        else list(fields)
        if isinstance(fields, Sequence)
        else []
    )
    if not wanted or not all(
        isinstance(name, (str, int)) and not isinstance(name, bool) for name in wanted
    ):
        raise BadArgument(f"{owner}: fields must be names or positions, got {format_value(fields)}")
    return tuple(wanted) if len(wanted) > 1 else wanted[0]


def field_name(leaf: Leaf) -> str:
    """Return the path to a field, with dots."""
    return path_text(_named_path(leaf)) or "batch"


def _named_path(leaf: Leaf) -> tuple[Any, ...]:
    """Return the path to a field without the items that a column passes through."""
    return tuple(part for part in leaf.path if not isinstance(part, Each))


def _words(name: object) -> list[str]:
    return re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", str(name)).lower())


def _is_label_name(name: object) -> bool:
    return str(name).lower() in _LABEL_NAMES


def _has_label_name(name: object) -> bool:
    """Return True for a name such as ``label_ids`` or ``target_class``, but not ``target_mask``."""
    words = set(_words(name))
    return bool(re.search("label|target", str(name).lower())) and not words & (
        _NO_LABELS - {"id", "ids", "idx", "index", "indices"}
    )


def _named(value: object, rule: Callable[[Any], bool]) -> bool:
    """Return True if a field anywhere in the value has a matching name."""
    return any(rule(name) or _named(child, rule) for name, child in parts(value))


def copy_payload(payload: object) -> Any:
    """Return a copy of a batch whose arrays are copies, too."""
    found = {leaf.path: leaf.copied() for leaf in leaves(payload, held=parts)}
    return (
        rebuilt(payload, found)
        if found or next(numbers(payload), None) is None
        else copied_record(payload)
    )


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch, for a fault with the name ``owner``."""

    owner: str
    payload: Any

    @property
    def leaves(self) -> list[Leaf]:
        """Return all arrays of the batch. If it is a record without arrays, return its numbers."""
        return list(leaves(self.payload, held=parts)) or list(numbers(self.payload))

    def mismatch(self, problem: str, hint: str = ". Name them with fields=") -> PayloadMismatch:
        """Return the error for a batch that the fault cannot work on."""
        return PayloadMismatch(
            f"{self.owner} {problem} in the batch {describe(self.payload)}{hint}"
        )

    def refuse(self, leaf: Leaf, problem: str) -> PayloadMismatch:
        """Return the error for a field that the fault cannot work on."""
        return PayloadMismatch(
            f"{self.owner} cannot change the field {field_name(leaf)!r} of the batch "
            f"{describe(self.payload)}: it {problem}"
        )

    def named(self, fields: object) -> list[Leaf]:
        """Return the arrays with these names or positions."""
        found = self.leaves
        wanted = fields if isinstance(fields, tuple) else (fields,)
        return [leaf for name in wanted for leaf in self._under(name, found)]

    def _under(self, name: str | int, found: list[Leaf]) -> list[Leaf]:
        path = tuple(name.split(".")) if isinstance(name, str) else (str(name),)
        matching = [
            leaf for leaf in found if tuple(map(str, _named_path(leaf)))[: len(path)] == path
        ]
        if not matching:
            known = {
                ".".join(map(str, _named_path(leaf)[:depth]))
                for leaf in found
                for depth in range(1, len(leaf.path) + 1)
            }
            hint = did_you_mean(
                str(name), sorted(one for one in known if may_be_hinted(str(name), one))
            )
            raise PayloadMismatch(
                f"{self.owner}: found no field {name!r} with numbers in the batch "
                f"{describe(self.payload)}{hint}"
            )
        return matching

    def labels(self, fields: object = None) -> list[Leaf]:
        """Return the fields with labels: the named ones, or those that ``told_labels`` finds."""
        if fields is not None:
            return self.named(fields)
        labels = self.told_labels()
        if not labels:
            raise self.mismatch("found no labels")
        return labels

    def told_labels(self) -> list[Leaf]:
        """Return the fields whose names say that they are labels.

        Return the fields with label names, or those with such a word in the name. If there are
        none, return the last of several fields if it looks like labels.
        """
        found = self.leaves
        for rule in (_is_label_name, _has_label_name):
            named = [leaf for leaf in found if leaf.path and rule(leaf.path[-1])]
            # A container may have the label name. If it holds no arrays, the batch has no labels.
            if named or _named(self.payload, rule):
                return named or [leaf for leaf in found if any(map(rule, leaf.path))]
        return (
            found[-1:] if len(found) > 1 and self._looks_like_labels(found[-1], found[:-1]) else []
        )

    def _looks_like_labels(self, last: Leaf, others: list[Leaf]) -> bool:
        """Return True if the last field may hold labels.

        With a label name, it must have as few numbers per sample as labels have. Without one, it
        must not be one more field of the same kind as the others.
        """
        if last.problem() is not None:
            return True  # A later check refuses it and names its type.
        shape = tuple(last.value.shape)
        single = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
        if not isinstance(last.path[-1], str):
            return single or any(
                (tuple(leaf.value.shape), leaf.value.dtype) != (shape, last.value.dtype)
                for leaf in others
            )
        if _NO_LABELS & set(_words(last.path[-1])):
            return False
        values = last.numpy()
        one_hot = (
            len(shape) == 2
            and bool(((values == 0) | (values == 1)).all())
            and bool((values.sum(1) == 1).all())
        )
        return one_hot or (single and not last.is_float)

    def floats(self, fields: object = None) -> list[Leaf]:
        """Return the named fields, or else all fields with floating-point numbers."""
        if fields is None:
            found = [
                leaf for leaf in self.leaves if leaf.is_float and leaf.size
            ] or self._of_integers()
        else:
            found = [_as_float(leaf) for leaf in self.named(fields)]
        if not found:
            raise self.mismatch("found no floating-point values")
        return found

    def _of_integers(self) -> list[Leaf]:
        """Return the numbers of a record without floats, because whole numbers are often written
        without a point.

        Labels stay unchanged.
        """
        labels = (
            {leaf.path for leaf in self.told_labels()}
            if self.leaves and self.leaves[0].record
            else set()
        )
        return [_as_float(leaf) for leaf in self.leaves if leaf.record and leaf.path not in labels]

    def checked(self, found: list[Leaf]) -> list[Leaf]:
        """Return these fields. Raise an error if they are empty or hold no numbers."""
        for leaf in found:
            problem = leaf.problem() or (None if leaf.size else "is empty")
            if problem is not None:
                raise self.refuse(leaf, problem)
        return found

    @functools.cached_property
    def fields(self) -> list[Field]:
        """Return the arrays and lists with one entry per sample. ``samples.py`` explains the rule."""
        for leaf in self.leaves:
            if (problem := leaf.layout_problem()) is not None:
                raise self.refuse(leaf, problem)
        try:
            found = (
                _fields_of_record(self.payload)
                if self.leaves and self.leaves[0].record
                else fields_of_samples(self.payload)
            )
        except UnclearSamples as error:
            raise self.mismatch(str(error), "") from None
        if not found:
            raise self.mismatch("found no arrays that hold samples", "")
        return found

    def samples(self) -> int:
        """Return the number of samples, on which all fields agree."""
        return self.fields[0].length

    def places(self, leaf: Leaf) -> tuple[Field, int | None]:
        """Return the field that an array belongs to, and the index of its sample in that field.

        The index is None for an array of all samples.
        """
        for field in self.fields:
            depth = len(field.path)
            if leaf.path[:depth] == field.path:
                whole = field.path == leaf.path or isinstance(leaf.path[depth], Each)
                return field, None if whole else leaf.path[depth]
        raise self.refuse(leaf, "has no axis of samples")

    def taken(self, order: object) -> Any:
        """Return the batch with the samples at these indices, in this order, in all fields."""
        return rebuilt(self.payload, {field.path: _reorder(field, order) for field in self.fields})

    def with_samples(self, places: Any, part: Any) -> Any:
        """Return the batch with the samples of ``part``, a changed ``taken(places)``, put back."""
        fresh = {}
        for field in self.fields:
            new = part
            for name in field.path:
                new = dict(parts(new))[name]
            fresh[field.path] = self._with_samples(field, places, new)
        return rebuilt(self.payload, fresh)

    def _with_samples(self, field: Field, places: Any, new: Any) -> Any:
        value = field.value
        if not hasattr(value, "shape"):
            same = hasattr(new, "__len__") and len(new) == len(places)
            if same:
                items = list(value)
                for place, item in zip(places.tolist(), new, strict=True):
                    items[place] = item
                return type(value)(items)
        elif tuple(getattr(new, "shape", ())) == (len(places), *value.shape[1:]):
            return Leaf(field.path, value).with_rows(places, new)
        raise self.mismatch(
            f"changes the number or the shape of the samples of {field.name}, so it cannot be "
            f"limited to rows,",
            "",
        )


def _as_float(leaf: Leaf) -> Leaf:
    """Return a number of a record as a float, so that it can become any other number."""
    return (
        Leaf(leaf.path, leaf.value.astype("float64"), record=True)
        if leaf.record and not leaf.is_float
        else leaf
    )


def _fields_of_record(value: object) -> list[Field]:
    """Return the outermost lists that hold a sample in each item."""
    found = list(_lists(value, ()))
    if len({field.length for field in found}) > 1:
        names = ", ".join(field.name for field in found[:8])
        raise UnclearSamples(f"cannot tell the samples, because the lengths of {names} differ,")
    return found


def _lists(value: Any, path: tuple[Any, ...]) -> Iterator[Field]:
    if is_sequence(value):
        yield Field(path, value, len(value))
        return
    for name, child in children(value):
        yield from _lists(child, (*path, name))


def _reorder(field: Field, order: Any) -> Any:
    value = field.value
    if not isinstance(value, (list, tuple, collections.deque)):
        return Leaf(field.path, value).reordered(order)
    seen: set[int] = set()
    items = []
    for place in map(int, order):
        # two samples must not share one array
        items.append(copy_payload(value[place]) if place in seen else value[place])
        seen.add(place)
    return type(value)(items)
