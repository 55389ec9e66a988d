"""Add weather to images: snow, frost, fog and spatter. See ``noise.py`` for the arguments."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .blur import blur_along_line, cv2, gaussian, zoom_maps
from .noise import normals

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LUMA", "fog", "frost", "plasma", "snow", "spatter", "spatter_8bit"]

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in the brightness."""
FROSTS, FROST_SIZE = 6, 512
WATER, MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)


def _gray(image: np.ndarray[Any, Any]) -> Any:
    """Return the brightness of a picture: [height, width, 1]."""
    return image if image.shape[-1] == 1 else cv2().cvtColor(image, cv2().COLOR_RGB2GRAY)[..., None]


def _tint(plane: Any, color: tuple[float, float, float], channels: int) -> Any:
    """Return a picture of one colour with the brightness of the plane."""
    import numpy as np

    if channels == 1:
        return plane[..., None] * np.float32(np.dot(color, LUMA))
    return cv2().merge([plane * np.float32(part) for part in color])


def _flakes(height: int, width: int, constants: Sequence[float], rng: np.random.Generator) -> Any:
    """Return snow before a black sky, 0 to 1: enlarged noise above a threshold, blurred by its
    fall.
    """
    import numpy as np

    mean, spread, zoom, threshold, radius, sigma, _ = constants
    part = math.ceil(height / zoom), math.ceil(width / zoom)
    # Only the part that the zoom will show.
    noise = normals(rng, part) * np.float32(spread) + np.float32(mean)
    x, y = zoom_maps(height, width, zoom, centred=False)
    layer = cv2().remap(noise, x, y, cv2().INTER_LINEAR, borderMode=cv2().BORDER_REPLICATE)
    layer[layer < threshold] = 0
    np.minimum(layer, 1, out=layer)
    return blur_along_line(layer, int(radius), sigma, angle=rng.uniform(-135, -45))


def snow(
    images: np.ndarray[Any, Any], top: float, constants: Sequence[float], rngs: Sequence[Any]
) -> Any:
    """Add snow.

    The constants are the mean and spread of the noise, the zoom, the threshold, the radius and
    deviation of the motion blur, and the share of the picture that stays.
    """
    import numpy as np

    height, width = images.shape[1:3]
    kept = constants[6]
    for image, rng in zip(images, rngs, strict=True):
        layer = _flakes(height, width, constants, rng)
        whitened = _gray(image) * np.float32(1.5) + np.float32(0.5 * top)
        whitened = np.maximum(image, whitened)
        whitened *= 1 - kept
        image *= kept
        image += whitened
        image += ((layer + layer[::-1, ::-1]) * top)[..., None]
    return images


@functools.lru_cache(maxsize=FROSTS)
def _frost_texture(number: int) -> Any:
    """Return a synthetic picture of ice on glass, 0 to 1 [FROST_SIZE, FROST_SIZE, 3].

    Bluish needles branch around seeds. Needles are ridges of noise that is smooth along a direction
    and rough across it. Coarse noise sets the thickness of the ice.
    """
    import numpy as np

    rng = np.random.default_rng((1903, 12261, number))
    rim = 48  # a motion blur pulls the border inwards
    ice = np.zeros((FROST_SIZE + 2 * rim, FROST_SIZE + 2 * rim), np.float32)
    for _ in range(5):
        needles = blur_along_line(
            rng.standard_normal(ice.shape, dtype=np.float32), 24, 14.0, angle=rng.uniform(0, 180)
        )
        np.maximum(ice, np.abs(needles) / needles.std(), out=ice)
    thickness = gaussian(rng.standard_normal(ice.shape, dtype=np.float32), 28.0)
    thickness = 1 / (1 + np.exp(-1.5 * thickness / thickness.std()))
    grain = gaussian(rng.standard_normal(ice.shape, dtype=np.float32), 1.0)
    ice = (0.16 * ice + 0.55 * thickness + 0.08 * grain / grain.std())[rim:-rim, rim:-rim]
    # photographs of ice differ as much in brightness, and are as uneven
    bright = 0.46 + 0.36 * number / (FROSTS - 1)
    ice = bright + 0.13 * (ice - ice.mean()) / ice.std()
    return np.clip(ice[..., None] * np.array([0.9, 1.02, 1.08], np.float32), 0, 1).astype(
        np.float32
    )


def frost(
    images: np.ndarray[Any, Any], top: float, constants: tuple[float, float], rngs: Sequence[Any]
) -> Any:
    """Mix in a part of a picture of ice: (share of the picture, share of the ice)."""
    import numpy as np

    height, width, channels = images.shape[1:]
    scale = max(height, width) / FROST_SIZE
    for image, rng in zip(images, rngs, strict=True):
        ice = _frost_texture(int(rng.integers(FROSTS)))
        if scale > 0.9:
            ice = cv2().resize(
                ice, None, fx=scale * 1.1, fy=scale * 1.1, interpolation=cv2().INTER_CUBIC
            )
        row, column = (
            int(rng.integers(have - want))
            for have, want in zip(ice.shape, (height, width), strict=False)
        )
        piece = ice[row : row + height, column : column + width]
        piece = piece if channels == 3 else (piece @ np.array(LUMA, np.float32))[..., None]
        image *= constants[0]
        image += piece * np.float32(constants[1] * top)
    return images


