"""Judge whether records that an attacker reconstructed are those of the training data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.recording import oracle
from ...errors import BadArgument, Inconclusive, Leaks
from ..binomial import requests_to_decide
from ..intervals import clopper_pearson
from .inputs import check_confidence, check_share_limit, records_of

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

__all__ = ["assert_no_inversion"]

OWNER = "assert_no_inversion"
MOST_DISTANCES = 4_000_000
PLANTED_NOISE = 0.1
"""The noise of a planted reconstruction, in distances between neighbouring records."""


@oracle
def assert_no_inversion(
    reconstructions: Any,
    private: Any,
    public: Any,
    *,
    at_most: float = 0.1,
    confidence: float = 0.95,
) -> None:
    """Pass only if reconstructions are shown to be no nearer to private records than to others.

    For each reconstruction, the nearest record is private or public. If the model gives nothing
    away, it is private by chance: with the share of private records among all. The excess over that
    share is judged.

    As a control, private records with a little noise take the place of the reconstructions. If
    these are not recognised, nothing is said about the attack.

    Args:
        reconstructions: The output of an attack, an array with one row for each. Images are taken
            as rows of pixels.
        private: Records of the training data.
        public: Records of the same distribution that were not in it. As many are best.
        at_most: The largest excess that would not matter: 0.1 for 60 % where chance is 50 %.
        confidence: The probability that a leak does not pass, and that chance is not called one.
            Above 0.5 and below 1.

    Raises:
        Leaks: Too many reconstructions are nearest to a private record.
        Inconclusive: There are too few reconstructions, or the control was not recognised.
        BadArgument: Records have different lengths, or values are not finite.

    Fidelity: distances are Euclidean, with each column scaled to the spread of the public records.
    For images and texts, give embeddings instead. Reconstructions are assumed to be independent.

    Source: Fredrikson et al. (2015) for the attack. The comparison with held-out records is that of
    the distance to the closest record, as used for synthetic data.
    """
    check_share_limit(OWNER, "at_most", at_most)
    check_confidence(OWNER, confidence)
    found = records_of(reconstructions, OWNER, "reconstructions")
    inside = records_of(private, OWNER, "private", found.shape[1])
    outside = records_of(public, OWNER, "public", found.shape[1])
    limit = len(inside) / (len(inside) + len(outside)) + at_most
    if limit >= 1:
        raise BadArgument(
            f"{OWNER}: public must have more records, because {len(inside)} private and "
            f"{len(outside)} public ones leave no room for at_most={at_most:g}"
        )
    centre, spread = outside.mean(0), outside.std(0)
    spread[spread == 0] = 1.0
    found, inside, outside = ((one - centre) / spread for one in (found, inside, outside))
    nearest = int(_are_private(found, inside, outside).sum())
    share = clopper_pearson(nearest, len(found), 2 * confidence - 1)
    text = (
        f"{nearest:,} of {len(found):,} reconstructions are nearest to a private record "
        f"({share.estimate:.3g}, bounds at {100 * confidence:g} %: {share.low:.3g} to "
        f"{share.high:.3g}), where chance is {limit - at_most:.3g} and the limit {limit:.3g}"
    )
    if share.low > limit:
        raise Leaks(text)
    if share.high > limit:
        needed = requests_to_decide(nearest, len(found), limit, confidence)
        advice = (
            f"About {needed:,} reconstructions would probably do"
            if needed
            else "The share is so close to the limit that no reasonable number would do"
        )
        raise Inconclusive(f"{text}. This shows neither a leak nor that there is none. {advice}")
    _check_control(inside, outside, limit, confidence, len(found))


def _check_control(
    inside: Array, outside: Array, limit: float, confidence: float, size: int
) -> None:
    """Raise ``Inconclusive`` if noisy private records are not recognised."""
    import numpy as np

    rng = np.random.default_rng(0)
    gaps = _distances(inside[: min(len(inside), 200)], outside)
    noise = PLANTED_NOISE * math.sqrt(float(np.median(gaps)) / inside.shape[1])
    drawn = inside[rng.integers(0, len(inside), size)]
    planted = drawn + noise * rng.normal(size=drawn.shape)
    nearest = int(_are_private(planted, inside, outside).sum())
    if clopper_pearson(nearest, size, 2 * confidence - 1).low <= limit:
        raise Inconclusive(
            f"private records with a little noise are not recognised either ({nearest:,} of "
            f"{size:,}), so that the reconstructions are not says nothing. Give more "
            f"reconstructions, and remove records that are both private and public"
        )


def _are_private(found: Array, inside: Array, outside: Array) -> Any:
    """Return which reconstructions are nearer to a private record. Ties count as half, by turns."""
    import numpy as np

    one, other = _distances(found, inside), _distances(found, outside)
    ties = np.isclose(one, other, rtol=1e-9, atol=1e-12)
    return np.where(ties, np.arange(len(found)) % 2 == 0, one < other)


def _distances(records: Array, others: Array) -> Any:
    """Return the squared distance of each record to the nearest of the others."""
    import numpy as np

    lengths = (others**2).sum(1)
    found = []
    for part in np.array_split(records, 1 + len(records) * len(others) // MOST_DISTANCES):
        squared = lengths - 2 * part @ others.T + (part**2).sum(1)[:, None]
        found.append(squared.min(1))
    return np.maximum(np.concatenate(found), 0.0)
