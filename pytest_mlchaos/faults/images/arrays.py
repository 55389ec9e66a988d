"""Find images in batches, and change them in any layout and dtype."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...core.privacy import path_text
from ...errors import PayloadMismatch
from ..batches.pytree import Leaf, is_array, is_tensor, parts

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "LAYOUTS",
    "MIN_SIDE_PIXELS",
    "ImageChange",
    "Picture",
    "Range",
    "change_image",
    "fitting",
    "layout_of",
    "pictures",
]

LAYOUTS = ("NCHW", "NHWC", "NHW", "CHW", "HWC", "HW")
MIN_SIDE_PIXELS = 8
"""The smallest side of an image."""
CHANNELS = (1, 3)
BLOCK_VALUES = 1 << 18
"""The number of values that are changed at once, so that they stay in the processor's cache."""
MODES = {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3}
"""The modes of PIL images, and the number of their colour channels."""


@dataclasses.dataclass(frozen=True)
class ImageChange:
    """A change of images.

    ``floats`` takes (float32 [n, height, width, channels], value of white, indices of the images).
    ``eight_bit``, if given, takes (uint8 [n, height, width, channels], the array for the result,
    indices of the images) for values from 0 to 255.
    """

    floats: Callable[[Any, float, Sequence[int]], Any]
    eight_bit: Callable[[Any, Any, Sequence[int]], None] | None = None


Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A part of a batch that may hold images (an array, a tensor or a PIL image), and its path."""

    path: Path
    value: Any

    @property
    def is_pil(self) -> bool:
        """Return True for a PIL image."""
        return _is_pil(self.value)

    @property
    def name(self) -> str:
        """Return the path, with dots."""
        return path_text(self.path) or "batch"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape. That of a PIL image is (height, width, bands)."""
        return (
            (*self.value.size[::-1], len(self.value.getbands()))
            if self.is_pil
            else tuple(self.value.shape)
        )

    @property
    def kind(self) -> str:
        """Return the dtype, or the mode of a PIL image."""
        return str(self.value.mode) if self.is_pil else str(self.value.dtype).removeprefix("torch.")

    def described(self) -> str:
        """Return ``float32[8, 3, 32, 32]`` or ``PIL RGB[224, 224, 3]``."""
        return f"{'PIL ' if self.is_pil else ''}{self.kind}{list(self.shape)}"


@dataclasses.dataclass(frozen=True)
class Range:
    """The values of black and white: numbers, or one number for each channel."""

    low: Any
    high: Any

    @property
    def plain(self) -> bool:
        """Return True if black is 0 and white is one number, so values need no mapping."""
        return (
            isinstance(self.high, (int, float))
            and isinstance(self.low, (int, float))
            and self.low == 0
        )


def _is_pil(value: object) -> bool:
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def pictures(value: object, path: Path = ()) -> Iterator[Picture]:
    """Yield every array, tensor and PIL image in a batch, in order."""
    if is_tensor(value) or is_array(value) or _is_pil(value):
        yield Picture(path, value)
        return
    for name, child in parts(value):
        yield from pictures(child, (*path, name))


def layout_of(shape: Sequence[int], *, loose: bool) -> str | None:
    """Return the layout of images of this shape, or None. ``loose`` allows images without channels."""
    large = [size >= MIN_SIDE_PIXELS for size in shape]
    if len(shape) == 4:
        if shape[1] in CHANNELS and large[2] and large[3]:
            return "NCHW"
        return "NHWC" if shape[3] in CHANNELS and large[1] and large[2] else None
    if len(shape) == 3:
        if shape[0] in CHANNELS and large[1] and large[2]:
            return "CHW"
        if shape[2] in CHANNELS and large[0] and large[1]:
            return "HWC"
        return "NHW" if loose and large[1] and large[2] else None
    return "HW" if loose and len(shape) == 2 and all(large) else None


def _as_nhwc(array: np.ndarray[Any, Any], layout: str) -> Any:
    """Return a view [n, height, width, channels] of an array."""
    for axis, name in ((0, "N"), (len(layout), "C")):
        if name not in layout:
            array = array.reshape(1, *array.shape) if axis == 0 else array[..., None]
            layout = name + layout if axis == 0 else layout + name
    return array.transpose([layout.index(name) for name in "NHWC"])


