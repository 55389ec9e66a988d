"""Judge whether records that an attacker reconstructed are those of the training data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.recording import oracle
from ...errors import BadArgument, Inconclusive, Leaks
from ..binomial import requests_to_decide
from ..confidence import check_confidence
from ..intervals import Interval, clopper_pearson
from .inputs import check_share_limit, records_of

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
    For images and texts, give embeddings instead. Reconstructions
    that are nearest to the same record count as one cluster.

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
    nearest, effective, share = _share_private(found, inside, outside, confidence)
    text = (
        f"{nearest:,} of {len(found):,} reconstructions are nearest to a private record "
        f"({share.estimate:.3g}, bounds at {100 * confidence:g} %: {share.low:.3g} to "
        f"{share.high:.3g}), where chance is {limit - at_most:.3g} and the limit {limit:.3g}"
    )
    if share.low > limit:
        raise Leaks(text)
    if share.high > limit:
        total = max(1, round(effective))
        needed = requests_to_decide(round(share.estimate * total), total, limit, confidence)
        needed = needed and round(needed * len(found) / effective)
        advice = (
            f"About {needed:,} reconstructions, of different records, would probably do"
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
    gaps, _ = _distances(inside[: min(len(inside), 200)], outside)
    noise = PLANTED_NOISE * math.sqrt(float(np.median(gaps)) / inside.shape[1])
    drawn = inside[np.arange(size) % len(inside)]
    planted = drawn + noise * rng.normal(size=drawn.shape)
    nearest, _, share = _share_private(planted, inside, outside, confidence)
    if share.low <= limit:
        raise Inconclusive(
            f"private records with a little noise are not recognised either ({nearest:,} of "
            f"{size:,}), so that the reconstructions are not says nothing. Give more "
            f"reconstructions, and remove records that are both private and public"
        )


def _share_private(
    found: Array, inside: Array, outside: Array, confidence: float
) -> tuple[int, float, Interval]:
    """Return how many reconstructions are nearest to a private record, their effective number, and
    the share.

    Some records are the nearest one of many reconstructions, which then are private or public
    together. So the number of reconstructions counts less by the design effect of such clusters
    (Kish, 1965).
    """
    import numpy as np

    one, nearest = _distances(found, inside)
    other, nearest_public = _distances(found, outside)
    ties = np.isclose(one, other, rtol=1e-9, atol=1e-12)
    # Ties count as half, by turns.
    private = np.where(ties, np.arange(len(found)) % 2 == 0, one < other)
    owners = np.where(private, nearest, len(inside) + nearest_public)
    clusters = np.bincount(owners).astype(float)
    effective = clusters.sum() ** 2 / (clusters**2).sum()
    share = float(private.mean())
    return (
        int(private.sum()),
        float(effective),
        clopper_pearson(share * effective, effective, 2 * confidence - 1),
    )


def _distances(records: Array, others: Array) -> tuple[Any, Any]:
    """Return the squared distance of each record to the nearest of the others, and its position."""
    import numpy as np

    lengths = (others**2).sum(1)
    found, places = [], []
    for part in np.array_split(records, 1 + len(records) * len(others) // MOST_DISTANCES):
        squared = lengths - 2 * part @ others.T + (part**2).sum(1)[:, None]
        place = squared.argmin(1)
        found.append(squared[np.arange(len(part)), place])
        places.append(place)
    return np.maximum(np.concatenate(found), 0.0), np.concatenate(places)
