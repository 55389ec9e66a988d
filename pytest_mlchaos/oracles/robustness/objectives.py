"""Find the loss that an attack on a torch model increases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import BadArgument

if TYPE_CHECKING:
    import torch

__all__ = ["classes_of", "is_one_sample", "main_output", "make_objective"]

SMALLEST = 1e-12
"""The smallest probability of which a logarithm is taken."""


def _part(output: Any, name: str) -> Any:
    """Return a named part of a model's output, or None."""
    if isinstance(output, Mapping):
        return output.get(name)
    return getattr(output, name, None)


def main_output(owner: str, output: Any) -> torch.Tensor:
    """Return the tensor of an output that holds the logits or the probabilities.

    It is the output itself, its part ``logits``, or the first tensor of floats of a tuple.
    """
    import torch

    if not isinstance(output, torch.Tensor):
        logits = _part(output, "logits")
        parts = output if isinstance(output, (tuple, list)) else ()
        floats = (one for one in parts if isinstance(one, torch.Tensor) and one.is_floating_point())
        output = logits if logits is not None else next(floats, output)
    if not isinstance(output, torch.Tensor):
        raise BadArgument(
            f"{owner}: the loss is not known, because the model returns {type(output).__name__} "
            f"without logits. Give loss=, a function of the output and the labels"
        )
    return output


def is_one_sample(output: torch.Tensor, inputs: torch.Tensor) -> bool:
    """Return True if an input is a single sample, without an axis of samples.

    Then the output has no such axis either.
    """
    return output.ndim == 1 and bool(inputs.ndim) and len(output) != len(inputs)


def classes_of(owner: str, output: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return logits with the classes on the second axis, for one sample too.

    Raises:
        BadArgument: The output is not that of a classifier.
    """
    logits = main_output(owner, output)
    logits = logits[None] if is_one_sample(logits, inputs) else logits
    if logits.ndim in (2, 4, 5) and logits.shape[1] > 1 and logits.is_floating_point():
        return logits
    raise BadArgument(
        f"{owner}: the loss is not known, because the model's output "
        f"{str(logits.dtype).removeprefix('torch.')}{list(logits.shape)} is not one number for "
        f"each class. Give loss=, a function of the output and the labels"
    )


def make_objective(
    owner: str,
    clean: Any,
    inputs: torch.Tensor,
    *,
    loss: Callable[[Any, Any], Any] | None,
    labels: Any,
    targeted: int | None,
) -> Callable[[Any], torch.Tensor]:
    """Return a function of the model's output that gives the number to increase.

    Args:
        owner: The name of the caller, for messages.
        clean: The output for the input without a perturbation.
        inputs: That input.
        loss: A function of the output and the labels, or None for the model's own loss, or else the
            cross-entropy.
        labels: The true labels, or None. Then the model's own predictions take their place.
        targeted: The class to aim at, or None.

    Raises:
        BadArgument: The loss cannot be found.
    """
    import torch

    own = _part(clean, "loss") if not isinstance(clean, (torch.Tensor, tuple, list)) else None
    if loss is None and targeted is None and labels is None and isinstance(own, torch.Tensor):
        return lambda output: _total(owner, _part(output, "loss"))
    if loss is not None and labels is None and targeted is None:
        labels = _own_labels(owner, clean, inputs)
    if loss is not None:
        wanted = labels if targeted is None else _all(targeted, clean, inputs, owner)
        sign = 1 if targeted is None else -1
        return lambda output: sign * _total(owner, loss(output, wanted))
    logits = classes_of(owner, clean, inputs)
    if targeted is not None and targeted >= logits.shape[1]:
        raise BadArgument(
            f"{owner}: targeted must be below {logits.shape[1]}, the number of the model's "
            f"classes, got {targeted}"
        )
    if targeted is not None or labels is None:
        wanted = (
            logits.argmax(1) if targeted is None else torch.full_like(logits.argmax(1), targeted)
        )
    else:
        wanted = _class_numbers(owner, labels, logits)
    are_probabilities = bool(
        (logits >= 0).all() and ((logits.float().sum(1) - 1).abs() < 1e-3).all()
    )
    sign = 1 if targeted is None else -1

    def objective(output: Any) -> torch.Tensor:
        found = classes_of(owner, output, inputs).float()
        logs = found.clamp_min(SMALLEST).log() if are_probabilities else found
        function = torch.nn.functional.nll_loss if are_probabilities else _cross_entropy
        return sign * function(logs, wanted, reduction="sum")

    return objective


def _cross_entropy(logits: Any, wanted: Any, reduction: str) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(logits, wanted, reduction=reduction)


def _total(owner: str, value: Any) -> torch.Tensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise BadArgument(f"{owner}: loss must return a tensor, got {type(value).__name__}")
    return value.sum()


def _own_labels(owner: str, clean: Any, inputs: torch.Tensor) -> Any:
    """Return the model's own predictions: its classes, or else its output."""
    logits = main_output(owner, clean)
    try:
        return classes_of(owner, logits, inputs).argmax(1)
    except BadArgument:
        return logits.detach()


def _all(targeted: int, clean: Any, inputs: torch.Tensor, owner: str) -> Any:
    """Return the class to aim at as the label of each sample."""
    import torch

    return torch.full_like(classes_of(owner, clean, inputs).argmax(1), targeted)


def _class_numbers(owner: str, labels: Any, logits: torch.Tensor) -> torch.Tensor:
    import torch

    wanted = torch.as_tensor(labels, device=logits.device)
    if wanted.ndim == 2 and wanted.shape == logits.shape:  # one-hot
        wanted = wanted.argmax(1)
    wanted = wanted.reshape(-1) if logits.ndim == 2 else wanted
    expected = (logits.shape[0], *logits.shape[2:])
    if wanted.is_floating_point() and not bool((wanted == wanted.round()).all()):
        raise BadArgument(
            f"{owner}: the labels must be numbers of classes. For other labels, give loss=, a "
            f"function of the output and the labels"
        )
    wanted = wanted.long()
    if tuple(wanted.shape) != expected or int(wanted.max()) >= logits.shape[1]:
        raise BadArgument(
            f"{owner}: the labels must have the shape {list(expected)} and be below "
            f"{logits.shape[1]}, the number of the model's classes, got {list(wanted.shape)} with a "
            f"maximum of {int(wanted.max())}"
        )
    return wanted
