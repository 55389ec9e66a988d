"""Blur images: Gaussian, defocus, glass, motion and zoom blur. See ``noise.py`` for the arguments."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "blur_along_line",
    "cv2",
    "defocus_blur",
    "defocus_blur_8bit",
    "gaussian",
    "gaussian_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "zoom_maps",
]


def cv2() -> Any:
    """Import OpenCV when it is needed."""
    import cv2 as opencv

    return opencv


def gaussian(
    image: np.ndarray[Any, Any],
    sigma: float,
    *,
    truncate: float = 4.0,
    border: str = "BORDER_REPLICATE",
) -> Any:
    """Return an image after a Gaussian filter that ends at this number of standard deviations."""
    size = 2 * int(truncate * sigma + 0.5) + 1
    return (
        cv2()
        .GaussianBlur(image, (size, size), sigmaX=sigma, borderType=getattr(cv2(), border))
        .reshape(image.shape)
    )


def gaussian_blur(
    images: np.ndarray[Any, Any], top: float, sigma: float, rngs: Sequence[Any]
) -> Any:
    """Apply a Gaussian filter with this standard deviation, in pixels."""
    for image in images:
        image[:] = gaussian(image, sigma)
    return images


@functools.cache
def _disk(radius: int, softness: float) -> Any:
    """Return a disk of this radius with a rim softened by a Gaussian, as a kernel of sum 1."""
    import numpy as np

    reach = np.arange(-8, 9) if radius <= 8 else np.arange(-radius, radius + 1)
    inside = (reach[:, None] ** 2 + reach[None] ** 2 <= radius**2).astype(np.float32)
    size = 3 if radius <= 8 else 5
    return cv2().GaussianBlur(inside / inside.sum(), (size, size), sigmaX=softness)


def defocus_blur(
    images: np.ndarray[Any, Any], top: float, lens: tuple[int, float], rngs: Sequence[Any]
) -> Any:
    """Imitate a lens out of focus: (radius in pixels, softness of the rim)."""
    kernel = _disk(*lens)
    for image in images:
        image[:] = cv2().filter2D(image, -1, kernel).reshape(image.shape)
    return images


def defocus_blur_8bit(
    images: np.ndarray[Any, Any],
    fresh: np.ndarray[Any, Any],
    lens: tuple[int, float],
    rngs: Sequence[Any],
) -> None:
    """Do the same for 8-bit images: sum small disks as integers, and soften them afterwards."""
    import numpy as np

    radius, softness = lens
    cut_off = 2**-10 - 0.5  # OpenCV rounds its results
    height, width, channels = images.shape[1:]
    rim = radius + 1
    room = np.empty((5, (height + 2 * rim) * (width + 2 * rim) * channels), np.uint16)
    for image, changed in zip(images, fresh, strict=True):
        if radius > 7:  # the softened rim is larger than the published kernel
            changed[:] = (
                cv2()
                .filter2D(image.astype(np.float32), cv2().CV_8U, _disk(*lens), delta=cut_off)
                .reshape(image.shape)
            )
            continue
        sums, count = _disk_sums(image, radius, room)
        soften = cv2().getGaussianKernel(3, softness, cv2().CV_32F)
        soft = cv2().sepFilter2D(
            sums.astype(np.float32), cv2().CV_8U, soften, soften / count, delta=cut_off
        )
        changed[:] = soft.reshape(sums.shape)[1:-1, 1:-1]


def _disk_sums(image: np.ndarray[Any, Any], radius: int, room: Any) -> tuple[Any, int]:
    """Return the sums of all values within a radius (2 to 7) for each pixel and a rim of one pixel.

    Also return the number of values in a sum. All values are in one line, in which a step down is a
    shift by a row. Columns of the disk grow by two pixels at a time and are summed. The highest
    columns are summed at once, without their ends. ``room`` is scratch space, uint16 [5, values of
    the image with its borders].
    """
    import numpy as np

    rim = radius + 1
    wide = cv2().copyMakeBorder(image, rim, rim, rim, rim, cv2().BORDER_REFLECT_101)
    row, step, rows = wide[0].size, image.shape[-1], image.shape[0] + 2
    length = rows * row - 2 * radius * step
    single, pairs, _, column, total = room
    single[:] = wide.reshape(-1)
    whole, total = total[: rows * row].reshape(rows, -1, step), total[:length]

    def at(values: np.ndarray[Any, Any], down: int, right: int) -> Any:
        """Return the values at an offset from the upper left corner of the disk's square."""
        return values[down * row + right * step :][:length]

    np.add(at(single, 0, radius), at(single, 2 * radius, radius), out=total)
    total += at(single, radius, 0)
    total += at(single, radius, 2 * radius)
    heights = [math.isqrt(radius**2 - right**2) for right in range(radius + 1)]
    # half the height of the second columns from outside, and half the width of the highest ones
    narrow = math.isqrt(2 * radius - 1)
    _sum_up(_runs(single, row, 2 * narrow + 1, room[1:3]), column)
    for height in range(narrow, radius):
        if height > narrow:
            more = pairs[(2 * height - 1) * row : -row]
            column[: len(more)] += more
        for right in range(narrow + 1, radius):
            if heights[right] == height:
                total += at(column, radius - height, radius - right)
                total += at(column, radius - height, radius + right)
    for part, shift in _runs(
        column[: len(single) - 2 * (radius - 1) * row], step, 2 * narrow + 1, room[1:3]
    ):
        total += at(part[shift:], 1, radius - narrow)
    return whole[:, : image.shape[1] + 2], sum(
        2 * height + 1 for height in heights[:0:-1] + heights
    )


