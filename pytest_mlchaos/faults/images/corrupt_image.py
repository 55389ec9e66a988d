"""Define faults of images: the 19 corruptions of ImageNet-C."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.validation import format_value
from ...errors import BadArgument, MissingExtra, PayloadMismatch
from ..batches.pytree import Leaf, describe, rebuilt
from ..rows import RowFault
from .arrays import (
    LAYOUTS,
    MIN_SIDE_PIXELS,
    MODES,
    ImageChange,
    Picture,
    Range,
    change_image,
    fitting,
    layout_of,
    pictures,
)
from .kinds import KINDS

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CorruptImage"]
LAYER = "Images and text"

_NO_IMAGES = ("mask", "masks", "label", "labels", "target", "targets", "y")
"""Fields with these names are not images, unless ``fields`` names them."""


@register
class CorruptImage(RowFault):
    """Images reach the loop noisy, blurred, snowed in or badly compressed: one of the 19
    corruptions of ImageNet-C.

    Images may be tensors, NumPy arrays and PIL images, in nested batches, with sides of at least 8
    pixels. Each gets random numbers of its own, and keeps shape, dtype and device. 8-bit values are
    cut off to whole ones, as published. The noises, fog, brightness and saturate need NumPy alone.
    The other kinds need OpenCV (``pytest-mlchaos[images]``).

    Args:
        severity: 1 to 5, with the constants published for 224 × 224 pixels.
        kind: The corruption.
        fields: Names, positions or dotted paths of the images. Without it, all uint8 and
            floating-point fields that look like images with 1 or 3 channels.
        value_range: The values of black and white, as numbers or one for each channel. Without it,
            0 to 255 for uint8, and 0 to 1 for floats.
        layout: ``"NCHW"``, ``"NHWC"``, ``"NHW"``, ``"CHW"``, ``"HWC"`` or ``"HW"``, if the shape
            does not show it.

    Imitates: bad light and weather, a cheap, dirty, shaken or unfocused camera, and what
    compression leaves.

    Fidelity: lengths are in pixels, as published for 224 × 224, so small images suffer more from
    the same severity. Elastic waves, fog and frost depend on the image's size. Frost is made of
    ridges of noise, because the published photographs of ice cannot be shipped. Normal numbers have
    65,536 different values. Glass blur copies pixels where the paper swaps them, as the published
    code does. Floating-point images are not rounded to 8 bits, except by JPEG and glass blur.
    OpenCV below 5 rounds positions to 1/32 pixel.

    Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
    and Perturbations, 2019, https://arxiv.org/abs/1903.12261

    Example: @chaos.corrupt_image(kind="fog", severity=3, at=0)
    """

    site = "data.batch"
    scales: ClassVar[Any] = {"level": (1, 2, 3, 4, 5)}
    kind: Literal[
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "speckle_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "gaussian_blur",
        "snow",
        "frost",
        "fog",
        "brightness",
        "contrast",
        "saturate",
        "elastic_transform",
        "pixelate",
        "jpeg_compression",
        "spatter",
    ] = "gaussian_noise"
    severity: int | None = 3
    fields: Any = None
    value_range: Any = None
    layout: Literal["NCHW", "NHWC", "NHW", "CHW", "HWC", "HW"] | None = None

    def check(self) -> None:
        """Check the parameters."""
        if self.severity is None:
            object.__setattr__(self, "severity", 3)
        if self.fields is not None and not is_drawn(self.fields):
            wanted = [self.fields] if isinstance(self.fields, (str, int)) else list(self.fields)
            if not wanted or not all(
                isinstance(name, (str, int)) and not isinstance(name, bool) for name in wanted
            ):
                raise BadArgument(
                    f"corrupt_image: fields must be names or positions, got "
                    f"{format_value(self.fields)}"
                )
            object.__setattr__(self, "fields", tuple(wanted) if len(wanted) > 1 else wanted[0])
        if self.value_range is not None and not is_drawn(self.value_range):
            object.__setattr__(self, "value_range", _checked_range(self.value_range))

    def apply(self, visit: Visit) -> Any:
        """Return changed copies."""
        corruption = KINDS[self.kind]
        if corruption.opencv and importlib.util.find_spec("cv2") is None:
            raise MissingExtra(
                f"corrupt_image(kind={self.kind!r})", "opencv-python-headless", "images"
            )
        chosen = list(self._chosen(visit.payload))
        constants = corruption.severities[(self.severity or 3) - 1]
        hits = {}
        with _one_thread_of_opencv(corruption.opencv):
            for place, (picture, layout) in enumerate(chosen):
                hits[picture.path] = self._struck(picture, layout, constants, (visit.seed, place))
        visit.note(
            kind=self.kind, fields={picture.name: picture.described() for picture, _ in chosen}
        )
        return rebuilt(visit.payload, hits)

    def _struck(
        self, picture: Picture, layout: str, constants: object, seed: tuple[int, int]
    ) -> Any:
        import numpy as np

        given = None if self.value_range is None else Range(*self.value_range)
        scale = fitting(picture, given, self.name)

        corruption = KINDS[self.kind]

        def rngs(numbers: Sequence[int]) -> list[Any]:
            return [
                np.random.default_rng((*seed, number)) if corruption.random else None
                for number in numbers
            ]

        def floats(images: object, top: float, numbers: Sequence[int]) -> Any:
            return corruption.function(images, top, constants, rngs(numbers))

        def eight_bit(images: object, fresh: object, numbers: Sequence[int]) -> None:
            assert corruption.eight_bit is not None
            corruption.eight_bit(images, fresh, constants, rngs(numbers))

        fresh = change_image(
            picture, layout, scale, ImageChange(floats, eight_bit if corruption.eight_bit else None)
        )
        if _same(fresh, picture.value):
            raise PayloadMismatch(
                f"corrupt_image(kind={self.kind!r}) left {picture.name}, {picture.described()}, as "
                f"it was, because it shows nothing"
            )
        return fresh

    def _chosen(self, payload: object) -> Iterator[tuple[Picture, str]]:
        found = list(pictures(payload))
        if self.fields is not None:
            wanted = self.fields if isinstance(self.fields, tuple) else (self.fields,)
            named = [picture for name in wanted for picture in self._named(name, found, payload)]
            yield from ((picture, self._layout(picture, payload, loose=True)) for picture in named)
            return
        some = False
        for picture in found:
            if self._looks_like_images(picture):
                some = True
                yield picture, self._layout(picture, payload, loose=not picture.path)
        if not some:
            raise PayloadMismatch(
                f"corrupt_image(kind={self.kind!r}) found no images in the batch "
                f"{describe(payload)} (uint8 or floats, 1 or 3 "
                f"channels, sides of {MIN_SIDE_PIXELS} pixels or more). Name them with fields=, "
                f"and give their axes with layout="
            )

    def _named(self, name: str | int, found: list[Picture], payload: object) -> list[Picture]:
        path = tuple(map(str, name.split("."))) if isinstance(name, str) else (str(name),)
        matching = [
            picture for picture in found if tuple(map(str, picture.path))[: len(path)] == path
        ]
        if not matching:
            raise PayloadMismatch(
                f"corrupt_image: found no field {name!r} with an array or a picture in the batch "
                f"{describe(payload)}"
            )
        return matching

    def _looks_like_images(self, picture: Picture) -> bool:
        if picture.path and str(picture.path[-1]).lower() in _NO_IMAGES:
            return False
        if picture.is_pil:
            return True
        kind = picture.kind
        if kind != "uint8" and not kind.startswith(("float", "bfloat")):
            return False
        if self.layout is not None:
            return len(picture.shape) == len(self.layout)
        return layout_of(picture.shape, loose=not picture.path) is not None

    def _layout(self, picture: Picture, payload: object, *, loose: bool) -> str:
        """Return the layout of the images. Refuse images that the corruption cannot work on."""
        layout = (
            self.layout if not picture.is_pil and self.layout else _layout(picture, loose=loose)
        )
        problem = _problem(picture, layout)
        if (
            problem is None
            and self.kind == "saturate"
            and (picture.kind in ("L", "LA") or _size(picture, layout, "C") == 1)
        ):
            problem = "is gray, and has no saturation"
        if problem is not None:
            raise PayloadMismatch(
                f"corrupt_image(kind={self.kind!r}) cannot work on {picture.name}, "
                f"{picture.described()}, of the batch "
                f"{describe(payload)}: it {problem}"
            )
        assert layout is not None
        return layout


def _checked_range(value: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Return (low, high) as numbers or tuples of numbers."""
    import numpy as np

    try:
        low, high = (np.asarray(end, float) for end in value)
        right = (
            bool(np.all(low < high))
            and bool(np.isfinite([low.sum(), high.sum()]).all())
            and low.ndim < 2
            and high.ndim < 2
        )
    except (TypeError, ValueError):
        right = False
    if not right:
        raise BadArgument(
            f"corrupt_image: value_range must be (low, high), each a number or one for each "
            f"channel, got {format_value(value)}"
        )
    return low.tolist() if low.ndim == 0 else tuple(
        low.tolist()
    ), high.tolist() if high.ndim == 0 else tuple(high.tolist())


