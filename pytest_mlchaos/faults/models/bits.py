"""Locate single bits of tensors, flip them in place, and restore them."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...core.sites import derive_seed

if TYPE_CHECKING:
    import torch

__all__ = ["Cells", "Flips", "flip", "problem", "width"]


@functools.cache
def _refused_dtypes() -> Any:
    """Return the dtypes whose bits are not flipped, and the one layout whose bits are."""
    import torch

    kinds = {kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)}
    return {
        kind
        for kind in kinds
        if kind.is_complex or kind == torch.bool or str(kind).startswith("torch.q")
    }, torch.strided


def problem(tensor: torch.Tensor) -> str | None:
    """Return why the bits of a tensor cannot be flipped, or None.

    The first flip in a large model calls this for each of its tensors, so it must be fast.
    """
    refused, strided = _refused_dtypes()
    if tensor.is_nested:
        return "is a nested tensor"
    if tensor.layout is not strided:
        return f"is a tensor of layout {tensor.layout}"
    if tensor.is_meta:
        return "is on the meta device, and holds no values"
    return (
        f"holds {str(tensor.dtype).removeprefix('torch.')}, of which no bits are flipped"
        if tensor.dtype in refused
        else None
    )


def width(tensor: torch.Tensor) -> int:
    """Return the number of bits of an element."""
    return 8 * int(tensor.element_size())


def _cell(tensor: torch.Tensor, element: int) -> Any:
    """Return one element as an integer without axes, in the tensor's memory and unknown to
    autograd.
    """
    import torch

    size = tensor.element_size()
    bits = tensor.data.view(
        torch.int8
        if size == 1
        else torch.int16
        if size == 2
        else torch.int32
        if size == 4
        else torch.int64
    )
    if bits.is_contiguous():
        return bits.as_strided((), (), bits.storage_offset() + element)
    offset = bits.storage_offset()
    for length, stride in zip(reversed(bits.shape), reversed(bits.stride()), strict=True):
        element, place = divmod(element, length)
        offset += place * stride
    return bits.as_strided((), (), offset)


def _write(cell: Any, change: Callable[[Any], Any]) -> None:
    """Change an element, also of a tensor that was made in inference mode."""
    if cell.is_inference():
        import torch

        with torch.inference_mode():
            change(cell)
    else:
        change(cell)


def _fill(cell: Any, value: int) -> None:
    cell.fill_(value)


def flip(tensor: torch.Tensor, element: int, bit: int) -> tuple[int, int]:
    """Flip one bit of the element at a flat index, in place. Return the old and the new integer."""
    cell = _cell(tensor, element)
    before = int(cell)
    last = width(tensor) - 1
    _write(cell, lambda cell: cell.bitwise_xor_(-(1 << last) if bit == last else 1 << bit))
    return before, int(cell)


class Flips(contextlib.AbstractContextManager[None]):
    """Keep bits flipped until the end.

    Then each element that still holds the flipped value gets its old bits again.
    """

    def __init__(self) -> None:
        self._done: list[tuple[weakref.ref[Any], Any, int, int, int]] = []

    def flip(self, tensor: torch.Tensor, element: int, bit: int) -> None:
        """Flip one more bit."""
        before, after = flip(tensor, element, bit)
        self._done.append(
            (weakref.ref(tensor), (tensor.dtype, tensor.shape), element, before, after)
        )

    def __exit__(self, *_: object) -> None:
        while self._done:
            held, form, element, before, after = self._done.pop()
            tensor = held()
            if tensor is None or (tensor.dtype, tensor.shape) != form:
                continue
            cell = _cell(tensor, element)
            if int(cell) == after:
                _write(cell, functools.partial(_fill, value=before))


class Cells:
    """The elements of several tensors, one after the other. Running sums find the tensor of a
    number.
    """

    def __init__(self, named: Sequence[tuple[str, Any]]) -> None:
        self.names = [name for name, _ in named]
        self.tensors = [tensor for _, tensor in named]
        self._ends = list(itertools.accumulate(tensor.numel() for tensor in self.tensors))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def of(self, number: int) -> tuple[int, int]:
        """Return the index of the tensor, and of the element in it."""
        place = bisect.bisect_right(self._ends, number)
        return place, number - (self._ends[place - 1] if place else 0)

    def drawn(self, seed: int, count: int, bit: int | None) -> Iterator[tuple[int, int, int]]:
        """Yield distinct (tensor index, element, bit), with equal probability for each element and
        bit.
        """
        seen: set[tuple[int, int]] = set()
        total = len(self)
        for attempt in itertools.count():
            number = derive_seed(seed, attempt)
            place, element = self.of(number % total)
            chosen = bit if bit is not None else number // total % width(self.tensors[place])
            if (number % total, chosen) not in seen:
                seen.add((number % total, chosen))
                yield place, element, chosen
                if len(seen) == count:
                    return
