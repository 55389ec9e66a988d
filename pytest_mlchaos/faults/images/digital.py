"""Change brightness, contrast, saturation, shape, resolution and JPEG quality. See ``noise.py`` for
the arguments.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .blur import cv2

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "brightness",
    "contrast",
    "contrast_8bit",
    "elastic_transform",
    "jpeg_compression",
    "jpeg_compression_8bit",
    "pixelate",
    "pixelate_8bit",
    "saturate",
    "smoothing",
]


def _brightest(images: np.ndarray[Any, Any]) -> Any:
    """Return the brightest channel of each pixel, which is the value of HSV."""
    import numpy as np

    if images.shape[-1] == 1:
        return images
    return np.maximum(np.maximum(images[..., :1], images[..., 1:2]), images[..., 2:])


def brightness(images: np.ndarray[Any, Any], top: float, more: float, rngs: Sequence[Any]) -> Any:
    """Increase the value of HSV. Hue and saturation stay, and black becomes gray."""
    import numpy as np

    value = _brightest(images)
    wanted = np.minimum(value + np.float32(more * top), top)
    black = value == 0
    factor = wanted / np.where(black, 1, value)
    images *= factor
    if black.any():
        np.copyto(images, wanted, where=black)
    return images


def contrast(images: np.ndarray[Any, Any], top: float, kept: float, rngs: Sequence[Any]) -> Any:
    """Keep this share of each value's distance from its channel's mean."""
    for image in images:
        means = cv2().mean(image)[: image.shape[-1]]
        image *= kept
        image += [(1 - kept) * mean for mean in means]
    return images


def saturate(
    images: np.ndarray[Any, Any], top: float, constants: tuple[float, float], rngs: Sequence[Any]
) -> Any:
    """Change the saturation of HSV by (factor, summand). The hue of gray counts as red."""
    import numpy as np

    factor, more = constants
    value = _brightest(images)
    lowest = np.minimum(np.minimum(images[..., :1], images[..., 1:2]), images[..., 2:])
    chroma = value - lowest
    gray = chroma == 0
    wanted = np.minimum(chroma * np.float32(factor) + value * np.float32(more), value)
    images -= value
    images *= wanted / np.where(gray, 1, chroma)
    images += value
    if more and gray.any():
        gray = gray[..., 0]
        images[gray, 1:] -= wanted[gray]
    return images


def contrast_8bit(
    images: np.ndarray[Any, Any], fresh: np.ndarray[Any, Any], kept: float, rngs: Sequence[Any]
) -> None:
    """Do the same for 8-bit images, with a table of all levels."""
    import numpy as np

    for image, changed in zip(images, fresh, strict=True):
        means = np.array(cv2().mean(image)[: image.shape[-1]])
        levels = (np.arange(256)[:, None] - means) * kept + means
        changed[:] = (
            cv2()
            .LUT(image, (np.clip(levels, 0, 255) + 2**-10).astype(np.uint8)[None])
            .reshape(image.shape)
        )


@functools.lru_cache(maxsize=8)
def smoothing(size: int, sigma: float, truncate: float) -> Any:
    """Return a Gaussian filter for lines of ``size`` values as a matrix.

    The lines are mirrored at their ends, many times for a wide filter.
    """
    import numpy as np

    reach = int(truncate * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    places = (np.arange(size)[:, None] + offsets) % (2 * size)
    matrix = np.zeros((size, size))
    np.add.at(
        matrix,
        (np.arange(size)[:, None], np.minimum(places, 2 * size - 1 - places)),
        weights / weights.sum(),
    )
    return matrix.astype(np.float32)


def _waves(height: int, width: int, sigma: float, rng: np.random.Generator) -> Any:
    """Return a smooth random field around 0."""
    import numpy as np

    field = rng.random((height, width), dtype=np.float32) * 2 - 1
    if 6 * sigma < min(height, width):
        reach = int(3 * sigma + 0.5)
        return cv2().GaussianBlur(
            field, (2 * reach + 1, 2 * reach + 1), sigmaX=sigma, borderType=cv2().BORDER_REFLECT
        )
    return smoothing(height, sigma, 3.0) @ field @ smoothing(width, sigma, 3.0).T


def elastic_transform(
    images: np.ndarray[Any, Any],
    top: float,
    constants: tuple[float, float, float],
    rngs: Sequence[Any],
) -> Any:
    """Apply an affine map, and waves on it: (strength, smoothness, shift of the corners).

    All three are parts of the shorter side.
    """
    import numpy as np

    height, width = images.shape[1:3]
    side = min(height, width)
    strength, sigma, shift = (part * side for part in constants)
    centre, third = np.array([height // 2, width // 2], np.float32), side // 3
    corners = np.array(
        [centre + third, [centre[0] + third, centre[1] - third], centre - third], np.float32
    )
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    for image, rng in zip(images, rngs, strict=True):
        turned = cv2().getAffineTransform(
            corners, corners + rng.uniform(-shift, shift, (3, 2)).astype(np.float32)
        )
        flat = cv2().warpAffine(image, turned, (width, height), borderMode=cv2().BORDER_REFLECT_101)
        right, down = (_waves(height, width, sigma, rng) * np.float32(strength) for _ in range(2))
        bent = cv2().remap(
            flat, x + right, y + down, cv2().INTER_LINEAR, borderMode=cv2().BORDER_REFLECT
        )
        image[:] = bent.reshape(image.shape)
    return images


@functools.lru_cache(maxsize=64)
def _boxes(size: int, kept: float) -> tuple[Any, Any, Any]:
    """Return the start and end of the stretches that become one coarse pixel, and the stretch of
    each pixel.
    """
    import numpy as np

    coarse = max(int(size * kept), 1)
    scale = size / coarse
    middles = (np.arange(coarse) + 0.5) * scale
    starts = np.maximum((middles - scale / 2 + 0.5).astype(int), 0)
    ends = np.minimum((middles + scale / 2 + 0.5).astype(int), size)
    return starts, ends, ((np.arange(size) + 0.5) / scale).astype(int)


def _coarse(image: np.ndarray[Any, Any], kept: float) -> tuple[Any, Any, Any]:
    """Return the means over boxes of whole pixels, and the row and column of each pixel's box."""
    height, width = image.shape[:2]
    top_edge, bottom, row_of = _boxes(height, kept)
    left, right, column_of = _boxes(width, kept)
    areas = ((bottom - top_edge)[:, None] * (right - left))[..., None]
    sums = cv2().integral(image, sdepth=cv2().CV_64F).reshape(height + 1, width + 1, -1)
    bands = sums.take(bottom, axis=0)
    bands -= sums.take(top_edge, axis=0)
    boxes = bands.take(right, axis=1)
    boxes -= bands.take(left, axis=1)
    boxes /= areas
    return boxes, row_of, column_of