def _layout(picture: Picture, *, loose: bool) -> str | None:
    return "HWC" if picture.is_pil else layout_of(picture.shape, loose=loose)


def _size(picture: Picture, layout: str | None, axis: str) -> int:
    return picture.shape[layout.index(axis)] if layout and axis in layout else 1


def _problem(picture: Picture, layout: str | None) -> str | None:
    """Return why a value is not an image that can be changed, or None."""
    if picture.is_pil:
        if picture.kind not in MODES:
            return f'has the mode {picture.kind!r}: convert it with image.convert("RGB")'
    else:
        if (odd := Leaf(picture.path, picture.value).problem()) is not None:
            return odd
        if picture.kind.startswith(("bool", "complex")):
            return f"has the dtype {picture.kind}"
        if 0 in picture.shape:
            return "is empty"
        if layout is None or len(layout) != len(picture.shape):
            where = "" if layout is None else f" in the layout {layout}"
            return f"has no shape of images{where}: they are one of {', '.join(LAYOUTS)}"
        if "C" in layout and _size(picture, layout, "C") not in (1, 3):
            return f"has {_size(picture, layout, 'C')} channels, and not 1 or 3"
    if min(_size(picture, layout, "H"), _size(picture, layout, "W")) < MIN_SIDE_PIXELS:
        return f"has a side of less than {MIN_SIDE_PIXELS} pixels"
    return None


def _same(fresh: object, given: object) -> bool:
    import numpy as np

    if hasattr(fresh, "equal"):
        return bool(fresh.equal(given))
    # usually the first image differs
    return all(
        np.array_equal(*pair) for pair in zip(np.asarray(fresh), np.asarray(given), strict=True)
    )


@contextlib.contextmanager
def _one_thread_of_opencv(used: bool) -> Iterator[None]:
    """Stop OpenCV's own threads, which would not survive a fork into DataLoader workers."""
    if not used:
        yield
        return
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
