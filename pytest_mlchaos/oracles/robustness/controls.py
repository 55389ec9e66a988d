"""Check that an attack breaks a planted weak model with the same settings."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ...errors import Inconclusive
from .attack import Attack
from .boundary import attack_by_decisions
from .gradients import attack_inputs

if TYPE_CHECKING:
    import numpy as np
    import torch

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["check_decisions_control", "check_gradient_control"]

SAMPLES = 8
"""The number of samples of a control."""
MARGINS = {"fgsm": 0.5, "pgd": 0.5, "boundary": 0.25}
"""The distance of the planted decision boundary, as a share of what epsilon allows."""
LEAST_BROKEN = 0.75
_passed: set[Hashable] = set()
"""The controls that this process has seen to pass: settings, shape, dtype and device."""


def check_gradient_control(owner: str, attack: Attack, inputs: Sequence[torch.Tensor]) -> None:
    """Raise ``Inconclusive`` unless the attack breaks a planted linear model on each input.

    The boundary of the planted model is at half of the way that epsilon and ``clip`` allow. So an
    attack with steps that are too small for epsilon, or with an epsilon that vanishes in the dtype
    of the input, does not break it.
    """
    import torch

    for values in inputs:
        key = (attack, tuple(values.shape[1:]), values.dtype, str(values.device))
        if key in _passed:
            continue
        with torch.inference_mode(False), torch.enable_grad():
            origin = values.detach()[:SAMPLES].clone()
            wide = torch.promote_types(values.dtype, torch.float32)
            weight = torch.randn(origin[0].shape, generator=torch.Generator().manual_seed(0))
            weight = weight.to(origin.device, wide)
            margin = MARGINS[attack.method] * _reach(origin, weight, attack)

            def logits(given: Sequence[Any], origin: Any = origin, weight: Any = weight) -> Any:
                change = (given[0] - origin).to(weight.dtype) * weight
                return change.reshape(len(change), -1).sum(1)

            def score(given: Sequence[Any], logits: Any = logits, margin: Any = margin) -> Any:
                return logits(given) - margin

            planted = attack_inputs(owner, score, [origin], torch.sum, attack, seed=0)
            broken = (score(planted.inputs) > 0) & (margin > 0)
        _judge(owner, attack, int(broken.sum()), len(origin))
        _passed.add(key)


def _reach(origin: torch.Tensor, weight: torch.Tensor, attack: Attack) -> torch.Tensor:
    """Return how far epsilon can move the planted score of each sample."""
    direction = weight.sign() if attack.norm == "inf" else weight / weight.flatten().norm()
    moved = origin + (attack.epsilon * direction).to(origin.dtype)
    moved = moved if attack.clip is None else moved.clamp(*attack.clip)
    change = (moved - origin).to(weight.dtype) * weight
    found: torch.Tensor = change.reshape(len(change), -1).sum(1)
    return found


def check_decisions_control(owner: str, attack: Attack, inputs: Array) -> None:
    """Raise ``Inconclusive`` unless the attack breaks a planted linear classifier.

    Its boundary is at a quarter of the way that epsilon and ``clip`` allow.
    """
    import numpy as np

    key = (attack, inputs.shape[1:], str(inputs.dtype))
    if key in _passed:
        return
    origin = inputs[:SAMPLES].reshape(min(len(inputs), SAMPLES), -1)
    weight = np.random.default_rng(0).normal(size=origin.shape[1])
    change = np.sign(weight) if attack.norm == "inf" else weight / np.sqrt((weight**2).sum())
    moved = (origin + attack.epsilon * change).astype(origin.dtype)
    moved = moved if attack.clip is None else np.clip(moved, *attack.clip)
    margin = MARGINS[attack.method] * ((moved.astype(float) - origin) @ weight)

    def is_wrong(points: Array, samples: Array) -> Array:
        change = points.reshape(len(points), -1).astype(float) - origin[samples]
        found: Array = (change @ weight > margin[samples]) & (margin[samples] > 0)
        return found

    planted, _ = attack_by_decisions(is_wrong, origin, attack, seed=0)
    broken = is_wrong(planted, np.arange(len(origin)))
    _judge(owner, attack, int(broken.sum()), len(origin))
    _passed.add(key)


def _judge(owner: str, attack: Attack, broken: int, of: int) -> None:
    if broken >= LEAST_BROKEN * of:
        return
    cure = {
        "fgsm": "Give a larger epsilon=",
        "pgd": "Give more steps=, a larger step_size=, or a larger epsilon=",
        "boundary": "Give more queries=, or a larger epsilon=",
    }[attack.method]
    raise Inconclusive(
        f"{owner}: the attack with these settings does not break a planted weak model either "
        f"({broken} of {of} samples), so that it does not break yours says nothing. {cure}, and "
        f"check that clip= and the dtype of the input leave room for epsilon={attack.epsilon:g}"
    )
