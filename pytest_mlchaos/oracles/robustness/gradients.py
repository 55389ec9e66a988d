"""Attack a torch model with the gradients on its input, and leave the model as it is."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import BadArgument
from .attack import Attack

if TYPE_CHECKING:
    import torch

__all__ = ["Perturbed", "attack_inputs", "model_inside", "undisturbed"]

_WRAPPERS = ("_orig_mod", "module")
"""Attribute names by which compiled and data-parallel models refer to the model inside."""
_OWN = ("_parameters", "_buffers", "_modules")


class Perturbed(NamedTuple):
    """The result of an attack.

    Attributes:
        inputs: The perturbed inputs.
        without_gradient: For each sample, True if its gradient was 0 at each step.
    """

    inputs: list[torch.Tensor]
    without_gradient: torch.Tensor


def model_inside(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside wrappers of ``torch.compile`` and of data parallelism.

    A data-parallel wrapper would prepare a reduction of gradients at each call.
    """
    import torch

    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(model, parallel) or "_orig_mod" in vars(model).get("_modules", {}):
        model = next(
            inner
            for name in _WRAPPERS
            if isinstance(inner := getattr(model, name, None), torch.nn.Module)
        )
    return model


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Record gradients in this context, and let calls of the model change nothing that stays.

    Calls see copies of the buffers, so running statistics stay as they are, and no tensor of the
    user's autograd graph is written to. Attributes that a call sets are restored.
    """
    import torch

    with (
        _random_numbers(model),
        torch.inference_mode(False),
        torch.enable_grad(),
        _no_autocast_cache(),
    ):
        kept = []
        for module in model.modules():
            held = vars(module)
            kept.append((held, held.copy(), {name: held[name].copy() for name in _OWN}))
            for name in ("_parameters", "_buffers"):
                for key, tensor in held[name].items():
                    # Gradients cannot pass tensors that were made in inference mode.
                    if tensor is not None and (name == "_buffers" or tensor.is_inference()):
                        held[name][key] = tensor.detach().clone()
        try:
            yield
        finally:
            for held, attributes, own in kept:
                for name in _OWN:
                    _restore(attributes[name], own[name])
                _restore(held, attributes)


def _restore(held: dict[str, Any], before: dict[str, Any]) -> None:
    """Restore a dict. It is never empty, because other threads may read it."""
    held.update(before)
    for name in held.keys() - before.keys():
        del held[name]


@contextlib.contextmanager
def _random_numbers(model: torch.nn.Module) -> Iterator[None]:
    """Restore the generators of random numbers at the end."""
    import torch

    numpy = getattr(sys.modules.get("numpy"), "random", None)
    python, of_numpy = random.getstate(), numpy.get_state() if numpy else None
    devices = {one.device for one in model.parameters() if one.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            if numpy:
                numpy.set_state(of_numpy)


@contextlib.contextmanager
def _no_autocast_cache() -> Iterator[None]:
    """Keep casts of the weights in this context out of the cache, which the user's code reads."""
    import torch

    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def attack_inputs(
    owner: str,
    call: Callable[[Sequence[torch.Tensor]], Any],
    inputs: Sequence[torch.Tensor],
    objective: Callable[[Any], torch.Tensor],
    attack: Attack,
    *,
    seed: int,
    single: bool = False,
) -> Perturbed:
    """Return inputs within epsilon of the given ones that increase the objective.

    Each sample, an entry of the first axis, has its own perturbation. Of several inputs, each may
    be perturbed by epsilon.

    Args:
        owner: The name of the caller, for messages.
        call: A function of the inputs that calls the model.
        inputs: Tensors of floats.
        objective: A function of the model's output that gives the number to increase.
        attack: The settings.
        seed: The seed of the random start.
        single: True if the inputs are those of one sample, without an axis of samples.

    Raises:
        BadArgument: The objective has no gradient with respect to the inputs.
    """
    import torch

    originals = [one.detach()[None] if single else one.detach() for one in inputs]
    originals = [one.clone() for one in originals]
    current = originals
    if attack.random_start:
        generator = torch.Generator().manual_seed(seed % 2**63)
        current = [_clipped(one + _start(one, attack, generator), attack) for one in originals]
    moved = torch.zeros(len(originals[0]), dtype=torch.bool, device=originals[0].device)
    for _ in range(attack.steps):
        current = [one.detach().requires_grad_() for one in current]
        gradients = _gradients(owner, objective(call(_outer(current, single))), current)
        for gradient in gradients:
            moved |= gradient.flatten(1).abs().amax(1) > 0 if gradient.ndim > 1 else gradient != 0
        current = [
            _stepped(one, original, gradient, attack)
            for one, original, gradient in zip(current, originals, gradients, strict=True)
        ]
    if not bool(moved.any()):
        raise BadArgument(
            f"{owner}: the model must have gradients, but they are 0 for each sample. It rounds, "
            f"or its output is saturated. Give loss= on its logits, or use method='boundary'"
        )
    return Perturbed(_outer(current, single), ~moved)


