"""Damage one field of a value: a request's body, an item of a batch, or an answer.

Values are those of JSON, bytes, tuples, dataclasses, models of pydantic, and arrays of NumPy or
torch.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, get_args

from ...engine.changes import alike
from ..batches.pytree import Leaf, is_tensor
from ..batches.pytree import is_array as is_numpy

__all__ = [
    "ANSWER_KINDS",
    "KINDS",
    "AnswerKind",
    "MalformedKind",
    "NothingToDamage",
    "dumps",
    "is_array",
    "malformed",
]

MalformedKind: TypeAlias = Literal[
    "missing_field", "wrong_type", "nan", "empty", "huge", "unicode", "deep"
]
KINDS: tuple[str, ...] = get_args(MalformedKind)
AnswerKind: TypeAlias = Literal["wrong_type", "nan", "truncated", "swapped", "empty"]
ANSWER_KINDS: tuple[str, ...] = get_args(AnswerKind)
MAX_LEVELS = 16
"""The depth to which parts are damaged. Objects may refer to each other."""
HUGE_TEXT = 1 << 20
HUGE_LIST = 10_000
HUGE_INTEGER = 10**30
HUGE_FLOAT = 1e308
DEPTH = 2_000
"""More levels than a recursive parser in Python can read."""
STRANGE = "\ud800\x00\u202e\ufffd\U0001f9e8"
"""Half of a surrogate pair, a zero byte, a right-to-left mark, and a character above 2**16."""
_DEEP_MARK = "mlchaos-deep-4d1f"

Path: TypeAlias = tuple[Any, ...]
Node: TypeAlias = tuple[Path, Any]
_REMOVED: Any = object()
_UNFIT: Any = object()


class NothingToDamage(Exception):
    """Raised for a value without a part that this kind of damage fits."""


def malformed(value: Any, kind: str, seed: int, field: str | None = None) -> tuple[Any, Path]:
    """Return a copy with one part damaged, and the path of that part.

    Parts that are not damaged are the same objects.

    Args:
        value: The value.
        kind: One of ``KINDS`` or ``ANSWER_KINDS``.
        seed: It chooses the part.
        field: The name of the field, or None for any.

    Raises:
        NothingToDamage: No part fits.
    """
    found = []
    for path, node in _nodes(value):
        if field is None or (path and path[-1] == field):
            damaged = _DAMAGES[kind](path, node, value)
            if damaged is not _UNFIT and (damaged is _REMOVED or not alike(damaged, node)):
                found.append((path, damaged))
    if not found:
        raise NothingToDamage
    path, damaged = random.Random(seed).choice(found)
    return _replaced(value, path, damaged), path


def dumps(value: object) -> bytes:
    """Return a value as JSON, also if it is nested too deeply for the encoder."""
    if _deepest(value) < DEPTH:
        return json.dumps(value).encode()
    marked = _marked(value)
    text = json.dumps(marked)
    return text.replace(f'"{_DEEP_MARK}"', "[" * DEPTH + "]" * DEPTH).encode()


def _nodes(value: Any, path: Path = ()) -> Iterator[Node]:
    """Yield all parts of a value with their paths, itself first."""
    yield path, value
    if len(path) >= MAX_LEVELS:
        return
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _nodes(one, (*path, key))
    elif type(value) in (list, tuple) or _is_named_tuple(value):
        for place, one in enumerate(value):
            yield from _nodes(one, (*path, place))
    else:
        for name in _field_names(value):
            yield from _nodes(getattr(value, name, None), (*path, name))


def _field_names(value: Any) -> list[str]:
    """Return the fields of a dataclass or of a model of pydantic, and none for other objects."""
    if isinstance(value, type):
        return []
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    fields = getattr(type(value), "model_fields", None)
    return list(fields) if isinstance(fields, dict) and hasattr(value, "model_copy") else []


def _is_named_tuple(value: object) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _replaced(value: Any, path: Path, damaged: Any) -> Any:
    """Return a copy of a value with the part at a path replaced or removed."""
    if not path:
        return damaged
    step, *rest = path
    if isinstance(value, Mapping):
        items = dict(value)
        if damaged is _REMOVED and not rest:
            del items[step]
        else:
            items[step] = _replaced(value[step], tuple(rest), damaged)
        return items
    if _field_names(value):
        fresh = copy.copy(value)
        gone = damaged is _REMOVED and not rest
        part = None if gone else _replaced(getattr(value, step), tuple(rest), damaged)
        object.__setattr__(fresh, step, part)
        return fresh
    sequence = list(value)
    if damaged is _REMOVED and not rest:
        del sequence[step]
    else:
        sequence[step] = _replaced(value[step], tuple(rest), damaged)
    if _is_named_tuple(value):
        return type(value)(*sequence)
    return type(value)(sequence)


def is_array(value: object) -> bool:
    """Return True for an array of NumPy or torch."""
    return is_numpy(value) or is_tensor(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _missing(path: Path, node: Any, whole: Any) -> Any:
    if is_array(node):
        return node[..., :-1] if len(node.shape) and node.shape[-1] > 1 else _UNFIT
    if not path:
        return _UNFIT
    parent = whole
    for step in path[:-1]:
        parent = getattr(parent, step) if _field_names(parent) else parent[step]
    if isinstance(parent, Mapping) or _field_names(parent):
        return _REMOVED
    # A vector that is too short. An item of a list of records is not a field.
    is_last = type(parent) is list and path[-1] == len(parent) - 1
    return _REMOVED if is_last and len(parent) > 1 and _is_number(node) else _UNFIT


def _wrong_type(path: Path, node: Any, whole: Any) -> Any:
    if is_array(node):
        return _UNFIT if is_tensor(node) else node.astype(str)
    if isinstance(node, bool) or _is_number(node):
        return "seven"
    if isinstance(node, (str, bytes)) or node is None:
        return 7
    if isinstance(node, (dict, list)) and path:
        return "seven"
    return _UNFIT


def _nan(path: Path, node: Any, whole: Any) -> Any:
    if is_array(node):
        leaf = Leaf((), node)
        if not leaf.size or not leaf.is_float or leaf.problem():
            return _UNFIT
        values = leaf.numpy().copy()
        values.reshape(-1)[0] = math.nan
        return leaf.with_values(values)
    return math.nan if _is_number(node) else _UNFIT


def _empty(path: Path, node: Any, whole: Any) -> Any:
    if is_array(node):
        return node[:0] if len(node.shape) and node.shape[0] else _UNFIT
    if isinstance(node, (str, bytes, list, dict)):
        return type(node)() if node else _UNFIT
    return None if isinstance(node, bool) or _is_number(node) else _UNFIT


def _huge(path: Path, node: Any, whole: Any) -> Any:
    if is_array(node):
        leaf = Leaf((), node)
        if not leaf.size or not leaf.is_float or leaf.is_narrow or leaf.problem():
            return _UNFIT
        import numpy as np

        values = leaf.numpy().copy()
        values.reshape(-1)[0] = np.inf
        return leaf.with_values(values)
    if isinstance(node, bool):
        return _UNFIT
    if isinstance(node, int):
        return HUGE_INTEGER
    if isinstance(node, float):
        return HUGE_FLOAT
    if isinstance(node, (str, bytes)) and node:
        return node * (HUGE_TEXT // len(node) + 1)
    return node * (HUGE_LIST // len(node) + 1) if isinstance(node, list) and node else _UNFIT


def _unicode(path: Path, node: Any, whole: Any) -> Any:
    if isinstance(node, str):
        return node + STRANGE
    return node + b"\xff\xfe\x00\xc3" if isinstance(node, bytes) else _UNFIT


def _deep(path: Path, node: Any, whole: Any) -> Any:
    if is_array(node) or not (path or isinstance(node, (list, str))):
        return _UNFIT
    if not (node is None or isinstance(node, (str, bool, int, float, list, dict))):
        return _UNFIT
    nested: list[Any] = []
    for _ in range(DEPTH - 1):
        nested = [nested]
    return nested


def _truncated(path: Path, node: Any, whole: Any) -> Any:
    if is_array(node):
        return node[: len(node) // 2] if len(node.shape) and len(node) > 1 else _UNFIT
    if isinstance(node, (str, bytes, list)) and len(node) > 1:
        return node[: len(node) // 2]
    return _UNFIT


def _swapped(path: Path, node: Any, whole: Any) -> Any:
    """Exchange the first two parts that differ."""
    if is_array(node):
        return node[::-1].copy() if not is_tensor(node) and len(node.shape) else _UNFIT
    if not isinstance(node, (dict, list)):
        return _UNFIT
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
    for place, (key, one) in enumerate(items):
        for other, different in items[place + 1 :]:
            if not alike(one, different):
                fresh = node.copy()
                fresh[key], fresh[other] = different, one
                return fresh
    return _UNFIT


_DAMAGES: Mapping[str, Callable[[Path, Any, Any], Any]] = {
    "missing_field": _missing,
    "wrong_type": _wrong_type,
    "nan": _nan,
    "empty": _empty,
    "huge": _huge,
    "unicode": _unicode,
    "deep": _deep,
    "truncated": _truncated,
    "swapped": _swapped,
}


def _deepest(value: object) -> int:
    """Return the length of a chain of lists with one item, anywhere in a value."""
    longest, pending = 0, [value]
    while pending:
        one, depth = pending.pop(), 1
        while isinstance(one, list) and len(one) == 1:
            one, depth = one[0], depth + 1
        longest = max(longest, depth)
        if isinstance(one, dict):
            pending += one.values()
        elif isinstance(one, list):
            pending += one
    return longest


def _marked(value: Any) -> Any:
    """Return a copy in which a text stands for what is nested too deeply."""
    if _is_deep(value):
        return _DEEP_MARK
    if isinstance(value, dict):
        return {key: _marked(one) for key, one in value.items()}
    return [_marked(one) for one in value] if isinstance(value, list) else value


def _is_deep(value: Any) -> bool:
    depth = 1
    while isinstance(value, list) and len(value) == 1:
        value, depth = value[0], depth + 1
    return depth >= DEPTH
