"""Damage the weights of a model: half of them are not loaded, or they are those of another model."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import random
import sys
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from typing import Any

from ..batches.pytree import is_array, is_tensor

__all__ = ["WEIGHT_KINDS", "NoWeights", "damaged_model"]

WEIGHT_KINDS = ("half_loaded", "wrong_weights", "nan")
MAX_LEVELS = 8
"""The depth at which the attributes of a model are searched for weights."""


class NoWeights(Exception):
    """Raised for a model without weights that are known."""


class _Weight:
    """Numbers of a model that can be read and written: an array, or one number."""

    def __init__(self, value: Any, write: Callable[[Any], None] | None = None) -> None:
        self._value, self._write = value, write

    @property
    def is_array(self) -> bool:
        """Return True for an array."""
        return self._write is None

    @property
    def numbers(self) -> list[Any]:
        """Return the numbers in order."""
        if not self.is_array:
            return [self._value]
        flat = self._value.detach().reshape(-1) if is_tensor(self._value) else self._value.ravel()
        return list(flat.tolist())

    def put(self, numbers: list[Any]) -> None:
        """Write the numbers."""
        if self._write is not None:
            self._write(numbers[0])
        elif is_tensor(self._value):
            torch = sys.modules["torch"]
            with torch.no_grad():
                fresh = torch.tensor(numbers, dtype=self._value.dtype, device=self._value.device)
                self._value.copy_(fresh.reshape(self._value.shape))
        else:
            import numpy as np

            fresh = np.asarray(numbers, dtype=self._value.dtype)
            self._value[...] = fresh.reshape(self._value.shape)


def damaged_model(model: Any, kind: str, seed: int) -> Any:
    """Return a copy of a model with damaged weights. The model itself is not changed.

    A model that is a plain function has no weights: the numbers that it returns are damaged.

    Raises:
        NoWeights: No weights were found, or the model cannot be copied.
    """
    if inspect.isroutine(model) or isinstance(model, functools.partial):
        return _damaged_function(model, kind)
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        raise NoWeights(f"it cannot be copied: {type(error).__name__}") from error
    weights = _weights(copied)
    if not weights:
        raise NoWeights("it holds no arrays and no numbers")
    _damage(weights, kind, random.Random(seed))
    return copied


def _weights(model: Any) -> list[_Weight]:
    """Return the arrays of floating-point numbers. Without any array, return single numbers."""
    found = list(_found(model, 0, set()))
    arrays = [one for one in found if one.is_array]
    if arrays:
        return [one for one in arrays if any(isinstance(number, float) for number in one.numbers)]
    floats = [one for one in found if isinstance(one.numbers[0], float)]
    return floats or found


def _found(value: Any, level: int, seen: set[int]) -> Iterator[_Weight]:
    if id(value) in seen or level > MAX_LEVELS:
        return
    seen.add(id(value))
    if is_array(value) or is_tensor(value):
        yield from [_Weight(value)] if _can_change(value) else []
        return
    for number, (name, one) in enumerate(_parts(value)):
        if isinstance(one, (int, float)) and not isinstance(one, bool):
            if name != "training":
                yield _Weight(one, functools.partial(_set, value, name, number))
        else:
            yield from _found(one, level + 1, seen)


def _can_change(array: Any) -> bool:
    if is_tensor(array):
        return not array.is_meta and array.layout is sys.modules["torch"].strided
    return array.dtype.kind in "biuf" and array.flags.writeable


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """Return the parts of a container or an object, with their keys or names."""
    if isinstance(value, MutableMapping):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, (str, bytes)) or inspect.isclass(value) or inspect.isroutine(value):
        return []
    if inspect.ismodule(value) or inspect.iscode(value):
        return []
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        return list(value.state_dict(keep_vars=True).items())
    return list(getattr(value, "__dict__", {}).items())


def _set(owner: Any, name: Any, number: int, value: Any) -> None:
    if isinstance(owner, (MutableMapping, MutableSequence)):
        owner[name] = value
    elif not isinstance(owner, tuple):
        object.__setattr__(owner, name, value)


def _damage(weights: list[_Weight], kind: str, rng: random.Random) -> None:
    if kind == "nan":
        weights[0].put([math.nan for _ in weights[0].numbers])
    elif kind == "half_loaded":
        total = sum(len(one.numbers) for one in weights)
        left = total // 2
        for one in weights:
            numbers = one.numbers
            kept = min(left, len(numbers))
            left -= kept
            if kept < len(numbers):
                one.put([*numbers[:kept], *(type(number)() for number in numbers[kept:])])
    else:
        for one in weights:
            one.put(_wrong(one.numbers, rng))


def _wrong(numbers: list[Any], rng: random.Random) -> list[Any]:
    """Return the numbers in a different order, or with a different sign if they are all equal."""
    if len(set(numbers)) < 2:
        return [-number if number else type(number)(1) for number in numbers]
    mixed = list(numbers)
    while mixed == numbers:
        rng.shuffle(mixed)
    return mixed


def _damaged_function(function: Any, kind: str) -> Any:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def predict_async(*args: Any, **kwargs: Any) -> Any:
            return _damaged_numbers(await function(*args, **kwargs), kind)

        return predict_async

    def predict(*args: Any, **kwargs: Any) -> Any:
        return _damaged_numbers(function(*args, **kwargs), kind)

    return functools.wraps(function)(predict) if inspect.isfunction(function) else predict


def _damaged_numbers(value: Any, kind: str) -> Any:
    if isinstance(value, dict):
        return {key: _damaged_numbers(one, kind) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_damaged_numbers(one, kind) for one in value)
    if isinstance(value, bool) or not (isinstance(value, (int, float)) or is_array(value)):
        return value
    return value * 0 if kind == "half_loaded" else value * math.nan if kind == "nan" else -value - 1
