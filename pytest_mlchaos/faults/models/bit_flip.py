"""Define a fault that flips bits of a model."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Key, Visit, derive_seed
from ...core.validation import format_value
from ...errors import BadArgument, PayloadMismatch
from ..batches.pytree import leaves, rebuilt
from .bits import Cells, Flips, flip, problem, width
from .gradient_hooks import changing, gradients
from .modules import (
    LayerFault,
    checked_model,
    layer_by_layer,
    layers_of,
    name_part,
    names_of,
    tensor_at,
    tensors_of,
)

if TYPE_CHECKING:
    import torch

__all__ = ["BitFlip"]
LAYER = "The model"

_SITES = {
    "weights": "model.forward",
    "activations": "model.forward",
    "gradients": "train.backward",
    "optimizer": "train.step",
}
_known: weakref.WeakKeyDictionary[Any, dict[Any, Cells]] = weakref.WeakKeyDictionary()
"""The elements of each model's weights. They are kept, because the search takes long in a large
model.
"""


@register
class BitFlip(LayerFault):
    """Bits of a model flip without an error: silent data corruption.

    All types of floats (float8 and bfloat16 included) and integers can be struck. ``at`` counts
    calls of the model, backward passes, or steps. The flip is undone exactly when the process ends
    (the attempt under ``mlchaos.run``, or else the test). An element that still holds the flipped
    bits gets its own again. One that training has overwritten stays as it is.

    Args:
        layer: The name of a module or tensor, or a pattern (``"encoder.*.weight"``). Without it
            anywhere, each element equally likely.
        part: ``"weights"`` (just before a call of the model, until the process ends),
            ``"activations"`` (the output of one layer, in one call), ``"gradients"`` (as one
            backward pass computes them) or ``"optimizer"`` (its state, just before a step). You can
            also write ``where="weights"``.
        bit: The bit of the element, 0 is the lowest. In float32, 31 is the sign, and 30 to 23 are
            the exponent. In bfloat16, these are 15, and 14 to 7. Without it, any bit.
        count: The number of distinct bits.
        buffers: If true, running statistics can be struck, too.

    Imitates: a particle strike in memory without ECC, a marginal core that computes wrongly, a
    broken link between devices.

    Fidelity: bits flip between operations, in memory that a tensor owns. A flip inside a kernel, in
    an index or in code is not imitated. If an operation has saved an activation for its backward
    pass, that copy is sound. For activations a compiled model (``torch.compile``) runs layer by
    layer in that call. Scripted and exported graphs have no layers inside. Parameters inside a
    reentrant checkpoint get no gradients that could be flipped. Complex numbers and truth values
    are refused.

    Source: Dixit et al., Silent Data Corruptions at Scale, https://arxiv.org/abs/2102.11245

    Example: ``@chaos.bit_flip(where="weights", bit=30, at=3)``
    """

    site = "model.forward"
    needs = ("torch", "torch")
    part: Literal["weights", "activations", "gradients", "optimizer"] = "weights"
    bit: int | None = None
    count: int = 1
    buffers: bool = False

    def __post_init__(self) -> None:
        name_part(self)
        super().__post_init__()

    def check(self) -> None:
        """Check the parameters."""
        if self.bit is not None and not is_drawn(self.bit) and not 0 <= self.bit < 64:
            raise BadArgument(
                f"bit_flip: bit must be the number of a bit (0 to 63; 0 to 31 of float32), got "
                f"{format_value(self.bit)}"
            )
        if not is_drawn(self.count) and self.count < 1:
            raise BadArgument(f"bit_flip: count must be 1 or more, got {format_value(self.count)}")
        if self.buffers and not is_drawn(self.part) and self.part != "weights":
            raise BadArgument(f"bit_flip: buffers need part='weights', got part={self.part!r}")

    @property
    def key(self) -> Key:
        """Count the visits of the part's site."""
        return _SITES[self.part]

    def apply(self, visit: Visit) -> None:
        """Flip the bits."""
        _PARTS[self.part](self, visit)


def cells_of(fault: BitFlip, named: list[tuple[str, Any]], what: str) -> Cells:
    """Return the elements of these tensors. Raise an error if they lack the bit, or are too few."""
    sound = [item for item in named if problem(item[1]) is None and item[1].numel()]
    if not sound:
        detail = f": {named[0][0]} {problem(named[0][1]) or 'is empty'}" if named else ""
        raise PayloadMismatch(f"bit_flip found no bits to flip in {what}{detail}")
    fitting = (
        sound
        if fault.bit is None
        else [(name, tensor) for name, tensor in sound if fault.bit < width(tensor)]
    )
    if not fitting:
        name, tensor = sound[0]
        kind = str(tensor.dtype).removeprefix("torch.")
        raise PayloadMismatch(
            f"bit_flip: found no bit {fault.bit} in {kind}, which has bits 0 to "
            f"{width(tensor) - 1} ({name}: {kind}{list(tensor.shape)})"
        )
    cells = Cells(fitting)
    if fault.count > len(cells) and fault.count > sum(
        tensor.numel() * (width(tensor) if fault.bit is None else 1) for _, tensor in fitting
    ):
        raise PayloadMismatch(
            f"bit_flip: count={fault.count}, but {what} has {len(cells)} elements"
        )
    return cells


def _flip_kept(visit: Visit, cells: Cells, drawn: list[tuple[int, int, int]]) -> None:
    """Flip bits in place until the process ends."""
    flips = Flips()
    visit.keep_until_exit(flips)
    for place, element, bit in drawn:
        flips.flip(cells.tensors[place], element, bit)
    visit.note(
        flipped=[
            f"bit {bit} of {cells.names[place]}[{element}]" for place, element, bit in drawn[:8]
        ]
    )


