"""Add noise to images: Gaussian, shot, impulse and speckle noise.

In this folder, a corruption is a function of ``images`` (float32, [n, height, width, channels],
which it may overwrite), ``top`` (the value of white, with black at 0), the constants of a severity,
and one random generator per image. It returns images of the same shape. The caller clips values
outside 0 to ``top``.

Some have a faster function for 8-bit images. It takes ``images`` (uint8, which it must not change),
``fresh`` (an array of the same shape for the result), the constants, and the generators.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "gaussian_noise",
    "impulse_noise",
    "impulse_noise_8bit",
    "normals",
    "shot_noise",
    "speckle_noise",
    "words",
]

LEVELS = 255
"""The number of brightness steps in the tables of shot noise. The rest between two steps is added
exactly.
"""
CELLS = 1024
"""The number of equal parts of the probabilities, to look most counts up at once."""
UNCLEAR = 65535
"""Marks a cell with several counts. No count in the tables is as large."""


def words(rng: np.random.Generator, count: int) -> Any:
    """Return independent, uniform 16-bit words."""
    import numpy as np

    return np.asarray(rng.bit_generator.random_raw(-(-count // 4)), dtype="<u8").view("<u2")[:count]


@functools.lru_cache(maxsize=16)
def _quantiles(scale: float, mean: float) -> Any:
    """Return the 65,536 equally probable values of a normal variable, the middles of its quantiles."""
    import numpy as np

    return _unit_quantiles() * np.float32(scale) + np.float32(mean)


@functools.cache
def _unit_quantiles() -> Any:
    import statistics

    import numpy as np

    normal = statistics.NormalDist()
    half = np.array([normal.inv_cdf((step + 0.5) / 65536) for step in range(32768, 65536)])
    half /= np.sqrt(np.mean(half**2))
    return np.concatenate([-half[::-1], half]).astype(np.float32)


def normals(
    rng: np.random.Generator, shape: tuple[int, ...], scale: float = 1.0, mean: float = 0.0
) -> Any:
    """Return normal numbers of this deviation and mean, to 16 bits of their distribution."""
    return _quantiles(scale, mean).take(words(rng, math.prod(shape)), mode="wrap").reshape(shape)


def _noise(
    shape: tuple[int, ...], rngs: Sequence[Any], draw: Callable[[Any, tuple[int, ...]], Any]
) -> Any:
    import numpy as np

    if len(rngs) == 1:
        return draw(rngs[0], shape[1:])[None]
    return np.stack([draw(rng, shape[1:]) for rng in rngs])


def gaussian_noise(
    images: np.ndarray[Any, Any], top: float, scale: float, rngs: Sequence[Any]
) -> Any:
    """Add normal noise with this standard deviation, relative to the value of white."""
    images += _noise(images.shape, rngs, lambda rng, shape: normals(rng, shape, scale * top))
    return images


def speckle_noise(
    images: np.ndarray[Any, Any], top: float, scale: float, rngs: Sequence[Any]
) -> Any:
    """Add normal noise in proportion to the brightness."""
    noise = _noise(images.shape, rngs, lambda rng, shape: normals(rng, shape, scale))
    noise += 1
    images *= noise
    return images


def impulse_noise(
    images: np.ndarray[Any, Any], top: float, amount: float, rngs: Sequence[Any]
) -> Any:
    """Set this share of the values to white or black, with equal probability."""
    import numpy as np

    for image, rng in zip(images, rngs, strict=True):
        hit, white = _impulses(image.shape, amount, rng)
        np.copyto(image, 0, where=hit)
        np.copyto(image, top, where=white)
    return images


def _impulses(shape: tuple[int, ...], amount: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return which values are changed, and which of these become white."""
    drawn = words(rng, math.prod(shape)).reshape(shape)
    return drawn < round(amount * 65536), drawn < round(amount * 32768)


def impulse_noise_8bit(
    images: np.ndarray[Any, Any], fresh: np.ndarray[Any, Any], amount: float, rngs: Sequence[Any]
) -> None:
    """Do the same for 8-bit images, in which white is 255."""
    import numpy as np

    for image, changed, rng in zip(images, fresh, rngs, strict=True):
        hit, white = (mask.view(np.uint8) for mask in _impulses(image.shape, amount, rng))
        hit -= 1  # 0 for a changed value, else 255
        hit &= image
        np.subtract(hit, white, out=changed)  # 255 for a white value


@functools.lru_cache(maxsize=8)
def _poisson_tables(photons: float) -> tuple[Any, Any]:
    """Return the distribution of photon counts for each brightness step, and the count of each
    probability cell.

    They are [LEVELS + 1, counts] and [LEVELS + 1, CELLS]. A cell with several counts is marked as
    unclear.
    """
    import numpy as np

    counts = np.arange(int(photons + 12 * math.sqrt(photons) + 30))
    rates = photons * np.arange(LEVELS + 1)[:, None] / LEVELS
    factorials = np.array([math.lgamma(count + 1) for count in counts])
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(counts == 0, 0.0, counts * np.log(rates)) - rates - factorials
    below = np.cumsum(np.exp(logs), axis=1)
    edges = np.arange(CELLS + 1) / CELLS
    at_edge = np.stack([np.searchsorted(row, edges, side="right") for row in below])
    first, last = (
        at_edge[:, :-1],
        np.stack([np.searchsorted(row, edges[1:], side="left") for row in below]),
    )
    return below, np.where(first == last, first, UNCLEAR).astype(np.uint16)


def _photons(levels: Any, photons: float, rng: np.random.Generator) -> Any:
    """Return a Poisson count for each brightness step, by the inverse of its distribution function."""
    import numpy as np

    below, cells = _poisson_tables(photons)
    cell = words(rng, levels.size) & (CELLS - 1)
    counts = cells.ravel().take(levels * np.int32(CELLS) + cell)
    unclear = np.flatnonzero(counts == UNCLEAR)
    exact = (cell[unclear] + rng.random(len(unclear))) / CELLS
    counts[unclear] = (exact[:, None] >= below[levels[unclear]]).sum(axis=1)
    return counts


def shot_noise(
    images: np.ndarray[Any, Any], top: float, photons: float, rngs: Sequence[Any]
) -> Any:
    """Replace values by photon counts. ``photons`` is the mean count for white."""
    import numpy as np

    for image, rng in zip(images, rngs, strict=True):
        flat = image.reshape(-1) * np.float32(LEVELS / top)
        levels = (flat + np.float32(1e-3)).astype(np.int32)
        counts = _photons(levels, photons, rng)
        rest = flat - levels
        if rest.max(initial=0) > 2e-3:
            # Poisson counts add up, so the rest between two steps is added.
            counts = counts + rng.poisson(np.maximum(rest, 0) * (photons / LEVELS))
        np.multiply(counts, top / photons, out=image.reshape(-1), casting="unsafe")
    return images
