"""Define faults of a batch's form: its types and shapes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...core.faults import register
from ...core.sites import Visit
from ..data_fault import DataFault
from .base import Batch, field_name, wanted_fields
from .pytree import Leaf, rebuilt

if TYPE_CHECKING:
    import numpy as np

__all__ = ["WrongDtype", "WrongShape"]
LAYER = "Batches"


@register
class WrongDtype(DataFault):
    """A batch has a different type of number.

    Numbers are converted as the library does, so they may lose digits.

    Args:
        dtype: The name of the type. ``"object"`` and ``"str"`` are for NumPy arrays only, and
            ``"bfloat16"`` for tensors only.
        fields: Names, positions or dotted paths. Without it, all floating-point fields.

    Imitates: a column that turned to text or to doubles, images of bytes where floats in 0 to 1
    were meant, labels as floats.

    Fidelity: the type of a whole field differs. For a field of mixed types (an object array), use
    ``dtype="object"``.

    Example: ``@chaos.wrong_dtype(dtype="int64", at=2)``
    """

    changes_result = True
    member_of: ClassVar = {"bad_data": 32}
    site = "data.batch"
    compared = True
    random = False
    dtype: Literal[
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "complex64",
        "str",
        "object",
    ] = "float64"
    fields: Any = None

    def check(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "fields", wanted_fields(self.name, self.fields))

    def apply(self, visit: Visit) -> Any:
        """Return a copy with converted fields."""
        batch = Batch(f"wrong_dtype(dtype={self.dtype!r})", visit.payload)
        chosen = batch.floats(self.fields)
        hits = {leaf.path: self._converted(batch, leaf) for leaf in chosen}
        visit.note(
            dtype=self.dtype, fields={field_name(leaf): leaf.shape_and_type() for leaf in chosen}
        )
        return rebuilt(visit.payload, hits)

    def _converted(self, batch: Batch, leaf: Leaf) -> Any:
        torch = sys.modules.get("torch")
        if leaf.value.dtype == (getattr(torch, self.dtype, None) if leaf.is_torch else self.dtype):
            raise batch.refuse(leaf, "has that type already")
        if (problem := leaf.layout_problem()) is not None:
            raise batch.refuse(leaf, problem)
        if not leaf.is_torch:
            if self.dtype == "bfloat16":
                raise batch.refuse(leaf, "is a NumPy array, and NumPy does not have this type")
            return leaf.value.astype(self.dtype)
        if self.dtype in ("str", "object"):
            raise batch.refuse(leaf, "is a tensor, and torch does not have this type")
        fresh = leaf.value.detach().to(getattr(torch, self.dtype))
        return fresh.requires_grad_(leaf.value.requires_grad and fresh.is_floating_point())


@register
class WrongShape(DataFault):
    """A batch has a different shape.

    Args:
        kind: ``"transposed"`` (the last two axes change places), ``"extra_dim"`` (one more axis of
            length 1 at the end: ``[8]`` becomes ``[8, 1]``, which broadcasts), ``"missing_dim"``
            (without the axis of the samples: the first sample alone), ``"flattened"`` (one row for
            each sample), ``"channels_last"`` (NCHW to NHWC), or ``"channels_first"`` (the last axis
            becomes the second).
        fields: Names, positions or dotted paths. Without it, all floating-point fields.

    Imitates: images of another library's layout, labels as a column, a request without its batch
    axis, a matrix from a column-major file.

    Fidelity: all values are there, in the order of the new shape. Strides are those of a fresh
    array.

    Example: ``@chaos.wrong_shape(kind="extra_dim", at=2)``
    """

    changes_result = True
    member_of: ClassVar = {"bad_data": 30}
    site = "data.batch"
    compared = True
    random = False
    kind: Literal[
        "transposed", "extra_dim", "missing_dim", "flattened", "channels_last", "channels_first"
    ] = "transposed"
    fields: Any = None

    def check(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "fields", wanted_fields(self.name, self.fields))

    def apply(self, visit: Visit) -> Any:
        """Return a copy with a different shape."""
        batch = Batch(f"wrong_shape(kind={self.kind!r})", visit.payload)
        chosen = batch.floats(self.fields)
        hits = {leaf.path: self._reshaped(batch, leaf) for leaf in chosen}
        visit.note(
            kind=self.kind, fields={field_name(leaf): leaf.shape_and_type() for leaf in chosen}
        )
        return rebuilt(visit.payload, hits)

    def _reshaped(self, batch: Batch, leaf: Leaf) -> Any:
        if (problem := leaf.layout_problem()) is not None:
            raise batch.refuse(leaf, problem)
        value = leaf.value
        axes = len(value.shape)
        least = {"extra_dim": 0, "missing_dim": 1, "transposed": 2}.get(self.kind, 3)
        if axes < least or (self.kind == "missing_dim" and not value.shape[0]):
            raise batch.refuse(
                leaf,
                f"has {axes} axes, but {self.kind!r} needs {least}"
                if axes < least
                else "holds no sample",
            )
        if self.kind == "transposed":
            fresh = value.swapaxes(-1, -2)
        elif self.kind == "extra_dim":
            fresh = value[..., None]
        elif self.kind == "missing_dim":
            fresh = value[0]
        elif self.kind == "flattened":
            rest = 1
            for length in value.shape[1:]:
                rest *= int(length)
            fresh = value.reshape(value.shape[0], rest)
        else:
            fresh = _move_axis(value, *((1, -1) if self.kind == "channels_last" else (-1, 1)))
        return _own_copy(fresh, leaf)


def _move_axis(value: np.ndarray[Any, Any], source: int, target: int) -> Any:
    """Return a view with an axis moved to a different position."""
    order = list(range(len(value.shape)))
    order.insert(target if target > 0 else len(order), order.pop(source))
    return value.permute(order) if hasattr(value, "permute") else value.transpose(order)


def _own_copy(value: Any, leaf: Leaf) -> Any:
    """Return a contiguous copy that shares no memory with its source."""
    if not leaf.is_torch:
        return value.copy()
    torch = sys.modules["torch"]
    return (
        value.detach()
        .clone(memory_format=torch.contiguous_format)
        .requires_grad_(leaf.value.requires_grad)
    )
