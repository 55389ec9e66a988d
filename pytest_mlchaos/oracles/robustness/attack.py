"""Define the settings of an attack, and the errors of models that cannot be attacked."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...core.validation import format_value, index, is_real, parse_bounds
from ...errors import BadArgument

__all__ = ["DEFAULT_STEPS", "METHODS", "NORMS", "WHITE_BOX", "Attack", "make_attack"]

WHITE_BOX = ("fgsm", "pgd")
METHODS = (*WHITE_BOX, "boundary")
NORMS = ("inf", "2")
DEFAULT_STEPS = 10
STEP_SHARE = 2.5
"""The steps of PGD together are this many times as long as epsilon (Madry et al., 2018)."""
DEFAULT_QUERIES = 2_000
MOST_STEPS = 1_000_000
"""The most steps, and the most queries for each sample."""


@dataclasses.dataclass(frozen=True)
class Attack:
    """The settings of an attack.

    Attributes:
        method: ``"fgsm"``, ``"pgd"`` or ``"boundary"``.
        epsilon: The largest perturbation of one sample.
        norm: ``"inf"`` or ``"2"``: the norm that measures it.
        steps: The number of gradient steps.
        step_size: The length of one step.
        random_start: True to start from a random point within epsilon.
        targeted: The class that the attack aims at, or None to leave the right one.
        clip: The lowest and the highest value of an input, or None.
        queries: The number of queries for each sample, if gradients are not used.
    """

    method: str
    epsilon: float
    norm: str = "inf"
    steps: int = 1
    step_size: float = 0.0
    random_start: bool = False
    targeted: int | None = None
    clip: tuple[float, float] | None = None
    queries: int = DEFAULT_QUERIES

    @property
    def is_white_box(self) -> bool:
        """Return True if the attack needs gradients."""
        return self.method in WHITE_BOX


def make_attack(
    owner: str,
    method: str,
    epsilon: Any,
    norm: str = "inf",
    *,
    steps: Any = None,
    step_size: Any = None,
    random_start: Any = None,
    targeted: Any = None,
    clip: Any = None,
    queries: Any = None,
) -> Attack:
    """Return the settings of an attack. Refuse those that do not fit its method.

    Raises:
        BadArgument: A setting is wrong.
    """
    if method not in METHODS:
        raise BadArgument(
            f"{owner}: method must be {', '.join(map(repr, METHODS))}, got {format_value(method)}"
        )
    if norm not in NORMS:
        raise BadArgument(f"{owner}: norm must be 'inf' or '2', got {format_value(norm)}")
    if not is_real(epsilon) or epsilon <= 0:
        raise BadArgument(f"{owner}: epsilon must be a number above 0, got {format_value(epsilon)}")
    given = {"steps": steps, "step_size": step_size, "random_start": random_start}
    for name, value in given.items():
        if value is not None and method != "pgd":
            raise BadArgument(f"{owner}: {name}= needs method='pgd', got method={method!r}")
    if queries is not None and method != "boundary":
        raise BadArgument(f"{owner}: queries= needs method='boundary', got method={method!r}")
    for name, value in (("steps", steps), ("queries", queries)):
        if value is not None and not 1 <= (index(value) or 0) <= MOST_STEPS:
            raise BadArgument(
                f"{owner}: {name} must be 1 or more, and at most {MOST_STEPS:,}, got "
                f"{format_value(value)}"
            )
    if step_size is not None and (not is_real(step_size) or step_size <= 0):
        raise BadArgument(
            f"{owner}: step_size must be a number above 0, got {format_value(step_size)}"
        )
    if targeted is not None and (index(targeted) is None or targeted < 0):
        raise BadArgument(
            f"{owner}: targeted must be the number of a class (0, 1, ...), got "
            f"{format_value(targeted)}"
        )
    clip = parse_bounds(
        clip, f"{owner}: clip must be the lowest and the highest value of the input"
    )
    queries = queries or DEFAULT_QUERIES
    if method != "pgd":
        return Attack(method, epsilon, norm, 1, epsilon, False, targeted, clip, queries)
    steps = DEFAULT_STEPS if steps is None else steps
    step_size = STEP_SHARE * epsilon / steps if step_size is None else step_size
    start = True if random_start is None else bool(random_start)
    return Attack(method, epsilon, norm, steps, step_size, start, targeted, clip, queries)