def _outer(inputs: list[torch.Tensor], single: bool) -> list[torch.Tensor]:
    """Return the inputs as the model gets them."""
    return [one[0] for one in inputs] if single else inputs


def _gradients(
    owner: str, value: torch.Tensor, inputs: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    import torch

    found: Sequence[torch.Tensor | None] = [None]
    if value.requires_grad:
        found = torch.autograd.grad(value, inputs, allow_unused=True)
    if all(one is None for one in found):
        raise BadArgument(
            f"{owner}: the model must have gradients, but its loss does not depend on the input by "
            f"operations that torch can differentiate (does the model call no_grad, detach or "
            f"argmax?). Use method='boundary'"
        )
    return [
        torch.zeros_like(one) if gradient is None else torch.nan_to_num(gradient.detach())
        for one, gradient in zip(inputs, found, strict=True)
    ]


def _lengths(values: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean length of each sample, in a shape to divide by."""
    import torch

    wide = torch.promote_types(values.dtype, torch.float32)
    lengths = torch.linalg.vector_norm(values.reshape(len(values), -1).to(wide), dim=1)
    return lengths.clamp_min(1e-30).reshape(-1, *[1] * (values.ndim - 1))


def _start(values: torch.Tensor, attack: Attack, generator: torch.Generator) -> torch.Tensor:
    """Return a random perturbation: uniform in the cube, or in the ball."""
    import torch

    if attack.norm == "inf":
        drawn = torch.rand(values.shape, generator=generator) * 2 - 1
        return (drawn * attack.epsilon).to(values)
    drawn = torch.randn(values.shape, generator=generator)
    size = max(1, drawn[0].numel())
    share = torch.rand(len(values), generator=generator) ** (1 / size)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    drawn = drawn / _lengths(drawn)
    return (drawn * share * attack.epsilon).to(values)


def _stepped(
    current: torch.Tensor, original: torch.Tensor, gradient: torch.Tensor, attack: Attack
) -> torch.Tensor:
    """Take one step along the gradient, and go back into the ball around the original."""
    import torch

    with torch.no_grad():
        if attack.norm == "inf":
            moved = current + attack.step_size * gradient.sign()
            low, high = original - attack.epsilon, original + attack.epsilon
            return _clipped(torch.clamp(moved, low, high), attack)
        # The largest number is taken out first, because squares of small ones are 0.
        largest = gradient.reshape(len(gradient), -1).abs().amax(1)
        largest = largest.clamp_min(torch.finfo(gradient.dtype).tiny)
        gradient = gradient / largest.reshape(-1, *[1] * (gradient.ndim - 1))
        change = current - original + attack.step_size * gradient / _lengths(gradient)
        change = change * (attack.epsilon / _lengths(change)).clamp(max=1)
        return _clipped((original + change).to(original.dtype), attack)


def _clipped(values: torch.Tensor, attack: Attack) -> torch.Tensor:
    return values if attack.clip is None else values.clamp(*attack.clip)