def change_image(picture: Picture, layout: str, scale: Range, change: ImageChange) -> Any:
    """Return a changed copy of the same type, shape, dtype and device."""
    import numpy as np

    if picture.is_pil:
        return _changed_pil(picture, change)
    if not is_tensor(picture.value):
        given = picture.value
        fresh = np.empty_like(given, subok=False)
        _change(_as_nhwc(np.asarray(given), layout), _as_nhwc(fresh, layout), scale, change)
        return fresh
    torch = sys.modules["torch"]
    tensor = picture.value.detach().cpu()
    given = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    fresh = np.empty_like(given)
    _change(_as_nhwc(given, layout), _as_nhwc(fresh, layout), scale, change)
    moved = torch.from_numpy(fresh).to(device=picture.value.device, dtype=picture.value.dtype)
    return moved.requires_grad_(picture.value.requires_grad)


def _changed_pil(picture: Picture, change: ImageChange) -> Any:
    """Return a changed PIL image of the same mode. Its transparency stays."""
    import numpy as np

    image = picture.value
    given = np.asarray(image).reshape(*image.size[::-1], -1)
    fresh, colors = given.copy(), MODES[image.mode]
    _change(given[None, ..., :colors], fresh[None, ..., :colors], Range(0, 255), change)
    made = sys.modules["PIL.Image"].fromarray(fresh.reshape(np.asarray(image).shape))
    made.info = dict(image.info)
    return made


def _change(given: Any, fresh: Any, scale: Range, change: ImageChange) -> None:
    """Write the changed images into ``fresh``, some at a time. Both are [n, height, width,
    channels].
    """
    import numpy as np

    eight_bit = change.eight_bit if given.dtype == np.uint8 and scale == Range(0, 255) else None
    together = max(1, BLOCK_VALUES // given[0].size)
    for start in range(0, len(given), together):
        part = range(start, min(start + together, len(given)))
        some = given[start : part.stop]
        if eight_bit is not None:
            eight_bit(np.ascontiguousarray(some), fresh[start : part.stop], part)
        else:
            fresh[start : part.stop] = _part(some, part, scale, change)


def _part(given: Any, numbers: range, scale: Range, change: ImageChange) -> Any:
    """Return some changed images in their own dtype."""
    import numpy as np

    low, high = np.asarray(scale.low, np.float32), np.asarray(scale.high, np.float32)
    images = np.array(given, np.float32, order="C")
    if not scale.plain:
        images = (images - low) / (high - low)
    top = float(scale.high) if scale.plain else 1.0
    if given.dtype != np.uint8:
        np.clip(images, 0, top, out=images)
    images = change.floats(images, top, numbers)
    np.clip(images, 0, top, out=images)
    if not scale.plain:
        images = images * (high - low) + low
    # Integers are truncated, as in the published code. A rounding error must not change the integer
    # part.
    if given.dtype.kind in "iu":
        images += np.float32(2**-10)
        if given.dtype.kind == "i":
            np.floor(images, out=images)
    return images.astype(given.dtype)


def fitting(picture: Picture, scale: Range | None, owner: str) -> Range:
    """Return the given range of values, or that of the dtype. Refuse values outside."""
    if picture.is_pil or (scale is None and picture.kind == "uint8"):
        return Range(0, 255)
    if scale is None and not Leaf(picture.path, picture.value).is_float:
        raise PayloadMismatch(
            f"{owner}: {picture.name} is {picture.described()}, and which of its values are black "
            f"and white is not clear. "
            "Give value_range=(low, high)"
        )
    scale = scale or Range(0, 1)
    values = picture.value.detach() if is_tensor(picture.value) else picture.value
    least, most = float(values.min()), float(values.max())
    low, high = _ends(scale)
    slack = (high - low) * 1e-3
    if not (low - slack <= least and most <= high + slack):
        raise PayloadMismatch(
            f"{owner}: {picture.name} is {picture.described()} with values outside {low:g} to "
            f"{high:g} (or not finite). Give "
            "value_range=(low, high), the values of black and white, each a number or one for each "
            "channel"
        )
    return scale


def _ends(scale: Range) -> tuple[float, float]:
    import numpy as np

    return float(np.min(scale.low)), float(np.max(scale.high))
