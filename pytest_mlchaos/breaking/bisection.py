"""Find the level at which a subject breaks, from trials whose outcome may be noisy.

The levels are in order of strength. A subject survives the levels below its breaking point in more
than half of the trials, and those from there on in less. For each place where that point may be,
bets are made on outcomes that would be unlikely if it were there. If it is there, the wealth of
these bets is a supermartingale: the probability that it ever reaches 1 / alpha is at most alpha
(Ville's inequality). So a place can be ruled out as soon as that happens, after any number of
trials, whatever levels were tried. A bet depends on earlier trials alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

__all__ = ["Bisection", "Tried"]

PRIOR = 0.25
"""The weight of each outcome before any trial. A small one bets more after few equal outcomes."""
MOST_BET = 0.98
STAKES = {1.0: 0.5, 0.5: 0.25, 0.25: 0.25}
"""The shares of the wealth by how much of the full bet they bet. The full bet is best for a clear
outcome. It is too much for a subject that survives 70 % below its breaking point and 30 % above,
because the estimate that it is based on leaves out contrary trials."""
FIRST_TRIALS = 6
"""The number of trials that look for the middle alone."""
CREDENCE = 0.75
"""The probability of the likelier outcome, as the choice of the next level assumes it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """A trial.

    Attributes:
        level: The number of the level, from 0.
        survived: True if the subject survived it.
    """

    level: int
    survived: bool


@dataclasses.dataclass
class Bisection:
    """The trials so far, and where the breaking point may be.

    Attributes:
        levels: The number of levels.
        alpha: The largest probability that the breaking point is outside of the interval.
        is_noisy: False if equal trials have equal outcomes. Then one trial decides a level.
        tried: The trials.
    """

    levels: int
    alpha: float = 0.05
    is_noisy: bool = True
    tried: list[Tried] = dataclasses.field(default_factory=list)
    _wealth: list[list[float]] = dataclasses.field(init=False)
    _weight: list[float] = dataclasses.field(init=False)
    _alive: list[bool] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        # The place k says that exactly the first k levels are survived.
        self._wealth = [list(STAKES.values()) for _ in range(self.levels + 1)]
        self._weight = [0.0] * (self.levels + 1)
        self._alive = [True] * (self.levels + 1)

    def record(self, level: int, survived: bool) -> None:
        """Note the outcome of a trial."""
        edge = 2 * self._expected(level) - 1
        for place in range(self.levels + 1):
            unlikely = survived != (level < place)
            if not self.is_noisy:
                self._alive[place] &= not unlikely
                continue
            self._weight[place] += math.log(1 - CREDENCE if unlikely else CREDENCE)
            bet = min(MOST_BET, max(0.0, -edge if level < place else edge))
            wealth = self._wealth[place]
            for part, stake in enumerate(STAKES):
                wealth[part] *= 1 + stake * (bet if unlikely else -bet)
            if sum(wealth) * self.alpha >= 1:
                self._alive[place] = False
        self.tried.append(Tried(level, survived))

    def _expected(self, level: int) -> float:
        """Return the share of trials in which a level is survived, as earlier trials suggest.

        A stronger level that was survived speaks for it, and a weaker one that broke against it.
        """
        survived = sum(one.survived and one.level >= level for one in self.tried)
        broke = sum(not one.survived and one.level <= level for one in self.tried)
        return (survived + PRIOR) / (survived + broke + 2 * PRIOR)

    @property
    def places(self) -> Sequence[int]:
        """Return the numbers of survived levels that are not ruled out."""
        return [place for place, alive in enumerate(self._alive) if alive]

    @property
    def estimate(self) -> int:
        """Return the likeliest number of survived levels: the median of the weights."""
        return self._quantile(0.5)

    def next_level(self) -> int:
        """Return the level whose outcome tells most.

        It divides the likely places into halves. If the outcome is noisy, it goes in turn to the
        two sides of the middle, because an end of the interval moves by trials near that end.
        """
        places = self.places
        if self.is_noisy and len(self.tried) >= FIRST_TRIALS:
            turn = len(self.tried) % 3
            middle = self._quantile(0.5)
            wanted = (middle, (places[0] + middle) // 2, (middle + places[-1]) // 2)[turn]
        else:
            wanted = self._quantile(0.5)
        return min(max(wanted, places[0]), places[-1] - 1)

    def _quantile(self, share: float) -> int:
        """Return the place below which this share of the weight is.

        Places that are ruled out weigh nothing.
        """
        places = self.places
        most = max(self._weight[place] for place in places)
        weights = [math.exp(self._weight[place] - most) for place in places]
        wanted, total = sum(weights) * share, 0.0
        for place, weight in zip(places, weights, strict=True):
            total += weight
            if total >= wanted - 1e-12:
                return place
        return places[-1]