def plasma(size: int, decay: float, rngs: Sequence[Any]) -> Any:
    """Return cloudy height maps, float32 [n, size, size], from 0 to 1. ``size`` is a power of two.

    In the diamond-square algorithm, the middle of each square and diamond gets the mean of its
    corners and a random height, which decays from each grid to the next finer one.
    """
    import numpy as np

    maps = np.zeros((len(rngs), size, size), np.float32)
    step, height = size, 100.0
    while step >= 2:
        half, cells = step // 2, size // step
        bumps = np.stack([rng.random((3, cells, cells), dtype=np.float32) for rng in rngs], axis=1)
        bumps = (bumps * 2 - 1) * np.float32(height * height)
        corners = maps[:, ::step, ::step]
        squares = corners + np.roll(corners, -1, axis=1)
        squares += np.roll(squares, -1, axis=2)
        middles = squares / 4 + bumps[0]
        across = middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=2)
        down = middles + np.roll(middles, 1, axis=2) + corners + np.roll(corners, -1, axis=1)
        maps[:, half::step, half::step] = middles
        maps[:, ::step, half::step] = across / 4 + bumps[1]
        maps[:, half::step, ::step] = down / 4 + bumps[2]
        step, height = half, height / decay
    maps -= maps.min(axis=(1, 2), keepdims=True)
    maps /= maps.max(axis=(1, 2), keepdims=True)
    return maps


def fog(
    images: np.ndarray[Any, Any], top: float, constants: tuple[float, float], rngs: Sequence[Any]
) -> Any:
    """Add clouds, and darken the result to the old brightness: (thickness, decay of the roughness)."""
    height, width = images.shape[1:3]
    thickness, decay = constants
    size = 1 << (max(height, width) - 1).bit_length()
    clouds = plasma(size, decay, rngs)[:, :height, :width, None]
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    images += clouds * (thickness * top)
    images *= brightest / (brightest + thickness * top)
    return images


def _water(liquid: Any) -> Any:
    """Return the light that water drops reflect, more at their lit rims, as uint16."""
    import numpy as np

    drops = (liquid * 255).astype(np.uint8)
    away = cv2().distanceTransform(255 - cv2().Canny(drops, 50, 150), cv2().DIST_L2, 5)
    away = cv2().blur(np.minimum(away, 20, out=away), (3, 3)).astype(np.uint8)
    lit = cv2().filter2D(
        cv2().equalizeHist(away),
        cv2().CV_8U,
        np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32),
    )
    return np.multiply(drops, cv2().blur(lit, (3, 3)), dtype=np.uint16)


def _liquid(height: int, width: int, constants: Sequence[float], rng: np.random.Generator) -> Any:
    """Return drops on the lens: smoothed noise above a threshold, else 0."""
    mean, spread, blur, threshold = constants[:4]
    noise = normals(rng, (height, width), spread, mean)
    return cv2().threshold(gaussian(noise, blur), threshold, 0, cv2().THRESH_TOZERO)[1]


def spatter(
    images: np.ndarray[Any, Any], top: float, constants: Sequence[float], rngs: Sequence[Any]
) -> Any:
    """Add drops on the lens.

    The constants are the mean, spread and blur of the noise, the threshold, the strength (for mud,
    its blur), and True for mud.
    """
    import numpy as np

    height, width, channels = images.shape[1:]
    *_, threshold, strength, mud = constants
    for image, rng in zip(images, rngs, strict=True):
        liquid = _liquid(height, width, constants, rng)
        if mud:
            cover = gaussian((liquid > threshold).astype(np.float32), strength)
            cover[cover < 0.8] = 0
            image *= _tint(1 - cover, (1, 1, 1), channels)
            image += _tint(cover * np.float32(top), MUD, channels)
        else:
            light = _water(liquid)
            image += _tint(
                light * np.float32(strength * top / max(light.max(), 1)), WATER, channels
            )
    return images


def spatter_8bit(
    images: np.ndarray[Any, Any],
    fresh: np.ndarray[Any, Any],
    constants: Sequence[float],
    rngs: Sequence[Any],
) -> None:
    """Do the same for 8-bit images: the light of water is added in whole steps."""
    import numpy as np

    height, width, channels = images.shape[1:]
    if constants[-1]:
        floats = spatter(images.astype(np.float32), 255, constants, rngs)
        fresh[:] = np.clip(floats + np.float32(2**-10), 0, 255)
        return
    colors = WATER if channels == 3 else (float(np.dot(WATER, LUMA)),)
    for image, changed, rng in zip(images, fresh, rngs, strict=True):
        light = _water(_liquid(height, width, constants, rng))
        brightest = constants[4] * 255 / max(int(light.max()), 1)
        steps = {
            color: cv2().convertScaleAbs(light, alpha=color * brightest, beta=2**-10 - 0.5)
            for color in set(colors)
        }
        changed[:] = (
            cv2().add(image, cv2().merge([steps[color] for color in colors])).reshape(image.shape)
        )
