"""Check that each optimizer step received the gradient of the same batch as in the golden run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ..core.records import Gradients

__all__ = ["first_other_batch"]

Steps: TypeAlias = Sequence[Gradients]
SHORT_GRADIENT_SHARE = 1e-3
"""A share of the longest gradient of a step. Shorter gradients are compared on this scale."""


def first_other_batch(
    attempts: Sequence[Steps], golden: Steps, *, rtol: float, gradients: bool
) -> str | None:
    """Describe the first step with a different effective batch, or return None.

    The first attempt is compared with the golden run's start, and the last with its end. Attempts
    in between are not judged.

    Args:
        attempts: The gradients of each attempt's steps.
        golden: Those of the golden run.
        rtol: The relative tolerance of norms.
        gradients: False to compare only the numbers of samples.
    """
    short = len(attempts) == 1 and len(attempts[0]) < len(golden)
    left_out = (
        f"it took {len(attempts[0])} optimizer steps instead of {len(golden)}: batches were left "
        f"out"
        if short
        else None
    )
    for number, start, steps in _place_steps(attempts, len(golden)):
        which = f" of attempt {number + 1}" if len(attempts) > 1 else ""
        if start < 0 or start + len(steps) > len(golden):
            return f"it took {len(steps)} optimizer steps{which} instead of {len(golden)}"
        for place, step in enumerate(steps, start):
            if step.untouched:
                continue
            difference = (
                _difference(step, golden[place], rtol)
                if gradients
                else _samples(step, golden[place])
            )
            if difference is not None:
                return (
                    f"{left_out}, the first at step {place}"
                    if left_out
                    else f"step {place}{which}: {difference}"
                )
    return left_out


def _place_steps(attempts: Sequence[Steps], total: int) -> Iterator[tuple[int, int, Steps]]:
    """Yield the attempts with a known position.

    Each has its number, its first golden step, and its steps.
    """
    if len(attempts) > 1:
        yield 0, 0, attempts[0]
        yield len(attempts) - 1, total - len(attempts[-1]), attempts[-1]
    elif attempts:
        yield 0, 0, attempts[0]


def _difference(step: Gradients, golden: Gradients, rtol: float) -> str | None:
    """Describe the difference between the gradients of two steps, and its likely cause."""
    if step.norms is None or golden.norms is None:
        return (
            _samples(step, golden)
            if step.norms is golden.norms
            else f"{_have(step)} where the golden run has {_have(golden)}"
        )
    if len(step.norms) != len(golden.norms):
        return f"{_have(step)} where the golden run has {_have(golden)}"
    scale = max(map(abs, golden.norms), default=0.0) * SHORT_GRADIENT_SHARE
    pairs = list(zip(step.norms, golden.norms, strict=True))
    wrong = [
        (norm, expected) for norm, expected in pairs if not _close(norm, expected, rtol, scale)
    ]
    if not wrong:
        return None
    return "; ".join(
        filter(
            None,
            (
                _samples(step, golden),
                _scale(wrong, len(pairs), rtol),
                _leftover(step, golden, wrong, len(pairs)),
            ),
        )
    )


def _close(norm: float, expected: float, rtol: float, scale: float) -> bool:
    if math.isnan(norm) or math.isnan(expected):
        return math.isnan(norm) and math.isnan(expected)
    return norm == expected or abs(norm - expected) <= rtol * max(abs(expected), scale)


def _scale(wrong: Sequence[tuple[float, float]], count: int, rtol: float) -> str:
    ratios = [norm / expected if expected else math.inf for norm, expected in wrong]
    if any(map(math.isnan, ratios)):
        return "some gradients are NaN"
    if (
        len(wrong) == count
        and max(ratios) - min(ratios) <= rtol * max(ratios)
        and max(ratios) < math.inf
    ):
        times = round(ratios[0])
        weights = (
            f" (the losses of its parts may need a weight: loss / {times})"
            if times > 1 and abs(ratios[0] - times) < 0.1
            else ""
        )
        return f"the scale of the gradient is {ratios[0]:.3g} times that of the golden run{weights}"
    lengths = (
        f"{min(ratios):.3g}"
        if max(ratios) - min(ratios) < 0.005
        else f"{min(ratios):.3g} to {max(ratios):.3g}"
    )
    return f"the gradients of {len(wrong)} of {count} parameters are {lengths} times as long as in the golden run"


def _leftover(
    step: Gradients, golden: Gradients, wrong: Sequence[tuple[float, float]], count: int
) -> str:
    """Describe gradients that are left over.

    A failure half-way makes some gradients too long, or all in different ratios.
    """
    ratios = [norm / expected for norm, expected in wrong if expected]
    alike = len(wrong) == count and bool(ratios) and max(ratios) - min(ratios) < 0.01
    if step.samples < golden.samples or not ratios or min(ratios) < 1 or alike:
        return ""
    return "gradients of a failed attempt may be left over, or samples counted twice"


def _samples(step: Gradients, golden: Gradients) -> str | None:
    if step.samples == golden.samples:
        return None
    if step.samples < golden.samples:
        return f"{step.samples} samples instead of {golden.samples}: some are missing"
    return f"{step.samples} samples instead of {golden.samples}: some are counted twice"


def _have(step: Gradients) -> str:
    count = 0 if step.norms is None else len(step.norms)
    return f"{count or 'no'} parameter{'' if count == 1 else 's'} with a gradient"