def _runs(values: np.ndarray[Any, Any], step: int, length: int, room: Any) -> list[tuple[Any, int]]:
    """Return the sums over 1, 2, 4, ... values with shifts at which they add up to ``length``
    values.
    """
    import numpy as np

    runs, done, count = [], 0, 1
    for space in (*room, None):
        if length & count:
            runs.append((values, done * step))
            done += count
        if 2 * count > length or space is None:
            break
        end = len(values) - count * step
        values = np.add(values[:end], values[count * step :], out=space[:end])
        count *= 2
    return runs


def _sum_up(runs: list[tuple[Any, int]], total: Any) -> None:
    """Add the sums, from each index that has all of them."""
    import numpy as np

    end = min(len(values) - shift for values, shift in runs)
    np.add(runs[0][0][:end], runs[1][0][runs[1][1] :][:end], out=total[:end])
    for values, shift in runs[2:]:
        total[:end] += values[shift:][:end]


def _sources(height: int, width: int, reach: int, rng: np.random.Generator) -> Any:
    """Return for each pixel the pixel that provides its value.

    Pixels are visited from the last to the first, and each takes the current value of a random
    neighbour. The published code intends to swap the two, but copies, because its arrays are views.
    A neighbour that was visited before has its new value, so the chain is followed to a pixel that
    was not.
    """
    import numpy as np

    rows = np.arange(reach + 1, height - reach + 1)
    columns = np.arange(reach + 1, width - reach + 1)
    places = (rows[:, None] * width + columns).ravel()
    steps = rng.integers(-reach, reach, (2, len(places)))
    sources = np.arange(height * width)
    sources[places] = places + steps[0] * width + steps[1]
    visited = np.zeros(height * width, bool)
    visited[places] = True
    later = visited[sources] & (sources > np.arange(height * width))
    while later.any():  # each round doubles the followed length of the chains
        here = np.flatnonzero(later)
        there = sources[here]
        sources[here] = sources[there]
        later[here] = later[there]
    return sources


def glass_blur(
    images: np.ndarray[Any, Any], top: float, glass: tuple[float, int, int], rngs: Sequence[Any]
) -> Any:
    """Imitate frosted glass: (standard deviation of the blur, reach of the displaced pixels,
    rounds).
    """
    import numpy as np

    sigma, reach, rounds = glass
    height, width = images.shape[1:3]
    for image, rng in zip(images, rngs, strict=True):
        level = np.floor(gaussian(image, sigma) * (255 / top) + 1e-3).reshape(height * width, -1)
        for _ in range(rounds):
            level = level[_sources(height, width, reach, rng)]
        image[:] = gaussian(level.reshape(image.shape), sigma) * (top / 255)
    return images


def blur_along_line(image: np.ndarray[Any, Any], radius: int, sigma: float, angle: float) -> Any:
    """Return a picture [height, width, ...] from a moving camera.

    The blur is half a Gaussian along a line, in whole pixels. ``angle`` is in degrees.
    """
    import numpy as np

    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    turn = math.radians(angle)
    taps: dict[tuple[int, int], float] = {}
    for step, weight in enumerate(weights):
        tap = -math.ceil(step * math.sin(turn) - 0.5), -math.ceil(step * math.cos(turn) - 0.5)
        taps[tap] = taps.get(tap, 0.0) + float(weight)
    height, width = image.shape[:2]
    rim = 2 * radius
    wide = cv2().copyMakeBorder(image, rim, rim, rim, rim, cv2().BORDER_REPLICATE)
    blurred = np.zeros(wide[rim : rim + height, rim : rim + width].shape, np.float32)
    for (down, right), weight in taps.items():
        cv2().scaleAdd(
            wide[rim - down : rim - down + height, rim - right : rim - right + width],
            weight,
            blurred,
            blurred,
        )
    return blurred.reshape(image.shape)


def motion_blur(
    images: np.ndarray[Any, Any], top: float, motion: tuple[int, float], rngs: Sequence[Any]
) -> Any:
    """Move the camera up to 45 degrees off the horizontal: (radius, standard deviation), in pixels."""
    for image, rng in zip(images, rngs, strict=True):
        image[:] = blur_along_line(image, *motion, angle=rng.uniform(-45, 45))
    return images


@functools.lru_cache(maxsize=64)
def zoom_maps(height: int, width: int, zoom: float, centred: bool = True) -> tuple[Any, Any]:
    """Return for each pixel of a zoomed picture its position (x, y) in the original, float32
    [height, width].

    The middle part is stretched to at least the picture's size, corner on corner, and trimmed.
    """
    import numpy as np

    def line(size: int) -> Any:
        part = math.ceil(size / zoom)
        stretched = round(part * zoom)
        first = (size - part) // 2 if centred else 0
        trimmed = (stretched - size) // 2
        places = np.minimum(np.arange(size) + trimmed, stretched - 1)
        return first + places * ((part - 1) / max(stretched - 1, 1))

    x, y = np.meshgrid(line(width).astype(np.float32), line(height).astype(np.float32))
    return x, y


def zoom_blur(
    images: np.ndarray[Any, Any], top: float, zooms: tuple[float, float, float], rngs: Sequence[Any]
) -> Any:
    """Zoom the camera: the mean of pictures at the zooms (from, below, step)."""
    import numpy as np

    factors = np.arange(*zooms)
    height, width = images.shape[1:3]
    for image in images:
        total = image.copy()
        for factor in factors:
            x, y = zoom_maps(height, width, float(factor))
            total += (
                cv2()
                .remap(image, x, y, cv2().INTER_LINEAR, borderMode=cv2().BORDER_REPLICATE)
                .reshape(image.shape)
            )
        image[:] = total / (len(factors) + 1)
    return images
