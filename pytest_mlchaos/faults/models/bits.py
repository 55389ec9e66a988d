"""Single bits of tensors: where they lie, flipped in place, and put back."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...core.sites import derive_seed

__all__ = ["Cells", "Flips", "flip", "problem", "width"]


@functools.cache
def _refused_dtypes() -> Any:
    """Types of numbers of which no bits are flipped, and the one layout of which they are."""
    import torch

    kinds = {kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)}
    return {kind for kind in kinds if kind.is_complex or kind == torch.bool or str(kind).startswith("torch.q")}, torch.strided


def problem(tensor: Any) -> str | None:
    """Why the bits of a tensor cannot be flipped, if so. The first flip in a large model asks this of each of its tensors."""
    refused, strided = _refused_dtypes()
    if tensor.is_nested:
        return "is a nested tensor"
    if tensor.layout is not strided:
        return f"is a tensor of layout {tensor.layout}"
    if tensor.is_meta:
        return "is on the meta device, and holds no values"
    return f"holds {str(tensor.dtype).removeprefix('torch.')}, of which no bits are flipped" if tensor.dtype in refused else None


def width(tensor: Any) -> int:
    """How many bits an element has."""
    return 8 * int(tensor.element_size())


def _cell(tensor: Any, element: int) -> Any:
    """One element as an integer of no axes, in the tensor's own memory, and unknown to autograd."""
    import torch

    size = tensor.element_size()
    bits = tensor.data.view(torch.int8 if size == 1 else torch.int16 if size == 2 else torch.int32 if size == 4 else torch.int64)
    if bits.is_contiguous():
        return bits.as_strided((), (), bits.storage_offset() + element)
    offset = bits.storage_offset()
    for length, stride in zip(reversed(bits.shape), reversed(bits.stride()), strict=True):
        element, place = divmod(element, length)
        offset += place * stride
    return bits.as_strided((), (), offset)


def _write(cell: Any, change: Callable[[Any], Any]) -> None:
    """Change one made in inference mode, too."""
    if cell.is_inference():
        import torch

        with torch.inference_mode():
            change(cell)
    else:
        change(cell)


def _fill(cell: Any, value: int) -> None:
    cell.fill_(value)


def flip(tensor: Any, element: int, bit: int) -> tuple[int, int]:
    """Flip one bit of one element (its flat place) in place; what the element was and is, as integers."""
    cell = _cell(tensor, element)
    before = int(cell)
    last = width(tensor) - 1
    _write(cell, lambda cell: cell.bitwise_xor_(-(1 << last) if bit == last else 1 << bit))
    return before, int(cell)


class Flips(contextlib.AbstractContextManager[None]):
    """Flipped bits, until the end: then each element that still holds what the flip made of it gets its own bits again."""

    def __init__(self) -> None:
        self._done: list[tuple[weakref.ref[Any], Any, int, int, int]] = []

    def flip(self, tensor: Any, element: int, bit: int) -> None:
        """One more."""
        before, after = flip(tensor, element, bit)
        self._done.append((weakref.ref(tensor), (tensor.dtype, tensor.shape), element, before, after))

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
    """The elements of some tensors, one after the other: which one a number falls on is found by their running sums."""

    def __init__(self, named: Sequence[tuple[str, Any]]) -> None:
        self.names = [name for name, _ in named]
        self.tensors = [tensor for _, tensor in named]
        self._ends = list(itertools.accumulate(tensor.numel() for tensor in self.tensors))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def of(self, number: int) -> tuple[int, int]:
        """The tensor's place, and the element's in it."""
        place = bisect.bisect_right(self._ends, number)
        return place, number - (self._ends[place - 1] if place else 0)

    def drawn(self, seed: int, count: int, bit: int | None) -> Iterator[tuple[int, int, int]]:
        """So many distinct (tensor's place, element, bit); each element is equally likely, and each bit of it."""
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