def _weights(fault: BitFlip, visit: Visit) -> None:
    model = checked_model(fault, visit.payload)
    known = _known.setdefault(model, {})
    asked = (fault.layer, fault.buffers, fault.bit, fault.count)
    cells = known.get(asked)
    drawn = [] if not cells else list(cells.drawn(visit.seed, fault.count, fault.bit))
    if cells is None or not all(_is_held(model, cells, *cell) for cell in drawn):
        named = fault.inside(model, tensors_of(model, fault.buffers), "tensor")
        cells = known[asked] = (
            cells_of(fault, named, type(model).__name__)
            if named or fault.layer is None
            else Cells([])
        )
        drawn = [] if not len(cells) else list(cells.drawn(visit.seed, fault.count, fault.bit))
    if not drawn:
        visit.skip()  # a different part of the model is meant
        return
    _flip_kept(visit, cells, drawn)


def _is_held(model: torch.nn.Module, cells: Cells, place: int, element: int, bit: int) -> bool:
    """Return True if a tensor still belongs to the model. Its layers may have been replaced since."""
    tensor = cells.tensors[place]
    return (
        tensor_at(model, cells.names[place]) is tensor
        and element < tensor.numel()
        and bit < width(tensor)
    )


def _optimizer(fault: BitFlip, visit: Visit) -> None:
    optimizer = visit.payload
    if not hasattr(optimizer, "param_groups") or not hasattr(optimizer, "state"):
        raise PayloadMismatch(
            f"bit_flip(part='optimizer') strikes at an optimizer, got {type(optimizer).__name__}"
        )
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = names_of(parameters) if fault.layer is not None else {}
    held = [
        (names.get(id(one), f"parameter {place}"), optimizer.state.get(one, {}))
        for place, one in enumerate(parameters)
    ]
    meant = fault.chosen(held, type(optimizer).__name__, "parameter")
    found = [
        (f"{key} of {name}", value)
        for name, state in meant
        for key, value in state.items()
        if hasattr(value, "element_size")
    ]
    if not found:
        # Before the first step, an optimizer has no state, and some optimizers never have one
        visit.skip()
        return
    cells = cells_of(fault, found, f"the state of {type(optimizer).__name__}")
    _flip_kept(visit, cells, list(cells.drawn(visit.seed, fault.count, fault.bit)))


def _gradients(fault: BitFlip, visit: Visit) -> None:
    found = gradients(fault, visit)
    if not found:
        visit.skip()
        return
    cells = cells_of(fault, found, "the gradients")
    bits: dict[int, list[tuple[int, int]]] = {}
    drawn = list(cells.drawn(visit.seed, fault.count, fault.bit))
    for place, element, bit in drawn:
        bits.setdefault(place, []).append((element, bit))

    def change(gradient: torch.Tensor, its: list[tuple[int, int]]) -> Any:
        fresh = gradient.coalesce().clone() if gradient.is_sparse else gradient.clone()
        values = fresh._values() if gradient.is_sparse else fresh
        if not values.numel():
            return None
        for element, bit in its:
            flip(values, element % values.numel(), bit)
        return fresh

    changes = {
        id(cells.tensors[place]): (lambda gradient, its=its: change(gradient, its))
        for place, its in bits.items()
    }
    flipped = [
        f"bit {bit} of the gradient of {cells.names[place]}[{element}]"
        for place, element, bit in drawn[:8]
    ]
    visit.keep_open(
        changing(changes, {id(tensor): tensor for tensor in cells.tensors}, visit, flipped=flipped)
    )


def _activations(fault: BitFlip, visit: Visit) -> None:
    model = checked_model(fault, visit.payload)
    found = fault.inside(model, layers_of(fault, model, fault.layer is None), "layer")
    if not found:
        visit.skip()  # a different part of the model is meant
        return
    exact = [item for item in found if item[0] == fault.layer] or found
    name, module = exact[derive_seed(visit.seed, "layer") % len(exact)]
    whole = type(model).__name__
    places = (
        [(name or whole, module)]
        if fault.layer is not None
        else [(name or whole, module), (whole, model)]
    )
    visit.keep_open(_flipping(fault, visit, places))


@contextmanager
def _flipping(fault: BitFlip, visit: Visit, places: list[tuple[str, Any]]) -> Iterator[None]:
    """Flip bits in the output of the first of these modules that is called.

    If the module that was drawn is not called, flip bits in the model's own result.
    """
    done = False

    def hook(name: str, output: object) -> Any:
        nonlocal done
        if done:
            return None
        done = True
        found = {leaf.path: leaf.value for leaf in leaves(output) if leaf.is_torch}
        cells = cells_of(
            fault,
            [(".".join(map(str, (name, *path))), value) for path, value in found.items()],
            f"the output of {name}",
        )
        fresh = {id(value): value.clone() for value in cells.tensors}
        drawn = list(cells.drawn(visit.seed, fault.count, fault.bit))
        for place, element, bit in drawn:
            flip(fresh[id(cells.tensors[place])], element, bit)
        visit.record_injection(
            flipped=[
                f"bit {bit} of {cells.names[place]}[{element}]" for place, element, bit in drawn[:8]
            ]
        )
        return rebuilt(
            output, {path: fresh[id(value)] for path, value in found.items() if id(value) in fresh}
        )

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: hook(name, output))
        for name, module in places
    ]
    try:
        with layer_by_layer():
            yield
    finally:
        for handle in handles:
            handle.remove()


_PARTS: dict[str, Any] = {
    "weights": _weights,
    "activations": _activations,
    "gradients": _gradients,
    "optimizer": _optimizer,
}