def pixelate(images: np.ndarray[Any, Any], top: float, kept: float, rngs: Sequence[Any]) -> Any:
    """Keep this share of the pixels of each side, as means over boxes of whole pixels."""
    for image in images:
        boxes, row_of, column_of = _coarse(image, kept)
        image[:] = boxes.take(column_of, axis=1).take(row_of, axis=0)
    return images


def pixelate_8bit(
    images: np.ndarray[Any, Any], fresh: np.ndarray[Any, Any], kept: float, rngs: Sequence[Any]
) -> None:
    """Do the same for 8-bit images, rounded.

    The images are stacked and transposed, so that whole lines are moved and summed.
    """
    import numpy as np

    count, height, width, channels = images.shape
    rows, columns = _cut(height, kept, count), _cut(width, kept, 1)
    bands = rows.sums(images.reshape(count * height, -1).take(rows.lines, axis=0).astype(np.uint16))
    turned = cv2().transpose(bands.reshape(-1, width, channels)).reshape(width, -1)
    boxes = columns.sums(turned.take(columns.lines, axis=0)).reshape(columns.steps[0], -1, channels)
    means = boxes.astype(np.float32)
    means *= _shares(images.shape, kept)
    coarse = cv2().convertScaleAbs(means).reshape(boxes.shape)
    wide = cv2().transpose(coarse.take(columns.box_of, axis=0)).reshape(rows.steps[0], -1)
    fresh[:] = wide.take(rows.box_of, axis=0).reshape(images.shape)


