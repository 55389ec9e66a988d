"""List the 19 corruptions of ImageNet-C with their constants at severities 1 to 5 (for 224 × 224
pixels).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from . import blur as blur
from . import digital as digital
from . import noise as noise
from . import weather as weather

__all__ = ["KINDS", "Corruption"]


@dataclasses.dataclass(frozen=True, slots=True)
class Corruption:
    """One corruption: its function, and the constants of the five severities."""

    function: Callable[..., Any]
    severities: tuple[Any, ...]
    eight_bit: Callable[..., Any] | None = None
    """A faster function for 8-bit images with the same result.

    It takes (uint8 [n, height, width, channels], the array for the result, constants, generators).
    """
    opencv: bool = True
    """True if it needs OpenCV."""
    random: bool = True
    """True if it needs random generators. Else they are None."""


_ELASTIC = (
    (488, 170.8, 24.4),
    (488, 19.52, 48.8),
    (12.2, 2.44, 4.88),
    (17.08, 2.44, 4.88),
    (29.28, 2.44, 4.88),
)
"""In pixels of a side of 224. They scale with the image's size."""

KINDS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption(
        noise.gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), opencv=False
    ),
    "shot_noise": Corruption(noise.shot_noise, (60, 25, 12, 5, 3), opencv=False),
    "impulse_noise": Corruption(
        noise.impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27), noise.impulse_noise_8bit, opencv=False
    ),
    "speckle_noise": Corruption(noise.speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6), opencv=False),
    "defocus_blur": Corruption(
        blur.defocus_blur,
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        blur.defocus_blur_8bit,
        random=False,
    ),
    "glass_blur": Corruption(
        blur.glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    ),
    "motion_blur": Corruption(blur.motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": Corruption(
        blur.zoom_blur,
        ((1, 1.11, 0.01), (1, 1.16, 0.01), (1, 1.21, 0.02), (1, 1.26, 0.02), (1, 1.31, 0.03)),
        random=False,
    ),
    "gaussian_blur": Corruption(blur.gaussian_blur, (1, 2, 3, 4, 6), random=False),
    "snow": Corruption(
        weather.snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": Corruption(
        weather.frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
    ),
    "fog": Corruption(
        weather.fog, ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)), opencv=False
    ),
    "brightness": Corruption(
        digital.brightness, (0.1, 0.2, 0.3, 0.4, 0.5), opencv=False, random=False
    ),
    "contrast": Corruption(
        digital.contrast, (0.4, 0.3, 0.2, 0.1, 0.05), digital.contrast_8bit, random=False
    ),
    "saturate": Corruption(
        digital.saturate,
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        opencv=False,
        random=False,
    ),
    "elastic_transform": Corruption(
        digital.elastic_transform, tuple(tuple(part / 224 for part in level) for level in _ELASTIC)
    ),
    "pixelate": Corruption(
        digital.pixelate, (0.6, 0.5, 0.4, 0.3, 0.25), digital.pixelate_8bit, random=False
    ),
    "jpeg_compression": Corruption(
        digital.jpeg_compression, (25, 18, 15, 10, 7), digital.jpeg_compression_8bit, random=False
    ),
    "spatter": Corruption(
        weather.spatter,
        (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
        weather.spatter_8bit,
    ),
}
