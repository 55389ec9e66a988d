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
    """Numbers of a model that can be changed."""

    is_array = True
    is_float = False
    size = 1

    def clear(self, start: int) -> None:
        """Set the numbers from a position on to zero."""
        raise NotImplementedError

    def fill(self, number: float) -> None:
        """Set all numbers."""
        raise NotImplementedError

    def mix(self, seed: int) -> None:
        """Put the numbers into a different order. Negate them if they are all equal."""
        raise NotImplementedError


class _Array(_Weight):
    """An array of NumPy."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self.is_float = value.dtype.kind == "f"
        self.size = int(value.size)

    def clear(self, start: int) -> None:
        flat = self._value.ravel()
        flat[start:] = 0
        self._value[...] = flat.reshape(self._value.shape)

    def fill(self, number: float) -> None:
        self._value[...] = number

    def mix(self, seed: int) -> None:
        import numpy as np

        flat = self._value.ravel()
        if not flat.size or (flat == flat[0]).all():
            self._value[...] = np.where(self._value == 0, 1, -self._value)
            return
        mixed = np.random.default_rng(seed).permutation(flat)
        if (mixed == flat).all():
            mixed = flat[::-1]
        self._value[...] = mixed.reshape(self._value.shape)


class _Tensor(_Weight):
    """A tensor of torch."""

    def __init__(self, value: Any) -> None:
        self._value = value.detach()
        self.is_float = bool(value.is_floating_point())
        self.size = int(value.numel())

    def clear(self, start: int) -> None:
        flat = self._value.reshape(-1).clone()
        flat[start:] = 0
        self._value.copy_(flat.reshape(self._value.shape))

    def fill(self, number: float) -> None:
        self._value.fill_(number)

    def mix(self, seed: int) -> None:
        torch = sys.modules["torch"]
        flat = self._value.reshape(-1)
        if not flat.numel() or bool((flat == flat[0]).all()):
            self._value.copy_(torch.where(self._value == 0, 1, -self._value))
            return
        drawn = torch.Generator().manual_seed(seed % 2**63)
        mixed = flat[torch.randperm(flat.numel(), generator=drawn).to(flat.device)]
        if bool((mixed == flat).all()):
            mixed = flat.flip(0)
        self._value.copy_(mixed.reshape(self._value.shape))


class _Number(_Weight):
    """A number in a container or an object."""

    is_array = False

    def __init__(self, value: Any, write: Callable[[Any], None]) -> None:
        self.value, self._write = value, write
        self.is_float = isinstance(value, float)

    def clear(self, start: int) -> None:
        if not start:
            self._write(type(self.value)())

    def fill(self, number: float) -> None:
        self._write(number)

    def mix(self, seed: int) -> None:
        self._write(-self.value if self.value else type(self.value)(1))

    def put(self, number: Any) -> None:
        """Write a different number."""
        self._write(number)


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
    _damage(weights, kind, seed)
    return copied


def _weights(model: Any) -> list[_Weight]:
    """Return the arrays of floating-point numbers. Without any array, return single numbers."""
    found = list(_found(model, 0, set()))
    arrays = [one for one in found if one.is_array]
    if arrays:
        return [one for one in arrays if one.is_float]
    return [one for one in found if one.is_float] or found


def _found(value: Any, level: int, seen: set[int]) -> Iterator[_Weight]:
    if id(value) in seen or level > MAX_LEVELS:
        return
    seen.add(id(value))
    if is_array(value) or is_tensor(value):
        if _can_change(value):
            yield _Tensor(value) if is_tensor(value) else _Array(value)
        return
    for name, one in _parts(value):
        if isinstance(one, (int, float)) and not isinstance(one, bool):
            if not isinstance(value, tuple):
                yield _Number(one, functools.partial(_set, value, name))
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


def _set(owner: Any, name: Any, value: Any) -> None:
    if isinstance(owner, (MutableMapping, MutableSequence)):
        owner[name] = value
    else:
        object.__setattr__(owner, name, value)


def _damage(weights: list[_Weight], kind: str, seed: int) -> None:
    if kind == "nan":
        weights[0].fill(math.nan)
    elif kind == "half_loaded":
        left = sum(one.size for one in weights) // 2
        for one in weights:
            kept = min(left, one.size)
            left -= kept
            if kept < one.size:
                one.clear(kept)
    else:
        numbers = [one for one in weights if isinstance(one, _Number)]
        if len({one.value for one in numbers}) > 1:
            _mix_numbers(numbers, seed)
        else:
            for place, one in enumerate(weights):
                one.mix(seed + place)


def _mix_numbers(numbers: list[_Number], seed: int) -> None:
    values = [one.value for one in numbers]
    mixed = values.copy()
    rng = random.Random(seed)
    while mixed == values:
        rng.shuffle(mixed)
    for one, value in zip(numbers, mixed, strict=True):
        one.put(value)


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
