"""Define faults of layers that give wrong values: stuck ones, old weights, coarse weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit, derive_seed
from ...core.validation import format_value
from ...errors import BadArgument, PayloadMismatch
from ..batches.pytree import leaves, rebuilt
from .modules import (
    LayerFault,
    checked_model,
    differ,
    layer_by_layer,
    layers_of,
    name_part,
    tensors_of,
)

if TYPE_CHECKING:
    import torch

__all__ = ["QuantizationError", "StaleWeights", "StuckNeuron"]
LAYER = "The model"


def _inert(module: torch.nn.Module, inputs: object, output: object) -> None:
    """Do nothing. This replaces the hook of a stuck neuron in a saved model."""


def _unstuck() -> Any:
    return _inert


class _Stuck:
    """A forward hook that keeps one unit of a layer's output at a value."""

    def __init__(self, name: str, index: int | None, value: float, visit: Visit) -> None:
        self.name, self.index, self.value = name, index, value
        self.visit: Visit | None = visit
        self.seed = visit.seed
        self.over = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _unstuck, ()

    def __deepcopy__(self, memo: object) -> _Stuck:
        return self

    def __call__(self, module: torch.nn.Module, inputs: object, output: object) -> Any:
        if self.over:
            return None
        found = [
            leaf
            for leaf in leaves(output)
            if leaf.is_torch and leaf.is_float and len(leaf.value.shape)
        ]
        if not found:
            raise PayloadMismatch(
                f"stuck_neuron found no floating-point values in the output of {self.name}"
            )
        leaf = found[0]
        axis = (
            1
            if len(leaf.value.shape) > 2
            and (hasattr(module, "out_channels") or hasattr(module, "num_features"))
            else -1
        )
        units = leaf.value.shape[axis]
        index = (
            self.index
            if self.index is not None
            else derive_seed(self.seed, "index") % max(1, units)
        )
        if index >= units:
            raise PayloadMismatch(
                f"stuck_neuron: found no unit {index} in the output of {self.name}: "
                f"{leaf.shape_and_type()}"
            )
        fresh = leaf.value.clone()
        fresh.select(axis, index).fill_(self.value)
        if self.visit is not None and differ(fresh, leaf.value):
            self.visit.record_injection(layer=self.name, index=index)
            self.visit = None
        return rebuilt(output, {leaf.path: fresh})


@register
class StuckNeuron(LayerFault):
    """From this call on, one unit of a layer gives the same value for any input, until the process
    ends.

    ``at`` counts calls of the model. The unit gets no gradient either.

    Args:
        layer: The name of a module, or a pattern (the first match). Without it, one that has
            parameters, drawn at random.
        index: The unit: of convolutions and normalisations the channel (axis 1), and of other
            layers the position on the last axis. Without it, one drawn at random.
        value: The value that it gives.

    Imitates: a stuck-at fault of an accelerator's register, a dead ReLU, a channel that a
    conversion left out.

    Fidelity: the value is stuck after the layer, not inside it. All calls of that layer are hit,
    whereas hardware has the error in one unit. A copy of the model that is made meanwhile has it
    too, but a saved one does not. A compiled model (``torch.compile``) runs layer by layer from
    then on. A scripted or exported graph has no layers.

    Source: stuck-at faults as in Li et al., Understanding Error Propagation in Deep Learning Neural
    Network Accelerators, SC 2017

    Example: ``@chaos.stuck_neuron(index=0, value=0.0, at=3)``
    """

    site = "model.forward"
    needs = ("torch", "torch")
    index: int | None = None
    value: float = 0.0

    def check(self) -> None:
        """Check the parameters."""
        if self.index is not None and not is_drawn(self.index) and self.index < 0:
            raise BadArgument(
                f"stuck_neuron: index must be the number of a unit (0, 1, ...), got "
                f"{format_value(self.index)}"
            )

    def apply(self, visit: Visit) -> None:
        """Hook the layer. The fault has struck once the layer is called."""
        model = checked_model(self, visit.payload)
        if self.layer is None:
            every = layers_of(self, model, innermost=True)
            found = [item for item in every if item[1]._parameters] or every
        else:
            found = self.inside(model, layers_of(self, model, innermost=False), "layer")
        visit.skip()
        if not found:
            return  # a different part of the model is meant
        name, module = (
            found[0]
            if self.layer is not None
            else found[derive_seed(visit.seed, "layer") % len(found)]
        )
        visit.keep_until_exit(
            _hook_layer(module, _Stuck(name or type(model).__name__, self.index, self.value, visit))
        )


@contextmanager
def _hook_layer(module: torch.nn.Module, hook: _Stuck) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        with layer_by_layer():
            yield
    finally:
        hook.over = True  # also in copies of the model
        handle.remove()


@contextmanager
def _other_weights(changes: list[tuple[Any, Any]]) -> Iterator[None]:
    """Put other values into these tensors, in place and unknown to autograd.

    Restore their own values afterwards, bit by bit.
    """
    kept = [tensor.detach().clone() for tensor, _ in changes]
    try:
        for tensor, values in changes:
            tensor.data.copy_(values)
        yield
    finally:
        for (tensor, _), own in zip(changes, kept, strict=True):
            tensor.data.copy_(own)


