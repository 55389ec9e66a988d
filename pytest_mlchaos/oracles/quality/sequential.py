"""Test paired differences one after the other, as often as you like.

A gambler starts with a capital of 1 and bets on each next difference being positive. If the mean is
not positive, the capital is a supermartingale, so by Ville's inequality it ever reaches 1 / alpha
with probability alpha at most. That holds for any number of looks and any rule to stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["capital", "fewest_pairs", "pairs_to_decide"]

STAKE = 0.85
"""The largest share of the capital that a bet can lose. With 0.85, five consistent pairs are enough
for alpha = 0.05, as in the test with a fixed number."""
SIMULATIONS = 100
MOST_PAIRS = 1_000


def capital(values: Sequence[float], *, strict: bool) -> float:
    """Return the largest capital so far after bets on positive values.

    For values that are symmetric about a mean of 0 or less (below 0 if ``strict``), it reaches
    ``1 / alpha`` with probability ``alpha`` at most. If ``strict``, a value of 0 counts as positive
    while all earlier ones are equal: "worse by exactly the margin" is not worse by more than it.

    Source: Ville (1939). Ramdas et al. (2020), "Admissible anytime-valid sequential inference must
    rely on nonnegative martingales". The bet ``1 + c tanh(v x)`` is monotone in ``x``, and fair for
    a symmetric ``x``.
    """
    rows = _capitals([list(values)], strict=strict)
    return float(rows[0].max()) if len(values) else 1.0


def fewest_pairs(alpha: float) -> int:
    """Return the number of pairs that is enough if all of them agree."""
    return math.ceil(math.log(1 / alpha) / math.log1p(STAKE))


def pairs_to_decide(values: Sequence[float], alpha: float, *, most: int = MOST_PAIRS) -> int | None:
    """Return about how many pairs reach ``1 / alpha`` in total, with a probability of 80 %.

    It simulates further pairs, drawn from the ones so far. Return None if ``most`` would not do.
    """
    import numpy as np

    seen = np.array(values, float)
    if len(seen) < 2:
        return None
    # The mean of few pairs is itself uncertain, and this gives the likeliest number only.
    drawn = np.random.default_rng(0).choice(seen, (SIMULATIONS, most - len(seen)))
    rows = _capitals(np.concatenate([np.tile(seen, (SIMULATIONS, 1)), drawn], axis=1), strict=True)
    reached = np.maximum.accumulate(rows, axis=1) >= 1 / alpha
    enough = np.flatnonzero(reached.mean(0) >= 0.8)
    return int(enough[0]) + 1 if len(enough) else None


def _capitals(rows: Any, *, strict: bool) -> Any:
    """Return the capital after each value, for each row."""
    import numpy as np

    values = np.atleast_2d(np.asarray(rows, float))
    if not values.shape[1]:
        return np.ones((len(values), 0))
    counts = np.arange(1, values.shape[1] + 1)
    means = np.cumsum(values, axis=1) / counts
    squares = np.cumsum(values**2, axis=1) / counts
    # The spread is shrunk towards that of the first values, which say little about it.
    spread = np.clip(squares - means**2, 0, None) + 0.25 * squares / counts
    with np.errstate(divide="ignore", invalid="ignore"):
        # This is the slope of the likelihood ratio of normal values with means m and -m.
        after = np.where(means > 0, means / spread, 0.0)
    equal = np.maximum.accumulate(values, axis=1) == np.minimum.accumulate(values, axis=1)
    after[equal & (means >= 0)] = np.inf
    slope = np.concatenate([np.full((len(values), 1), np.inf), after[:, :-1]], axis=1)
    with np.errstate(invalid="ignore"):
        bet = np.tanh(np.nan_to_num(slope * values, nan=0.0, posinf=np.inf, neginf=-np.inf))
    if strict:
        bet = np.where(np.isinf(slope) & (values == 0), 1.0, bet)
    return np.exp(np.cumsum(np.log1p(STAKE * bet), axis=1))