@dataclasses.dataclass(frozen=True, slots=True)
class _Cut:
    """A split of lines into boxes of whole lines, larger boxes first.

    ``lines`` are the first lines of all boxes, then the second lines of the boxes that have one,
    and so on. ``steps`` are the numbers of boxes with at least that many lines. ``sizes`` are the
    boxes' sizes, and ``box_of`` is the box of each line.
    """

    lines: Any
    steps: list[int]
    sizes: Any
    box_of: Any

    def sums(self, lines: Any) -> Any:
        """Return the sums over boxes of lines in this order. Overwrite the lines."""
        total = lines[: self.steps[0]]
        first = self.steps[0]
        for boxes in self.steps[1:]:
            total[:boxes] += lines[first : first + boxes]
            first += boxes
        return total


@functools.lru_cache(maxsize=64)
def _cut(size: int, kept: float, count: int) -> _Cut:
    """Return the split for ``count`` images in a row, each with this number of lines."""
    import numpy as np

    starts, ends, box_of = _boxes(size, kept)
    sizes = np.tile(ends - starts, count)
    order = np.argsort(-sizes, kind="stable")
    starts = (np.arange(count)[:, None] * size + starts).ravel()[order]
    steps = [int((sizes > step).sum()) for step in range(sizes.max())]
    lines = np.concatenate([starts[:boxes] + step for step, boxes in enumerate(steps)])
    place = np.argsort(order).reshape(count, -1)
    return _Cut(lines, steps, sizes[order], place[:, box_of].ravel())


@functools.lru_cache(maxsize=8)
def _shares(shape: tuple[int, ...], kept: float) -> Any:
    """Return the weight of a value in its box's mean, float32 [boxes across, boxes down, channels].

    It is slightly larger, so that halves are rounded up.
    """
    import numpy as np

    count, height, width, channels = shape
    areas = _cut(width, kept, 1).sizes[:, None] * _cut(height, kept, count).sizes
    return np.repeat(((1 + 2**-20) / areas)[..., None], channels, axis=2).astype(np.float32)


def jpeg_compression_8bit(
    images: np.ndarray[Any, Any], fresh: np.ndarray[Any, Any], quality: int, rngs: Sequence[Any]
) -> None:
    """Save as JPEG of this quality, and read back."""
    color = images.shape[-1] == 3
    for image, changed in zip(images, fresh, strict=True):
        given = cv2().cvtColor(image, cv2().COLOR_RGB2BGR) if color else image
        _, written = cv2().imencode(".jpg", given, [cv2().IMWRITE_JPEG_QUALITY, quality])
        read = cv2().imdecode(written, cv2().IMREAD_COLOR if color else cv2().IMREAD_GRAYSCALE)
        changed[:] = (
            cv2().cvtColor(read, cv2().COLOR_BGR2RGB, dst=read) if color else read[..., None]
        )


def jpeg_compression(
    images: np.ndarray[Any, Any], top: float, quality: int, rngs: Sequence[Any]
) -> Any:
    """Do the same for other images, converted to 8 bits."""
    import numpy as np

    pictures = (images * np.float32(255 / top) + 0.5).astype(np.uint8)
    jpeg_compression_8bit(pictures, pictures, quality, rngs)
    return np.multiply(pictures, np.float32(top / 255), out=images)
