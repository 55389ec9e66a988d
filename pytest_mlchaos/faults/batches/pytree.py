"""Find the arrays inside a nested batch, and copy the batch with some of them replaced."""

from __future__ import annotations

import collections
import copy
import dataclasses
import itertools
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ...core.privacy import path_text
from ...engine.table_types import is_frame
from .records import Each, as_it_was, columns, fields_of_record, is_number

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Leaf", "children", "describe", "leaves", "numbers", "parts", "rebuilt"]

Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a batch, and its path: mapping keys, positions and field names."""

    path: Path
    value: Any
    record: bool = False
    """True if the array consists of single numbers, which have no dtype."""

    @property
    def is_torch(self) -> bool:
        """Return True for a torch tensor, False for a NumPy array."""
        return is_tensor(self.value)

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return int(self.value.numel() if self.is_torch else self.value.size)

    @property
    def is_narrow(self) -> bool:
        """Return True for a floating-point tensor of 8 bits or less.

        torch cannot calculate with these, so they are changed as float32.
        """
        return (
            self.is_torch
            and bool(self.value.is_floating_point())
            and self.value.element_size() == 1
        )

    @property
    def is_complex(self) -> bool:
        """Return True for complex numbers."""
        return bool(self.value.is_complex()) if self.is_torch else self.value.dtype.kind == "c"

    @property
    def is_float(self) -> bool:
        """Return True for floating-point or complex numbers."""
        if self.is_torch:
            return bool(self.value.is_floating_point() or self.value.is_complex())
        return self.value.dtype.kind in "fc"

    def length(self) -> int:
        """Return the length of the first axis."""
        return int(self.value.shape[0]) if len(self.value.shape) else 0

    def has_axes(self) -> bool:
        """Return False for a single number, which has no samples."""
        return self.layout_problem() is not None or len(self.value.shape) > 0

    def layout_problem(self) -> str | None:
        """Return why its samples cannot be separated, or None."""
        if not self.is_torch:
            return None
        if self.value.is_nested:
            return "is a nested tensor"
        if self.value.layout is not sys.modules["torch"].strided:
            return f"is a tensor of layout {self.value.layout}"
        return "is on the meta device, and holds no values" if self.value.is_meta else None

    def problem(self) -> str | None:
        """Return why its elements cannot be changed one by one, or None."""
        if self.is_torch:
            return self.layout_problem() or ("is quantized" if self.value.is_quantized else None)
        return None if self.value.dtype.kind in "biufc" else f"has the dtype {self.value.dtype}"

    def shape_and_type(self) -> str:
        """Return the type and shape, for example ``float32[8, 3]``."""
        if self.is_torch and self.value.is_nested:  # a nested tensor with ragged rows has no sizes
            return f"{str(self.value.dtype).removeprefix('torch.')}[nested]"
        return f"{str(self.value.dtype).removeprefix('torch.')}{list(self.value.shape)}"

    def copied(self) -> Any:
        """Return a copy that shares no memory, but requires gradients if the original does."""
        return (
            self.value.detach().clone().requires_grad_(self.value.requires_grad)
            if self.is_torch
            else self.value.copy()
        )

    def numpy(self) -> Any:
        """Return the values as a NumPy array for inspection, floats as float64."""
        import numpy as np

        if not self.is_torch:
            return np.asarray(self.value)
        values = self.value.detach().resolve_conj().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()

    def with_values(self, values: object) -> Any:
        """Return NumPy values as a fresh array of this leaf's kind, dtype and device."""
        fresh = self.like(values)
        return fresh.requires_grad_(self.value.requires_grad) if self.is_torch else fresh

    def spread(self) -> float:
        """Return the standard deviation of the finite elements, or 1 if they are all equal."""
        import numpy as np

        values = np.asarray(self.numpy(), dtype=np.complex128 if self.is_complex else np.float64)
        finite = values[np.isfinite(values)]
        return float(finite.std()) or 1.0 if finite.size else 1.0

    def holds(self, number: float) -> bool:
        """Return True if the dtype can represent the number. Some types of 8 bits lack infinity or
        zero.
        """
        import numpy as np

        return not self.is_narrow or bool(
            np.array_equal(
                Leaf((), self.like(np.array([number]))).numpy(), [number], equal_nan=True
            )
        )

    def same_bits(self, other: Leaf) -> bool:
        """Return True if the other leaf has the same values. The sign of zero counts, and NaN
        equals NaN.
        """
        if not self.is_torch:
            return bool(self.value.tobytes() == other.value.tobytes())
        return self.value.dtype == other.value.dtype and bool(
            _bits(self.value).equal(_bits(other.value))
        )

    def like(self, values: Any) -> Any:
        """Return NumPy values as this leaf's kind, dtype and device."""
        if not self.is_torch:
            return values.astype(self.value.dtype)
        return (
            sys.modules["torch"]
            .as_tensor(values)
            .to(device=self.value.device, dtype=self.value.dtype)
        )

    def changed(self, places: np.ndarray[Any, Any], change: Any) -> Any:
        """Return a copy in which ``change`` was applied to the elements at the flat indices
        ``places``.
        """
        if self.is_torch:
            torch = sys.modules["torch"]
            with torch.no_grad():
                fresh = self.value.detach().clone(memory_format=torch.contiguous_format)
                fresh = fresh.float() if self.is_narrow else fresh
                flat = fresh.view(-1)
                where = torch.as_tensor(places, device=fresh.device)
                flat[where] = _cast(change(flat[where]), flat)
                fresh = fresh.to(self.value.dtype)
            return fresh.requires_grad_(self.value.requires_grad)
        fresh = self.value.copy()
        fresh.flat[places] = _cast(change(fresh.flat[places]), fresh)
        return fresh

    def with_rows(self, places: np.ndarray[Any, Any], values: Any) -> Any:
        """Return a copy with other entries of the first axis at these places."""
        if self.is_torch:
            torch = sys.modules["torch"]
            with torch.no_grad():
                fresh = self.value.detach().clone()
                fresh[torch.as_tensor(places, device=fresh.device)] = values.detach()
            return fresh.requires_grad_(self.value.requires_grad)
        fresh = self.value.copy()
        fresh[places] = values
        return fresh

    def reordered(self, order: object) -> Any:
        """Return a copy of these entries of the first axis, in this order."""
        import numpy as np

        if self.is_torch:
            torch = sys.modules["torch"]
            value = self.value.view(torch.uint8) if self.is_narrow else self.value
            return value[
                torch.as_tensor(np.asarray(order, dtype=np.int64), device=self.value.device)
            ].view(self.value.dtype)
        return self.value[np.asarray(order, dtype=np.int64)]


