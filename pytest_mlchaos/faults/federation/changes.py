"""Change updates of a federation's clients, which are arrays, nested in dicts and lists."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal

from ...errors import PayloadMismatch

__all__ = ["Boost", "Keys", "NotANumber", "is_float"]


def is_float(leaf: Any) -> bool:
    """Return True for a number, an array or a tensor of floating-point numbers."""
    if isinstance(leaf, float):
        return True
    kind = getattr(getattr(leaf, "dtype", None), "kind", None)  # that of NumPy
    if kind is not None:
        return kind in "fc"
    is_floating = getattr(leaf, "is_floating_point", None)
    return bool(is_floating()) if callable(is_floating) else False


def _mapped(value: Any, base: Any, change: Callable[[Any, Any], Any]) -> Any:
    """Return a copy in which each floating-point leaf is changed."""
    if isinstance(value, Mapping):
        items = {
            name: _mapped(item, base[name] if _has(base, name) else None, change)
            for name, item in value.items()
        }
        return _like(value, items)
    if isinstance(value, (list, tuple)):
        bases = base if _is_row(base, value) else [None] * len(value)
        row = [_mapped(item, one, change) for item, one in zip(value, bases, strict=True)]
        return row if isinstance(value, list) else _tuple(value, row)
    return change(value, base) if is_float(value) else value


def _has(base: Any, name: Any) -> bool:
    return isinstance(base, Mapping) and name in base


def _is_row(base: Any, value: Any) -> bool:
    return isinstance(base, (list, tuple)) and len(base) == len(value)


def _tuple(value: Any, row: list[Any]) -> Any:
    return type(value)(*row) if hasattr(value, "_fields") else type(value)(row)


def _like(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """Return a mapping of the same kind, such as an ``OrderedDict``."""
    cls: Any = type(value)
    return cls(items) if isinstance(value, MutableMapping) else items


def _plain(leaf: Any) -> Any:
    """Return a tensor without its graph."""
    return leaf.detach() if hasattr(leaf, "detach") else leaf


def _same_kind(fresh: Any, leaf: Any) -> Any:
    """Return a result as an array: NumPy makes numbers of arrays without dimensions."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(leaf, numpy.ndarray):
        return numpy.asarray(fresh, dtype=leaf.dtype)
    return fresh


def _quiet() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which NumPy does not warn of an overflow."""
    numpy = sys.modules.get("numpy")
    return contextlib.nullcontext() if numpy is None else numpy.errstate(all="ignore")


@dataclasses.dataclass(frozen=True)
class Boost:
    """Multiply what the client has learned: its parameters minus the global ones."""

    factor: float
    of_data = False

    def __call__(self, value: Any, base: Any = None) -> Any:
        """Return the boosted parameters."""

        def boosted(leaf: Any, of_base: Any) -> Any:
            leaf = _plain(leaf)
            if of_base is None:
                return _same_kind(leaf * self.factor, leaf)
            of_base = _plain(of_base)
            return _same_kind(of_base + (leaf - of_base) * self.factor, leaf)

        with _quiet():
            return _mapped(value, base, boosted)


@dataclasses.dataclass(frozen=True)
class NotANumber:
    """Replace all values by NaN."""

    of_data = False

    def __call__(self, value: Any, base: Any = None) -> Any:
        """Return parameters of NaN."""
        with _quiet():
            return _mapped(
                value, None, lambda leaf, _: _same_kind(_plain(leaf) * math.nan, _plain(leaf))
            )


@dataclasses.dataclass(frozen=True)
class Keys:
    """Change the names, or the number, of the parameters."""

    kind: Literal["renamed", "missing", "extra"]
    prefix: str = "module."
    of_data = False

    def __call__(self, value: Any, base: Any = None) -> Any:
        """Return the parameters under wrong names."""
        if isinstance(value, Mapping) and value:
            return _like(value, self._mapping(value))
        if isinstance(value, (list, tuple)) and value:
            row = self._row(list(value))
            if isinstance(value, list) or hasattr(value, "_fields"):
                return row
            return type(value)(row)
        raise PayloadMismatch(
            f"wrong_keys strikes parameters in a dict or a list, got {type(value).__name__}"
        )

    def _mapping(self, value: Mapping[Any, Any]) -> dict[Any, Any]:
        items = dict(value)
        last = next(reversed(items))
        if self.kind == "renamed":
            return {f"{self.prefix}{name}": item for name, item in items.items()}
        if self.kind == "missing":
            del items[last]
        else:
            items[f"{self.prefix}{last}"] = items[last]
        return items

    def _row(self, row: list[Any]) -> list[Any]:
        if self.kind == "missing":
            return row[:-1]
        # A list has no names, so a renamed entry is one at a different position.
        return [*row[1:], row[0]] if self.kind == "renamed" else [*row, row[-1]]
