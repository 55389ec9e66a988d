"""Judge the accuracy of a classifier under attack."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.privacy import error_text
from ...core.recording import oracle
from ...core.validation import format_value, index
from ...errors import BadArgument, Inconclusive, MetricMissed
from ..confidence import check_confidence
from ..intervals import clopper_pearson
from ..quality.metric import judge_interval
from ..quality.samples import check_bounds, same_length
from .attack import Attack, make_attack
from .boundary import attack_by_decisions
from .controls import check_decisions_control, check_gradient_control
from .gradients import attack_inputs, model_inside, undisturbed
from .objectives import classes_of, main_output, make_objective

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["assert_robust", "decisions_of"]

OWNER = "assert_robust"
BATCH = 256
"""The number of samples that a torch model gets at a time."""


@oracle
def assert_robust(
    model: Any,
    inputs: Any,
    labels: Any,
    *,
    at_least: float,
    epsilon: float,
    method: str | None = None,
    norm: str = "inf",
    steps: int | None = None,
    step_size: float | None = None,
    random_start: bool | None = None,
    clip: tuple[float, float] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    queries: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> None:
    """Pass only if the accuracy under attack is shown to be at least ``at_least``.

    A sample counts as right if the model is right about it before and after the attack. The
    interval is that of Clopper and Pearson. The attack first breaks a planted weak model with the
    same settings. If it cannot, the verdict is ``Inconclusive``.

    Args:
        model: A torch module, or any function of a batch that returns classes, scores for each
            class, or texts: the ``predict`` of a scikit-learn model, a client of a service.
        inputs: The samples, float[n, ...].
        labels: The true class of each sample.
        at_least: The smallest accuracy under attack, from 0 to 1.
        epsilon: The largest perturbation of one sample, in the unit of the inputs.
        method: ``"pgd"`` (without it, for torch modules), ``"fgsm"``, or ``"boundary"`` (without
            it, for functions), which needs no gradients.
        norm: ``"inf"`` (of the largest change) or ``"2"`` (of the Euclidean length).
        steps: The number of steps of PGD, 10 without it.
        step_size: The length of a step, ``2.5 * epsilon / steps`` without it.
        random_start: False to start PGD at the sample itself.
        clip: The lowest and the highest value of an input, ``(0, 1)`` for images of floats.
        loss: A function of the output and the labels, which the attack increases. Without it, the
            cross-entropy of the logits or probabilities.
        queries: The number of queries for each sample with ``"boundary"``, 2,000 without it.
        confidence: 1 minus the probability that a lower accuracy passes. Above 0.5 and below 1.
        seed: The seed of the random numbers.

    Raises:
        MetricMissed: The accuracy under attack is shown to be lower.
        Inconclusive: There are too few samples, the planted model was not broken, or the gradient
            of samples is 0 on which the verdict depends.
        BadArgument: The model has no gradients, its loss is not known, or inputs are not floats.

    Fidelity: it is the accuracy under this attack. A stronger attack may do better, so it is an
    upper bound of the accuracy under all attacks within epsilon. A torch model is called in the
    mode that it has, and stays as it is.

    Example:
        >>> import numpy as np
        >>> positive = lambda rows: (rows[:, 0] > 0).astype(int)
        >>> assert_robust(positive, np.array([[-1.0], [1.0]] * 50), [0, 1] * 50,
        ...               epsilon=0.5, at_least=0.9)

    Source: Goodfellow et al. (2015) for FGSM, Madry et al. (2018) for PGD, Chen et al. (2020,
    HopSkipJump) for attacks by decisions.
    """
    check_bounds(OWNER, at_least, None)
    confidence = check_confidence(OWNER, confidence)
    is_module = _is_module(model)
    if not is_module and not callable(model):
        raise BadArgument(
            f"{OWNER}: model must be a torch module or a function of a batch, got "
            f"{format_value(model)}"
        )
    attack = make_attack(
        OWNER,
        method or ("pgd" if is_module else "boundary"),
        epsilon,
        norm,
        steps=steps,
        step_size=step_size,
        random_start=random_start,
        clip=clip,
        queries=queries,
    )
    if attack.is_white_box and not is_module:
        raise BadArgument(
            f"{OWNER}: method={attack.method!r} needs a torch module, for its gradients. Give the "
            f"module, or method='boundary'"
        )
    if loss is not None and not (attack.is_white_box and callable(loss)):
        raise BadArgument(
            f"{OWNER}: loss must be a function of the output and the labels, for an attack with "
            f"gradients, got {format_value(loss)}"
        )
    if index(seed) is None:
        raise BadArgument(f"{OWNER}: seed must be a whole number, got {format_value(seed)}")
    if attack.is_white_box:
        right, unknown = _by_gradients(model, inputs, labels, attack, loss, seed)
    else:
        function = functools.partial(_ask_module, model) if is_module else model
        right, unknown = _by_decisions(function, inputs, labels, attack, seed), 0
    _judge(right, unknown, len(labels), at_least, confidence, attack)


def _judge(
    right: int, unknown: int, total: int, at_least: float, confidence: float, attack: Attack
) -> None:
    """Judge the share of right samples, where some may be right only for want of a gradient."""

    def judge(hits: int) -> None:
        judge_interval(
            f"the accuracy under attack ({attack.method}, epsilon {attack.epsilon:g}, norm "
            f"{attack.norm})",
            lambda level, side: clopper_pearson(hits, total, level, side),  # type: ignore[arg-type]
            total,
            at_least,
            None,
            confidence,
            counts=True,
        )

    if not unknown:
        judge(right)
        return
    try:
        judge(right - unknown)
    except (MetricMissed, Inconclusive):
        judge(right)  # It fails too, unless the verdict depends on the unknown samples.
        raise Inconclusive(
            f"the gradient of {unknown:,} of {total:,} samples is 0 (the model rounds, or its "
            f"output is saturated), so that these stay right says nothing, and the verdict depends "
            f"on them. Give loss= on the logits, or use method='boundary'"
        ) from None


def _is_module(model: object) -> bool:
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


# -- with gradients --------------------------------------------------------------------------------


def _by_gradients(
    model: Any, inputs: Any, labels: Any, attack: Attack, loss: Any, seed: int
) -> tuple[int, int]:
    """Return the number of samples that stay right, and of those among them without a gradient."""
    import torch

    model = model_inside(model)
    weight = next(model.parameters(), None)
    values = torch.as_tensor(inputs)
    if not values.is_floating_point():
        raise BadArgument(
            f"{OWNER}: inputs must be floats, which gradients can change, got "
            f"{str(values.dtype).removeprefix('torch.')}. Give the floats that follow from them"
        )
    values = values.to(weight) if weight is not None else values
    truth = torch.as_tensor(labels).reshape(-1).to(values.device)
    same_length(OWNER, inputs=values, labels=truth)
    _check_values(bool(torch.isfinite(values).all()), values.min(), values.max(), attack)
    right = unknown = 0
    with undisturbed(model):
        for start in range(0, len(values), BATCH):
            part, wanted = values[start : start + BATCH], truth[start : start + BATCH]
            with torch.no_grad():
                clean = model(part)
            check_gradient_control(OWNER, attack, [part])
            objective = make_objective(OWNER, clean, part, loss=loss, labels=wanted, targeted=None)
            found = attack_inputs(
                OWNER, lambda given: model(given[0]), [part], objective, attack, seed=seed + start
            )
            with torch.no_grad():
                after = classes_of(OWNER, model(found.inputs[0]), part).argmax(1)
            before = classes_of(OWNER, clean, part).argmax(1)
            stays = (before == wanted) & (after == wanted)
            right += int(stays.sum())
            unknown += int((stays & found.without_gradient).sum())
    return right, unknown


def _check_values(finite: bool, low: Any, high: Any, attack: Attack) -> None:
    """Refuse inputs that are not finite, or outside of ``clip``."""
    if not finite:
        raise BadArgument(f"{OWNER}: inputs must be finite. Drop the samples with NaN or infinity")
    if attack.clip is not None and (low < attack.clip[0] or high > attack.clip[1]):
        raise BadArgument(
            f"{OWNER}: inputs must be within clip={attack.clip[0]:g}, {attack.clip[1]:g}, and some "
            f"are not. Give the range of the values that the model gets"
        )


# -- with decisions alone --------------------------------------------------------------------------


def _ask_module(model: Any, rows: Array) -> Any:
    import torch

    weight = next(model.parameters(), None)
    given = torch.as_tensor(rows)
    with undisturbed(model), torch.no_grad():
        return model(given if weight is None else given.to(weight))


def _by_decisions(function: Any, inputs: Any, labels: Any, attack: Attack, seed: int) -> int:
    """Return the number of samples that stay right."""
    import numpy as np

    values = np.asarray(inputs.detach().cpu() if hasattr(inputs, "detach") else inputs)
    truth = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    if values.dtype.kind != "f" or values.ndim < 1:
        raise BadArgument(
            f"{OWNER}: inputs must be an array of floats, one entry for each sample, got "
            f"{values.dtype}{list(values.shape)}"
        )
    same_length(OWNER, inputs=values, labels=truth)
    _check_values(bool(np.isfinite(values).all()), values.min(), values.max(), attack)
    check_decisions_control(OWNER, attack, values)
    before = decisions_of(OWNER, function, values)

    def is_wrong(points: Array, samples: Array) -> Array:
        return np.asarray(decisions_of(OWNER, function, points) != truth[samples])

    found, _ = attack_by_decisions(is_wrong, values, attack, seed)
    everyone = np.arange(len(values))
    return int(((before == truth) & ~is_wrong(found, everyone)).sum())


def decisions_of(owner: str, function: Callable[[Any], Any], rows: Any) -> Array:
    """Return the class for each row: what the function returns, or its largest score.

    Raises:
        BadArgument: The function fails, or does not return one decision for each row.
    """
    import numpy as np

    try:
        answer = function(rows)
    except Exception as error:
        raise BadArgument(f"{owner}: the model raised {error_text(error)}") from error
    if not isinstance(answer, (np.ndarray, list, tuple)):
        answer = main_output(owner, answer) if _is_torch_output(answer) else answer
    found = np.asarray(answer.detach().cpu() if hasattr(answer, "detach") else answer)
    if found.ndim == 2 and found.shape[1] > 1:
        found = found.argmax(1)
    found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if (
        found.ndim != 1
        or len(found) != len(rows)
        or (found.dtype.kind == "f" and _are_scores(found))
    ):
        raise BadArgument(
            f"{owner}: the model must return one class for each of {len(rows)} rows, or a score "
            f"for each class, got {found.dtype}{list(found.shape)}. Give a function that does, "
            f"such as lambda rows: model.predict(rows) > 0.5"
        )
    return found


def _are_scores(values: Array) -> bool:
    """Return True if numbers are scores, and not classes that are written as floats."""
    import numpy as np

    return not bool(np.isfinite(values).all() and (values == np.round(values)).all())


def _is_torch_output(answer: object) -> bool:
    return type(answer).__module__.partition(".")[0] == "torch" or hasattr(answer, "logits")