def _bits(tensor: torch.Tensor) -> Any:
    """Return the bytes of a tensor."""
    return (
        tensor.detach()
        .resolve_conj()
        .resolve_neg()
        .contiguous()
        .view(-1)
        .view(sys.modules["torch"].uint8)
    )


def _cast(values: Any, like: Any) -> Any:
    """Return values in the dtype of ``like``. An integer field stays an integer field."""
    if is_tensor(values):
        return values.to(like.dtype)
    return values.astype(like.dtype) if hasattr(values, "astype") else values


def is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_array_like(value: object) -> bool:
    """Return True for an array, or for one element of an array."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_record(value: object) -> bool:
    return fields_of_record(value) is not None


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the content of a container by key, position or field name. Yield nothing for other
    values.
    """
    if isinstance(value, Mapping):
        yield from value.items()
    elif (names := fields_of_record(value)) is not None:
        for name in names:
            yield name, getattr(value, name, None)
    elif isinstance(value, (tuple, list, collections.deque)):
        yield from enumerate(value)


def parts(value: object) -> Iterator[tuple[Any, Any]]:
    """Yield the content of a batch: that of containers, and the attributes of objects that hold
    arrays.
    """
    if _is_container(value):
        yield from children(value)
        return
    for name, child in _attributes(value):
        try:
            if _holds_arrays(child, frozenset((id(value),))):
                yield name, child
        except RecursionError:  # an object that contains itself is not part of a batch
            continue


def _is_container(value: object) -> bool:
    return isinstance(value, (Mapping, tuple, list, collections.deque)) or _is_record(value)


def _is_like_a_mapping(value: object) -> bool:
    return all(hasattr(type(value), name) for name in ("keys", "__getitem__", "__setitem__"))


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """Return the attributes of an object that may hold arrays.

    Return none for code, tables and arrays. If an object works like a mapping without being one,
    return its items.
    """
    if type(value).__module__ == "builtins" or hasattr(value, "shape") or is_frame(value):
        return []
    if _is_like_a_mapping(value):
        keys = value.keys
        # some objects keep their names in a set, whose order differs between processes
        names = sorted(keys() if callable(keys) else keys, key=str)
        return [(name, value[name]) for name in names]
    if callable(value):
        return []
    return _variables(value)


