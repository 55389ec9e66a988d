"""Judge whether a run accounted for the privacy that it spent, over all of its attempts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..core.privacy import error_text
from ..core.records import Accounted, PrivateStep
from ..errors import BadArgument, BudgetExceeded, Inconclusive, NotAccounted

__all__ = ["check_privacy_budget"]

RELATIVE_TOLERANCE = 0.01
ABSOLUTE_TOLERANCE = 0.011
"""Numerical accountants state epsilon up to an error of this size."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Spent:
    """The steps that count.

    Attributes:
        steps: The steps.
        lost: The number of noisy steps that were taken in all, and are not among them.
        unplaced: The number of an attempt that began with parameters that no earlier step had left.
    """

    steps: Sequence[PrivateStep]
    lost: int = 0
    unplaced: int | None = None

    @property
    def noisy(self) -> int:
        return sum(step.noise > 0 for step in self.steps)


def check_privacy_budget(
    attempts: Sequence[Sequence[PrivateStep]],
    accounted: Accounted | None,
    golden: Sequence[PrivateStep],
    golden_accounted: Accounted | None,
    *,
    epsilon: float,
    delta: float,
    reported: float | None,
    count_lost: bool,
) -> None:
    """Raise a verdict unless the noisy steps of all attempts are accounted, and within the budget.

    Args:
        attempts: The steps of each attempt.
        accounted: What the last attempt's accountant holds.
        golden: The steps of the golden run.
        golden_accounted: What its accountant holds.
        epsilon: The budget.
        delta: The probability that goes with it.
        reported: The epsilon that the run reports, or None to ask its accountant.
        count_lost: True to count steps whose result a crash has lost.
    """
    if not any(step.noise > 0 for step in golden):
        raise BadArgument(
            "assert_privacy_budget has nothing to judge: no optimizer step of the golden run adds "
            "noise. A private optimizer, or the object whose method calls it, has a positive "
            "noise_multiplier"
        )
    _check_noise("the golden run", golden, golden)
    _check_one(
        "the golden run, without any fault,",
        _Spent(golden),
        golden_accounted,
        epsilon,
        delta,
        None,
        golden_accounted,
    )
    taken = [step for attempt in attempts for step in attempt]
    _check_noise("the run", taken, golden)
    spent = _spent(attempts, count_lost=count_lost)
    _check_one("the run", spent, accounted, epsilon, delta, reported, golden_accounted)


def _check_noise(who: str, steps: Sequence[PrivateStep], golden: Sequence[PrivateStep]) -> None:
    """Raise a verdict if steps add less noise than the golden run's."""
    plain = sum(step.noise == 0 for step in steps)
    if plain and all(step.noise > 0 for step in golden):
        raise NotAccounted(
            f"{plain} of {len(steps)} optimizer steps of {who} added no noise, and every step of the golden "
            f"run does. The parameters are not private at all"
        )
    least = min(step.noise for step in golden if step.noise > 0)
    if weak := [step.noise for step in steps if 0 < step.noise < least]:
        raise NotAccounted(
            f"{len(weak)} optimizer steps of {who} added less noise than any of the golden run: "
            f"noise multiplier {min(weak):g} instead of {least:g}"
        )


def _spent(attempts: Sequence[Sequence[PrivateStep]], *, count_lost: bool) -> _Spent:
    """Return the steps that the final parameters have gone through, or all steps.

    An attempt continues from the step that left the parameters with which it begins.
    """
    taken = [step for attempt in attempts for step in attempt]
    if count_lost:
        return _Spent(taken)
    end: _Node | None = None
    known: dict[bytes, _Node | None] = {}
    for number, steps in enumerate(attempts):
        if not steps:
            continue
        start = steps[0].before
        if known and start not in known:
            return _Spent(taken, unplaced=number + 1)
        end = known.setdefault(start, None)
        for step in steps:
            end = known[step.after] = _Node(step, end)
    chain: list[PrivateStep] = []
    while end is not None:
        chain.append(end.step)
        end = end.previous
    noisy = sum(step.noise > 0 for step in taken)
    return _Spent(chain, lost=noisy - sum(step.noise > 0 for step in chain))


