"""The arrays inside a batch, whatever they are nested in; copies with some of them replaced."""

from __future__ import annotations

import collections
import copy
import dataclasses
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

__all__ = ["Leaf", "children", "describe", "leaves", "rebuilt"]

Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a batch, and the way to it: mapping keys, positions and field names."""

    path: Path
    value: Any

    @property
    def is_torch(self) -> bool:
        """Whether it is a torch tensor (else a NumPy array)."""
        return is_tensor(self.value)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return int(self.value.numel() if self.is_torch else self.value.size)

    @property
    def is_narrow(self) -> bool:
        """Whether it is a floating-point tensor of 8 bits or less, which torch only stores: it is worked on as float32."""
        return self.is_torch and bool(self.value.is_floating_point()) and self.value.element_size() == 1

    @property
    def is_complex(self) -> bool:
        """Whether it holds complex numbers."""
        return bool(self.value.is_complex()) if self.is_torch else self.value.dtype.kind == "c"

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point (or complex) numbers."""
        if self.is_torch:
            return bool(self.value.is_floating_point() or self.value.is_complex())
        return self.value.dtype.kind in "fc"

    def length(self) -> int:
        """The length of its first axis."""
        return int(self.value.shape[0]) if len(self.value.shape) else 0

    def has_axes(self) -> bool:
        """Whether it has samples at all, or is one number."""
        return self.layout_problem() is not None or len(self.value.shape) > 0

    def layout_problem(self) -> str | None:
        """Why its samples cannot be told apart, if so."""
        if not self.is_torch:
            return None
        if self.value.is_nested:
            return "is a nested tensor"
        if self.value.layout is not sys.modules["torch"].strided:
            return f"is a tensor of layout {self.value.layout}"
        return "is on the meta device, and holds no values" if self.value.is_meta else None

    def problem(self) -> str | None:
        """Why its elements cannot be changed one by one, if so."""
        if self.is_torch:
            return self.layout_problem() or ("is quantized" if self.value.is_quantized else None)
        return None if self.value.dtype.kind in "biufc" else f"has the dtype {self.value.dtype}"

    def shape_and_type(self) -> str:
        """``float32[8, 3]``."""
        if self.is_torch and self.value.is_nested:  # one with ragged rows has no sizes
            return f"{str(self.value.dtype).removeprefix('torch.')}[nested]"
        return f"{str(self.value.dtype).removeprefix('torch.')}{list(self.value.shape)}"

    def copied(self) -> Any:
        """A copy that shares no memory; one that wants gradients still does."""
        return self.value.detach().clone().requires_grad_(self.value.requires_grad) if self.is_torch else self.value.copy()

    def numpy(self) -> Any:
        """Its values as a NumPy array, to look at; floating-point ones as float64."""
        import numpy as np

        if not self.is_torch:
            return np.asarray(self.value)
        values = self.value.detach().resolve_conj().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()

    def with_values(self, values: Any) -> Any:
        """NumPy values as a fresh array of this leaf's kind, dtype and device."""
        fresh = self.like(values)
        return fresh.requires_grad_(self.value.requires_grad) if self.is_torch else fresh

    def spread(self) -> float:
        """The standard deviation of its finite elements; 1 where they are all equal."""
        import numpy as np

        values = np.asarray(self.numpy(), dtype=np.complex128 if self.is_complex else np.float64)
        finite = values[np.isfinite(values)]
        return float(finite.std()) or 1.0 if finite.size else 1.0

    def holds(self, number: float) -> bool:
        """Whether its type has this number: not all types of 8 bits have infinity, or zero."""
        import numpy as np

        return not self.is_narrow or bool(np.array_equal(Leaf((), self.like(np.array([number]))).numpy(), [number], equal_nan=True))

    def same_bits(self, other: Leaf) -> bool:
        """Whether another has the same values, sign of zero included; NaN is like NaN."""
        if not self.is_torch:
            return bool(self.value.tobytes() == other.value.tobytes())
        return self.value.dtype == other.value.dtype and bool(_bits(self.value).equal(_bits(other.value)))

    def like(self, values: Any) -> Any:
        """NumPy values as this leaf's kind, dtype and device."""
        if not self.is_torch:
            return values.astype(self.value.dtype)
        return sys.modules["torch"].as_tensor(values).to(device=self.value.device, dtype=self.value.dtype)

    def changed(self, places: Any, change: Any) -> Any:
        """A copy whose elements at the flat ``places`` are ``change`` of the old ones."""
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

    def reordered(self, order: Any) -> Any:
        """A copy of these places of its first axis, in this order."""
        import numpy as np

        if self.is_torch:
            torch = sys.modules["torch"]
            value = self.value.view(torch.uint8) if self.is_narrow else self.value
            return value[torch.as_tensor(np.asarray(order, dtype=np.int64), device=self.value.device)].view(self.value.dtype)
        return self.value[np.asarray(order, dtype=np.int64)]


def _bits(tensor: Any) -> Any:
    """A tensor as the bytes that it is made of."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1).view(sys.modules["torch"].uint8)


def _cast(values: Any, like: Any) -> Any:
    """Values in the dtype of ``like``: an integer field stays one."""
    if is_tensor(values):
        return values.to(like.dtype)
    return values.astype(like.dtype) if hasattr(values, "astype") else values


def is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """What a container holds, by key, position or field name; nothing of what is none."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, (tuple, list, collections.deque)):
        yield from enumerate(value)
    elif _is_record(value):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name, None)


def leaves(value: Any, path: Path = ()) -> Iterator[Leaf]:
    """Every tensor and array in a batch, in order."""
    if is_tensor(value) or is_array(value):
        yield Leaf(path, value)
        return
    for name, child in children(value):
        yield from leaves(child, (*path, name))


def rebuilt(value: Any, replaced: Mapping[Path, Any], path: Path = ()) -> Any:
    """The batch with some leaves replaced; whatever holds none of them is the same object."""
    if path in replaced:
        return replaced[path]
    fresh = {}
    for name, child in children(value):
        new = rebuilt(child, replaced, (*path, name))
        if new is not child:
            fresh[name] = new
    return _with(value, fresh) if fresh else value


def _with(value: Any, fresh: dict[Any, Any]) -> Any:
    """A shallow copy of a container with some children replaced, of the same type."""
    if isinstance(value, tuple) and hasattr(value, "_replace"):
        return value._replace(**fresh)
    if isinstance(value, tuple):
        items = [fresh.get(place, child) for place, child in enumerate(value)]
        return type(value)(items)
    if isinstance(value, (list, collections.deque, MutableMapping)):
        copied = copy.copy(value)
        for name, child in fresh.items():
            copied[name] = child
        return copied
    if isinstance(value, Mapping):
        return type(value)({**value, **fresh})  # type: ignore[call-arg]  # a read-only mapping is made from another
    copied = copy.copy(value)
    for name, child in fresh.items():
        object.__setattr__(copied, name, child)
    return copied


def describe(value: Any) -> str:
    """The types and shapes in a batch: ``{x: float32[8, 3], y: int64[8]}``."""
    if is_tensor(value) or is_array(value):
        return Leaf((), value).shape_and_type()
    parts = [f"{name}: {describe(child)}" for name, child in list(children(value))[:8]]
    return f"{type(value).__name__}({', '.join(parts)})" if parts else type(value).__name__