def _variables(value: object) -> list[tuple[str, Any]]:
    """Return the names and values that an object keeps in ``__dict__`` and in slots."""
    slots = [vars(cls).get("__slots__", ()) for cls in type(value).__mro__]
    known = itertools.chain(
        getattr(value, "__dict__", ()), *((one,) if isinstance(one, str) else one for one in slots)
    )
    return [
        (name, getattr(value, name, None))
        for name in dict.fromkeys(known)
        if not name.startswith("__")
    ]


def _holds_arrays(value: object, above: frozenset[int]) -> bool:
    """Return True if the value contains an array at any depth.

    Raise ``RecursionError`` if it contains itself.
    """
    if is_tensor(value) or is_array(value):
        return True
    held = list(children(value)) if _is_container(value) else _attributes(value)
    if not held:
        return False
    if id(value) in above:
        raise RecursionError
    above |= {id(value)}
    # check all of them, because any may lead back here
    found = [_holds_arrays(child, above) for _, child in held]
    return any(found)


def leaves(value: Any, path: Path = (), held: Any = children) -> Iterator[Leaf]:
    """Yield every tensor and array of a batch, in order. ``held=parts`` also searches objects of
    any class.
    """
    if is_tensor(value) or is_array(value):
        yield Leaf(path, value)
        return
    for name, child in held(value):
        yield from leaves(child, (*path, name), held)


def numbers(value: object) -> Iterator[Leaf]:
    """Yield the numbers of a record, column by column."""
    for path, column in columns(value):
        yield Leaf(path, column, record=True)


def rebuilt(value: object, replaced: Mapping[Path, Any]) -> Any:
    """Return the batch with some leaves replaced. Parts without replaced leaves stay the same
    objects.
    """
    if not replaced or () in replaced:
        new = replaced.get((), value)
        return as_it_was(value, new) if is_number(value) and is_array_like(new) else new
    inside: dict[Any, dict[Path, Any]] = {}
    for path, new in replaced.items():
        if isinstance(path[0], Each):
            for place, item in enumerate(path[0].items):
                inside.setdefault(item, {})[path[1:]] = new[place]
        else:
            inside.setdefault(path[0], {})[path[1:]] = new
    fresh = {}
    for name, child in parts(value):
        if name in inside and (new := rebuilt(child, inside[name])) is not child:
            fresh[name] = new
    return _with(value, fresh) if fresh else value


def _with(value: object, fresh: dict[Any, Any]) -> Any:
    """Return a shallow copy of a container, of the same type, with some children replaced."""
    if isinstance(value, tuple) and hasattr(value, "_replace"):
        return value._replace(**fresh)
    if isinstance(value, tuple):
        items = [fresh.get(place, child) for place, child in enumerate(value)]
        return type(value)(items)
    if isinstance(value, (list, collections.deque, MutableMapping)) or (
        not _is_container(value) and _is_like_a_mapping(value)
    ):
        copied = _detach(value)
        for name, child in fresh.items():
            copied[name] = child
        return copied
    if isinstance(value, Mapping):
        # A read-only mapping is made from a different one
        return type(value)({**value, **fresh})  # type: ignore[call-arg]
    copied = copy.copy(value)
    for name, child in fresh.items():
        object.__setattr__(copied, name, child)
    return copied


def _detach(value: object) -> Any:
    """Return a shallow copy whose items can be set. Copy the inner container of a user's class,
    too.
    """
    copied = copy.copy(value)
    if not isinstance(value, (dict, list, collections.deque)) and not hasattr(
        type(value), "__copy__"
    ):
        for name, child in _variables(value):
            if isinstance(child, (dict, list, collections.deque)):
                object.__setattr__(copied, name, copy.copy(child))
    return copied


def describe(value: object) -> str:
    """Return the types and shapes in a batch, for example ``{x: float32[8, 3], y: int64[8]}``."""
    if is_tensor(value) or is_array(value):
        return Leaf((), value).shape_and_type()
    held = [f"{path_text([name])}: {describe(child)}" for name, child in list(parts(value))[:8]]
    return f"{type(value).__name__}({', '.join(held)})" if held else type(value).__name__
