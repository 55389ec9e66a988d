"""Define faults of gradients, which become non-finite or much too large."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit, derive_seed
from ...core.validation import check_share, format_value
from ...errors import BadArgument
from .gradient_hooks import changing, gradients
from .modules import LayerFault

if TYPE_CHECKING:
    import torch

__all__ = ["ExplodingGradient", "NanGradient"]
LAYER = "The model"


def _change_all(fault: LayerFault, visit: Visit, change: Callable[[int, Any], Any]) -> None:
    """Change each chosen gradient of one backward pass with ``change(index, values)``, in place."""
    found = gradients(fault, visit)
    if not found:
        visit.skip()
        return

    def changed(place: int, gradient: torch.Tensor) -> Any:
        fresh = gradient.coalesce().clone() if gradient.is_sparse else gradient.clone()
        change(place, (fresh._values() if gradient.is_sparse else fresh).detach())
        return fresh

    changes = {
        id(one): (lambda gradient, place=place: changed(place, gradient))
        for place, (_, one) in enumerate(found)
    }
    visit.keep_open(
        changing(changes, {id(one): one for _, one in found}, visit, gradients=len(found))
    )


@register
class NanGradient(LayerFault):
    """The gradients of a backward pass are not finite.

    ``at`` counts backward passes. The fault strikes as gradients are computed, before ``.grad`` is
    written, so a gradient scaler, clipping and other ranks see the change.

    Args:
        layer: The name of a module or parameter, or a pattern. Without it, all gradients.
        kind: ``"nan"`` or ``"inf"``.
        fraction: The share of each gradient's elements, at least one.

    Imitates: an overflow in half precision, a division by zero in a loss, the square root of zero,
    a corrupt batch.

    Fidelity: the loss itself is finite. Use ``corrupt_batch`` for a loss that is not. Gradients
    inside a reentrant checkpoint are not reached.

    Example: ``@chaos.nan_gradient(at=3)``
    """

    site = "train.backward"
    needs = ("torch", "torch")
    kind: Literal["nan", "inf"] = "nan"
    gradual: ClassVar = {"fraction": 0.0}
    fraction: float = 1.0

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.fraction):
            check_share(self.name, "fraction", self.fraction)

    def apply(self, visit: Visit) -> None:
        """Watch the gradients of this pass."""
        seed = visit.seed
        _change_all(self, visit, lambda place, values: self._fill(values, derive_seed(seed, place)))

    def _fill(self, values: Any, seed: int) -> None:
        import numpy as np
        import torch

        value = math.nan if self.kind == "nan" else math.inf
        if self.fraction == 1:
            values.fill_(value)
        elif values.numel():
            places = np.random.default_rng(seed).choice(
                values.numel(), max(1, round(self.fraction * values.numel())), replace=False
            )
            values[np.unravel_index(np.sort(places), tuple(values.shape))] = torch.full(
                (), value, dtype=values.dtype
            )


@register
class ExplodingGradient(LayerFault):
    """The gradients of a backward pass are many times as large.

    ``at`` counts backward passes. The fault strikes as gradients are computed, before ``.grad`` is
    written, so clipping and other ranks see the change.

    Args:
        layer: The name of a module or parameter, or a pattern. Without it, all gradients.
        factor: The factor. Below 1 the gradients vanish, and below 0 they point the other way.

    Imitates: an unstable recurrent network, a cliff of the loss, a batch of outliers, a wrong loss
    scale.

    Fidelity: the direction stays. In half precision, values that are too large become infinite, as
    they would.

    Source: Pascanu et al., On the difficulty of training recurrent neural networks, ICML 2013

    Example: ``@chaos.exploding_gradient(factor=1e6, at=3)``
    """

    site = "train.backward"
    needs = ("torch", "torch")
    random = False
    factor: float = 1e4

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.factor) and (not math.isfinite(self.factor) or self.factor == 1):
            raise BadArgument(
                f"exploding_gradient: factor must be a finite number other than 1, got "
                f"{format_value(self.factor)}"
            )

    def apply(self, visit: Visit) -> None:
        """Watch the gradients of this pass."""
        _change_all(self, visit, lambda place, values: values.mul_(self.factor))