@register
class StaleWeights(LayerFault):
    """A call of the model uses the weights of an earlier call.

    ``at`` counts calls of the model. Afterwards the weights are as before, bit by bit.

    Args:
        layer: The name of a module or parameter, or a pattern. Without it, all parameters.
        age: The number of calls between them. Before that, or if the weights have not changed
            since, no strike counts.

    Imitates: a serving replica that missed an update, a parameter server that lags, a rank that did
    not get the broadcast.

    Fidelity: the weights of that one call are old, and buffers are current. The backward pass of a
    training step sees the current weights, and the activations of the old ones.

    Example: ``@chaos.stale_weights(age=1, at=3)``
    """

    site = "model.forward"
    needs = ("torch", "torch")
    random = False
    age: int = 1

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.age) and self.age < 1:
            raise BadArgument(f"stale_weights: age must be 1 or more, got {format_value(self.age)}")

    def observe(self, visit: Visit) -> None:
        """Keep a copy of weights that will be needed later."""
        visit.memory.pop(visit.index - self.age - 1, None)
        if visit.is_due(visit.index + self.age):
            model = checked_model(self, visit.payload)
            named = self.inside(model, tensors_of(model), "parameter")
            visit.memory[visit.index] = {name: tensor.detach().clone() for name, tensor in named}

    def apply(self, visit: Visit) -> None:
        """Use the old weights for this call."""
        model = checked_model(self, visit.payload)
        old = visit.memory.pop(visit.index - self.age, {})
        named = self.inside(model, tensors_of(model), "parameter")
        changes = [
            (tensor, old[name])
            for name, tensor in named
            if name in old and _differ(tensor, old[name])
        ]
        if changes:
            visit.keep_open(_other_weights(changes))
            visit.record_injection(age=self.age, tensors=len(changes))
        else:
            visit.skip()


def _differ(tensor: torch.Tensor, old: Any) -> bool:
    """Return True if an earlier value of a tensor differs. A different shape belongs to a different
    model.
    """
    return (
        tensor.shape == old.shape and tensor.dtype == old.dtype and not tensor.detach().equal(old)
    )


@register
class QuantizationError(LayerFault):
    """For one call of the model, values are rounded to a few bits.

    ``at`` counts calls of the model. Afterwards the weights are as before, bit by bit.

    Args:
        layer: The name of a module or tensor, or a pattern. Without it, all of them.
        part: ``"weights"``, or ``"activations"`` (the output of each layer). You can also write
            ``where="weights"``.
        bits: The number of bits, 2 to 16. The grid is even and symmetric, up to the greatest
            absolute value of each tensor.

    Imitates: a model that is served in low precision, a conversion that was calibrated badly.

    Fidelity: rounded per tensor, and computed in the model's own type, without integer kernels,
    scales per channel or saturation. The backward pass of a training step sees the exact weights.
    For activations a compiled model (``torch.compile``) runs layer by layer.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, CVPR 2018

    Example: ``@chaos.quantization_error(bits=4, at=3)``
    """

    site = "model.forward"
    needs = ("torch", "torch")
    random = False
    part: Literal["weights", "activations"] = "weights"
    bits: int = 8

    def __post_init__(self) -> None:
        name_part(self)
        super().__post_init__()

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.bits) and not 2 <= self.bits <= 16:
            raise BadArgument(
                f"quantization_error: bits must be 2 to 16, got {format_value(self.bits)}"
            )

    def apply(self, visit: Visit) -> None:
        """Round the weights."""
        model = checked_model(self, visit.payload)
        if self.part == "activations":
            visit.keep_open(self._rounding(visit, model))
            return
        named = self.inside(model, tensors_of(model), "tensor")
        rounded = [
            (tensor, self.rounded(tensor.detach())) for _, tensor in named if _is_real(tensor)
        ]
        changes = [(tensor, fresh) for tensor, fresh in rounded if differ(fresh, tensor)]
        if (self.layer is not None and not named) or (rounded and not changes):
            # A different part of the model is meant, or all weights are on the grid already
            visit.skip()
            return
        if not changes:
            raise PayloadMismatch(
                f"quantization_error found no floating-point weights in {type(model).__name__}"
            )
        visit.keep_open(_other_weights(changes))
        visit.record_injection(bits=self.bits, tensors=len(changes))

    def rounded(self, values: Any) -> Any:
        """Return the values rounded to the grid."""
        greatest = float(values.abs().max())
        if not 0 < greatest < math.inf:
            return values.clone()
        step = greatest / (2 ** (self.bits - 1) - 1)
        return ((values.double() / step).round() * step).to(values.dtype)

    @contextmanager
    def _rounding(self, visit: Visit, model: torch.nn.Module) -> Iterator[None]:
        every = self.inside(model, layers_of(self, model, self.layer is None), "layer")
        told = False

        def hook(module: torch.nn.Module, inputs: object, output: object) -> Any:
            nonlocal told
            found = {
                leaf.path: leaf.value
                for leaf in leaves(output)
                if leaf.is_torch and _is_real(leaf.value)
            }
            fresh = {path: value.clone() for path, value in found.items()}
            for value in fresh.values():
                value.data.copy_(self.rounded(value.detach()))
            if not told and any(differ(value, found[path]) for path, value in fresh.items()):
                told = True
                visit.record_injection(bits=self.bits, layers=len(handles))
            return rebuilt(output, fresh)

        handles = [module.register_forward_hook(hook) for _, module in every]
        try:
            with layer_by_layer():
                yield
        finally:
            for handle in handles:
                handle.remove()


def _is_real(tensor: torch.Tensor) -> bool:
    dense = str(tensor.layout) == "torch.strided" and not (tensor.is_meta or tensor.is_nested)
    return bool(dense and tensor.is_floating_point() and tensor.numel())
