"""Compare the scores of each group with how often the positive class occurs in it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

from .columns import Groups
from .gaps import Gap, Shown
from .measures import Shares

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["Cells", "cells_of", "largest_miscalibration"]


@dataclasses.dataclass(frozen=True)
class Cells(Shares):
    """The shares of positives in the bins of each group, and the mean scores there.

    Attributes:
        scores: The mean score of each cell.
        groups: The number of the group of each cell.
    """

    scores: Any = None
    groups: Any = None


def cells_of(positive: Array, scores: Array, groups: Groups, bins: int) -> Cells:
    """Divide each group into bins of about equal size, by its scores. Equal scores stay together."""
    import numpy as np

    events, sizes, means, owners = [], [], [], []
    for number, members in enumerate(groups.members()):
        own = scores[members]
        ends = np.arange(1, bins) * len(own) // bins
        edges = np.unique(np.partition(own, ends)[ends])
        places = np.searchsorted(edges, own, side="right")
        count = np.bincount(places)
        used = count > 0
        sizes.append(count[used])
        events.append(np.bincount(places, weights=positive[members])[used])
        means.append(np.bincount(places, weights=own)[used] / count[used])
        owners.append(np.full(int(used.sum()), number))
    return Cells(
        "share of positives",
        np.concatenate(events),
        np.concatenate(sizes).astype(float),
        scores=np.concatenate(means),
        groups=np.concatenate(owners),
    )


def largest_miscalibration(cells: Cells, confidence: float) -> Gap:
    """Return the largest distance between the mean score and the share of positives of a cell.

    The labels of a cell have different probabilities. Their sum varies less than a binomial number
    with the same mean, so its bounds hold (Hoeffding, 1956).
    """
    import numpy as np

    doubt = 1 - confidence
    strict = cells.bounds(doubt / (2 * len(cells.sizes)))
    low = np.maximum(strict.low - cells.scores, cells.scores - strict.high)
    wide = cells.bounds(doubt)
    high = np.maximum(wide.high - cells.scores, cells.scores - wide.low)
    gaps = np.abs(wide.estimate - cells.scores)
    place = int(gaps.argmax())
    return Gap(
        float(gaps[place]),
        max(float(low.max()), 0.0),
        float(high.max()),
        Shown(cells, place, place),
    )
