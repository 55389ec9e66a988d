"""Copy the state of an object, and restore it in place."""

from __future__ import annotations

import collections
import copy
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["SavedState", "save_state"]

MAX_OBJECTS = 10_000
"""The largest number of objects whose content is copied."""
_CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)


class SavedState(NamedTuple):
    """The state of an object.

    Attributes:
        data: A copy of it, as plain data that can be compared.
        restore: A function that restores it in place, and returns the object. If the object cannot
            be changed in place, the function returns a copy of what it was.
    """

    data: Any
    restore: Callable[[], Any]


def save_state(value: Any, seen: set[int] | None = None) -> SavedState:
    """Copy the state of an object and of what it holds.

    Parameters stay the same objects, because an optimizer refers to them. What cannot be copied
    (locks, connections, threads) is left alone.
    """
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, _CODE) or len(seen) > MAX_OBJECTS:
        return SavedState(None, lambda: value)
    seen.add(id(value))
    for save in (_stateful, _array, _container, _attributes):
        saved = save(value, seen)
        if saved is not None:
            return saved
    try:
        data = copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # an object may refuse to be copied with any error
        return SavedState(None, lambda: value)
    return SavedState(data, lambda: copy.deepcopy(data))


def _stateful(value: Any, seen: set[int]) -> SavedState | None:
    """Save a module, an optimizer, or whatever else has their two methods."""
    if not (hasattr(value, "state_dict") and hasattr(value, "load_state_dict")):
        return None
    data = copy.deepcopy(value.state_dict())

    def restore() -> Any:
        value.load_state_dict(copy.deepcopy(data))
        return value

    return SavedState(data, restore)


def _array(value: Any, seen: set[int]) -> SavedState | None:
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        data = value.detach().clone()

        def restore() -> Any:
            value.detach().copy_(data)
            return value

        return SavedState(data, restore)
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype != object:
        kept = value.copy()

        def put() -> Any:
            value[...] = kept
            return value

        return SavedState(kept, put)
    return None


def _container(value: Any, seen: set[int]) -> SavedState | None:
    if type(value) in _MAPPINGS:
        held = {key: save_state(item, seen) for key, item in value.items()}

        def restore() -> Any:
            fresh = {key: item.restore() for key, item in held.items()}
            value.clear()
            value.update(fresh)
            return value

        return SavedState({key: item.data for key, item in held.items()}, restore)
    if type(value) in (list, tuple):
        items = [save_state(item, seen) for item in value]

        def put() -> Any:
            fresh = [item.restore() for item in items]
            if type(value) is tuple:
                return tuple(fresh)
            value[:] = fresh
            return value

        return SavedState([item.data for item in items], put)
    return None


def _attributes(value: Any, seen: set[int]) -> SavedState | None:
    """Save the attributes of an object of a class in Python."""
    if not isinstance(getattr(value, "__dict__", None), dict):
        return None
    held = {name: save_state(item, seen) for name, item in list(vars(value).items())}

    def restore() -> Any:
        for name in [name for name in vars(value) if name not in held]:
            del vars(value)[name]
        vars(value).update({name: item.restore() for name, item in held.items()})
        return value

    return SavedState({name: item.data for name, item in held.items()}, restore)
