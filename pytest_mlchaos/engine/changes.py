"""Detect if a fault changed its payload. A strike that changes nothing does not count."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import hashlib
import pickle
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from .digests import digest

__all__ = ["alike", "fingerprint"]

_MAX_DEPTH = 32
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
    *(decimal.Decimal, uuid.UUID),
)
_CARRIERS = ("pandas", "polars", "pyarrow", "scipy", "PIL")
"""Packages whose objects are data. Equal content pickles to equal bytes."""


class _UnknownContent(Exception):
    """Raised for a value whose changes cannot be detected."""


def fingerprint(value: object) -> bytes | None:
    """Return a digest of types, shapes and contents, or None if a part cannot be compared.

    Changes of objects of unknown classes cannot be detected.
    """
    hashed = hashlib.sha1(usedforsecurity=False)
    try:
        _feed(value, hashed.update, 0)
    except _UnknownContent:
        return None
    return hashed.digest()


def alike(one: object, other: object) -> bool:
    """Return True if two values have the same content, and False if that is unknown."""
    found = fingerprint(one)
    return found is not None and found == fingerprint(other)


def _feed(value: Any, update: Callable[[bytes], object], depth: int) -> None:
    kind = type(value)
    update(kind.__qualname__.encode())
    if depth > _MAX_DEPTH:
        raise _UnknownContent
    if kind in _PLAIN:
        update(repr(value).encode(errors="surrogatepass"))
    elif isinstance(value, enum.Enum):
        update(value.name.encode())
    elif isinstance(value, Mapping):
        for key, held in value.items():
            _feed(key, update, depth + 1)
            _feed(held, update, depth + 1)
    elif isinstance(value, (list, tuple)):
        update(b"%d" % len(value))
        for held in value:
            _feed(held, update, depth + 1)
    elif _is_array(value):
        update(repr((str(value.dtype), tuple(value.shape))).encode())
        update(digest(value))
    elif (fields := _fields(kind)) is not None:
        for name in fields:
            update(name.encode())
            _feed(getattr(value, name, None), update, depth + 1)
    elif kind.__module__.partition(".")[0] in _CARRIERS:
        update(_pickle(value))
    else:
        raise _UnknownContent


def _fields(kind: type) -> tuple[str, ...] | None:
    """Return the names of the fields of a dataclass or a model, or None."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    fields = getattr(kind, "model_fields", None)
    return tuple(fields) if isinstance(fields, Mapping) else None


def _is_array(value: Any) -> bool:
    arrays = (("numpy", "ndarray"), ("numpy", "generic"), ("torch", "Tensor"))
    classes = (getattr(sys.modules.get(library), name, None) for library, name in arrays)
    found = any(cls is not None and isinstance(value, cls) for cls in classes)
    if found and getattr(value.dtype, "hasobject", False):
        raise _UnknownContent
    return found


def _pickle(value: object) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:  # a user's class may raise anything
        raise _UnknownContent from error