@dataclasses.dataclass(frozen=True, slots=True)
class _Node:
    step: PrivateStep
    previous: _Node | None


def _check_one(
    who: str,
    spent: _Spent,
    accounted: Accounted | None,
    epsilon: float,
    delta: float,
    reported: float | None,
    known: Accounted | None,
) -> None:
    kind = accounted or known
    if kind is None:
        raise Inconclusive(
            f"{who} took {spent.noisy} noisy optimizer steps, and no accountant was found. An "
            f"accountant has a method get_epsilon(delta) and a list history of (noise multiplier, "
            f"sample rate, number of steps). The optimizer, or a caller of its step, must hold it"
        )
    needed = _epsilon(kind, _history(spent.steps, kind), delta)
    told = _steps(spent)
    holds = accounted.steps if accounted is not None else 0
    claimed = reported
    if claimed is None:
        claimed = _epsilon(kind, accounted.history, delta) if holds and accounted else 0.0
    story = f"It reports epsilon = {claimed:.2f} where {needed:.2f} was spent (delta = {delta:g})"
    if claimed < needed * (1 - RELATIVE_TOLERANCE) - ABSOLUTE_TOLERANCE:
        if spent.unplaced is not None and reported is None and holds:
            raise Inconclusive(
                f"attempt {spent.unplaced} of {who} begins with parameters that no earlier step "
                f"has left, so the noisy steps before it cannot be placed. If they count: its "
                f"accountant holds {holds} of {told}. {story}"
            )
        held = (
            f"the accountant of {who} holds {holds} of {told}"
            if reported is None
            else (f"{who} took {told}")
        )
        raise NotAccounted(f"{held}. {story}{_cause(holds, spent, reported)}")
    if needed > epsilon * (1 + RELATIVE_TOLERANCE):
        raise BudgetExceeded(
            f"{who} spent epsilon = {needed:.2f} with {told}, and the budget is {epsilon:g} (delta = "
            f"{delta:g})"
        )


def _steps(spent: _Spent) -> str:
    lost = f" ({spent.lost} more were taken, and a crash lost their result)" if spent.lost else ""
    return f"{spent.noisy} noisy optimizer step{'' if spent.noisy == 1 else 's'}{lost}"


def _cause(holds: int, spent: _Spent, reported: float | None) -> str:
    if reported is not None or not holds or holds >= spent.noisy:
        return ""
    return (
        ". A restart that loads the parameters must load the accountant's state, too, from the same "
        "checkpoint"
    )


def _history(steps: Sequence[PrivateStep], kind: Accounted) -> list[tuple[float, float, int]]:
    """Return the entries that an accountant should hold for these steps."""
    rates = [step.rate for step in steps if step.rate is not None]
    usual = rates[0] if rates else (kind.history[-1][1] if kind.history else None)
    if usual is None:
        raise Inconclusive(
            "the noisy optimizer steps are known, but no accountant was ever told a sample rate, "
            "so the epsilon that was spent cannot be computed"
        )
    counts = Counter(
        (step.noise, usual if step.rate is None else step.rate) for step in steps if step.noise > 0
    )
    return [(noise, rate, number) for (noise, rate), number in counts.items()]


def _epsilon(kind: Accounted, history: Sequence[tuple[float, float, int]], delta: float) -> float:
    """Let a new accountant of the run's class compute epsilon."""
    try:
        accountant: Any = kind.kind()
        accountant.history = list(history)
        return float(accountant.get_epsilon(delta))
    except Exception as error:
        raise BadArgument(
            f"assert_privacy_budget: the accountant {kind.kind.__qualname__} cannot compute "
            f"epsilon: {error_text(error)}"
        ) from error
