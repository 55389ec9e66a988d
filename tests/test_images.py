"""The corruptions of images, against what was published: straightforward references, moments, and
another package where it is installed.
"""

from __future__ import annotations

import colorsys
import importlib.util
import io
import math

import numpy as np
import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import MissingExtra, PayloadMismatch
from pytest_mlchaos.faults.images import blur as blur
from pytest_mlchaos.faults.images import digital as digital
from pytest_mlchaos.faults.images import noise as noise
from pytest_mlchaos.faults.images import weather as weather
from pytest_mlchaos.faults.images.kinds import KINDS
from pytest_mlchaos.testing import strike
from tests.cases_images import pictures

faults.load()

LEVELS = [1, 2, 3, 4, 5]
# Not on every picture.
HARSHER = sorted(set(KINDS) - {"glass_blur", "saturate", "elastic_transform", "frost", "pixelate"})
needs_opencv = pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="needs OpenCV")
every_kind = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=needs_opencv if KINDS[kind].opencv else ())
        for kind in sorted(KINDS)
    ],
)
every_level = pytest.mark.parametrize("level", LEVELS)


def corrupted(images, kind, level=3, *, seed=0, **keywords):
    """Return the images after one strike. Raise the error of a refusal."""
    outcome = strike(
        create("corrupt_image", kind=kind, severity=level, at=0, **keywords), [images], seed=seed
    ).outcomes[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def noisy(height=224, width=224):
    """A picture with edges, slopes, black, white and gray parts: uint8 [height, width, 3]."""
    rng = np.random.default_rng(5)
    coarse = (
        rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
        .repeat(8, 0)
        .repeat(8, 1)[:height, :width]
    )
    slope = np.linspace(0, 60, width)[None, :, None]
    picture = np.clip(
        coarse * 0.8 + slope + rng.integers(-20, 20, (height, width, 3)), 0, 255
    ).astype(np.uint8)
    picture[:6, :6], picture[6:12, :6], picture[12:18, :6] = 0, 255, 128
    return picture


def near(found, wanted):
    """Check that 8-bit pictures are equal except for rounding, in at most a hundredth of the
    values.
    """
    difference = np.abs(found.astype(float) - np.clip(wanted, 0, 255).astype(np.uint8))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.15


def by_colorsys(picture, change):
    """A picture whose every pixel was changed in hue, saturation and value."""
    fresh = np.empty(picture.shape)
    for place in np.ndindex(picture.shape[:2]):
        fresh[place] = colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(picture[place] / 255))))
    return fresh * 255


@every_level
def test_brightness_and_saturation_are_those_of_hsv(level):
    """Pixel by pixel as Python's colorsys has it."""
    picture = noisy(40, 32)
    more = [0.1, 0.2, 0.3, 0.4, 0.5][level - 1]
    near(
        corrupted(picture, "brightness", level),
        by_colorsys(picture, lambda h, s, v: (h, s, min(v + more, 1))),
    )
    factor, added = [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)][level - 1]
    near(
        corrupted(picture, "saturate", level),
        by_colorsys(picture, lambda h, s, v: (h, min(s * factor + added, 1), v)),
    )


@needs_opencv
@every_level
def test_contrast_shrinks_towards_the_mean_of_each_channel(level):
    """The formula is the published one."""
    picture = noisy()
    means = picture.mean(axis=(0, 1))
    near(
        corrupted(picture, "contrast", level),
        (picture - means) * [0.4, 0.3, 0.2, 0.1, 0.05][level - 1] + means,
    )


@needs_opencv
@every_level
def test_blurs_are_the_published_filters(level):
    """Against SciPy's filters, in double precision."""
    ndimage = pytest.importorskip("scipy.ndimage")
    picture = noisy(96, 80)
    sigma = [1, 2, 3, 4, 6][level - 1]
    near(
        corrupted(picture, "gaussian_blur", level),
        ndimage.gaussian_filter(picture / 255, (sigma, sigma, 0), mode="nearest") * 255,
    )
    radius, softness = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)][level - 1]
    reach = max(radius, 8)
    far = np.arange(-reach, reach + 1)
    disk = (far[:, None] ** 2 + far**2 <= radius**2) / np.sum(
        far[:, None] ** 2 + far**2 <= radius**2
    )
    side = 1 if radius <= 8 else 2
    weights = np.exp(-(np.arange(-side, side + 1) ** 2) / (2 * softness**2))
    weights /= weights.sum()
    kernel = ndimage.correlate(disk, np.outer(weights, weights), mode="mirror")
    near(
        corrupted(picture, "defocus_blur", level),
        ndimage.correlate(picture / 255, kernel[..., None], mode="mirror") * 255,
    )


@needs_opencv
@every_level
def test_zoom_blur_is_the_mean_of_zoomed_pictures(level):
    """Against SciPy's zoom."""
    ndimage = pytest.importorskip("scipy.ndimage")
    picture = noisy(96, 96)
    factors = np.arange(
        1, [1.11, 1.16, 1.21, 1.26, 1.31][level - 1], [0.01, 0.01, 0.02, 0.02, 0.03][level - 1]
    )
    total = picture / 255
    for factor in factors:
        part = math.ceil(96 / factor)
        start = (96 - part) // 2
        zoomed = ndimage.zoom(
            picture[start : start + part, start : start + part] / 255, (factor, factor, 1), order=1
        )
        trim = (len(zoomed) - 96) // 2
        total = total + zoomed[trim : trim + 96, trim : trim + 96]
    near(corrupted(picture, "zoom_blur", level), total / (len(factors) + 1) * 255)


@needs_opencv
@pytest.mark.parametrize("angle", [-40.0, 0.0, 17.0, 45.0, -120.0])
def test_motion_adds_up_shifted_pictures(angle):
    """Half a Gaussian along a line, the border repeated."""
    picture = noisy(40, 56).astype(np.float32)
    weights = np.exp(-(np.arange(21) ** 2) / 18)
    wide = np.pad(picture, ((20, 20), (20, 20), (0, 0)), mode="edge")
    total = np.zeros(picture.shape)
    for step, weight in enumerate(weights / weights.sum()):
        down = -math.ceil(step * math.sin(math.radians(angle)) - 0.5)
        right = -math.ceil(step * math.cos(math.radians(angle)) - 0.5)
        total += weight * wide[20 - down : 60 - down, 20 - right : 76 - right]
    assert np.abs(blur.blur_along_line(picture, 10, 3, angle) - total).max() < 1e-3


@needs_opencv
@every_level
def test_pixels_and_jpeg_are_pillows(level):
    """Boxes to within rounding, JPEG bit by bit."""
    image = pytest.importorskip("PIL.Image")
    picture = noisy(96, 80)
    given, kept = image.fromarray(picture), [0.6, 0.5, 0.4, 0.3, 0.25][level - 1]
    coarse = given.resize((int(80 * kept), int(96 * kept)), image.BOX).resize((80, 96), image.BOX)
    assert np.abs(corrupted(picture, "pixelate", level).astype(int) - np.asarray(coarse)).max() <= 1
    saved = io.BytesIO()
    given.save(saved, "JPEG", quality=[25, 18, 15, 10, 7][level - 1])
    assert (
        np.abs(
            corrupted(picture, "jpeg_compression", level).astype(int)
            - np.asarray(image.open(saved))
        ).max()
        <= 1
    )


@needs_opencv
def test_glass_copies_pixels_one_after_the_other():
    """The neighbour's value of that moment, from the last pixel to the first."""
    reach, height, width = 3, 20, 24
    found = blur._sources(height, width, reach, np.random.default_rng(7))
    rows, columns = (
        np.arange(reach + 1, height - reach + 1),
        np.arange(reach + 1, width - reach + 1),
    )
    steps = np.random.default_rng(7).integers(-reach, reach, (2, len(rows), len(columns)))
    values = np.arange(height * width).reshape(height, width)
    for row in rows[::-1]:
        for column in columns[::-1]:
            down, right = steps[:, row - reach - 1, column - reach - 1]
            values[row, column] = values[row + down, column + right]
    assert np.array_equal(found.reshape(height, width), values)


@needs_opencv
@every_level
def test_elastic_waves_are_those_published(level):
    """Against SciPy's filter and interpolation, with the same random numbers; 244 for 224 is the
    published code's.
    """
    ndimage = pytest.importorskip("scipy.ndimage")
    cv2 = pytest.importorskip("cv2")
    strength, sigma, shift = [
        (488, 170.8, 24.4),
        (488, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ][level - 1]
    picture = noisy().astype(np.float32) / 255
    rng = np.random.default_rng(3)
    corners = np.array([[186, 186], [186, 38], [38, 38]], np.float32)
    turn = cv2.getAffineTransform(
        corners, corners + rng.uniform(-shift, shift, (3, 2)).astype(np.float32)
    )
    turned = cv2.warpAffine(picture, turn, (224, 224), borderMode=cv2.BORDER_REFLECT_101)
    waves = [
        ndimage.gaussian_filter(
            rng.random((224, 224), dtype=np.float32) * 2.0 - 1, sigma, truncate=3
        )
        * strength
        for _ in range(2)
    ]
    y, x = np.mgrid[:224, :224]
    wanted = [
        ndimage.map_coordinates(
            turned[..., color], [y + waves[1], x + waves[0]], order=1, mode="reflect"
        )
        for color in range(3)
    ]
    found = digital.elastic_transform(
        picture[None].copy(),
        1.0,
        KINDS["elastic_transform"].severities[level - 1],
        [np.random.default_rng(3)],
    )
    tolerance = 2e-2 if int(cv2.__version__.partition(".")[0]) < 5 else 2e-3
    assert np.abs(found[0] - np.stack(wanted, axis=-1)).mean() < tolerance


def test_fog_is_made_by_diamonds_and_squares():
    """Point by point, with the same random numbers."""
    size, decay = 16, 1.7
    rng, wanted = np.random.default_rng(1), np.zeros((size, size))
    step, bump = size, 100.0
    while step >= 2:
        half, cells = step // 2, size // step
        bumps = (rng.random((3, cells, cells), dtype=np.float32) * 2.0 - 1) * bump**2
        at = wanted.__getitem__
        for row, column in np.ndindex(cells, cells):
            y, x = row * step, column * step
            corners = [
                at(((y + down) % size, (x + right) % size))
                for down in (0, step)
                for right in (0, step)
            ]
            wanted[y + half, x + half] = sum(corners) / 4 + bumps[0, row, column]
        for row, column in np.ndindex(cells, cells):
            y, x = row * step, column * step
            above = [
                at(((y + half) % size, x + half)),
                at(((y - half) % size, x + half)),
                at((y, x)),
                at((y, (x + step) % size)),
            ]
            left = [
                at((y + half, (x + half) % size)),
                at((y + half, (x - half) % size)),
                at((y, x)),
                at(((y + step) % size, x)),
            ]
            wanted[y, x + half] = sum(above) / 4 + bumps[1, row, column]
            wanted[y + half, x] = sum(left) / 4 + bumps[2, row, column]
        step, bump = half, bump / decay
    wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
    assert np.abs(weather.plasma(size, decay, [np.random.default_rng(1)])[0] - wanted).max() < 1e-4


@every_level
def test_noises_have_the_published_moments(level):
    """Variances, shares and means on gray, where nothing is cut off."""
    gray = np.full((1, 256, 256, 3), 0.5)
    small = np.full((1, 256, 256, 3), 0.1)
    shade = [0.08, 0.12, 0.18, 0.26, 0.38][level - 1]
    added = noise.gaussian_noise(
        gray.astype(np.float32),
        1.0,
        KINDS["gaussian_noise"].severities[level - 1],
        [np.random.default_rng(2)],
    )
    assert (added - gray).std() == pytest.approx(shade, rel=0.01)
    assert added.mean() == pytest.approx(0.5, abs=0.01)
    speckled = corrupted(small, "speckle_noise", level)
    assert (speckled - small).std() == pytest.approx(
        0.1 * [0.15, 0.2, 0.35, 0.45, 0.6][level - 1], rel=0.05
    )  # cut off at black
    photons = [60, 25, 12, 5, 3][level - 1]
    shot = corrupted(small, "shot_noise", level) * photons
    assert shot.mean() == pytest.approx(0.1 * photons, rel=0.02)
    assert shot.var() == pytest.approx(0.1 * photons, rel=0.03)
    assert np.abs(shot - shot.round()).max() < 1e-4
    amount = [0.03, 0.06, 0.09, 0.17, 0.27][level - 1]
    salted = corrupted(gray, "impulse_noise", level)
    assert [(salted == end).mean() for end in (0, 1)] == [pytest.approx(amount / 2, rel=0.05)] * 2
    assert (salted == 0.5).mean() == pytest.approx(1 - amount, rel=0.01)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=needs_opencv if KINDS[kind].opencv else ()) for kind in HARSHER],
)
def test_a_higher_severity_is_farther_from_the_original(kind):
    """For the kinds whose published constants are so."""
    picture = noisy()
    distances = [
        np.abs(corrupted(np.stack([picture] * 4), kind, level).astype(float) - picture).mean()
        for level in LEVELS
    ]
    if kind == "snow":  # the published third severity is not higher than the second
        distances.pop(2)
    assert distances == sorted(distances)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_agrees_with_another_implementation(kind):
    """Kind by kind, where imagecorruptions is installed and works; its elastic waves and its frost
    are others.
    """
    other = pytest.importorskip("imagecorruptions")
    picture = noisy()
    try:
        theirs = np.stack(
            [other.corrupt(picture, corruption_name=kind, severity=3) for _ in range(6)]
        ).astype(float)
    except (TypeError, AttributeError) as error:
        pytest.skip(f"it does not run here: {error}")
    ours = corrupted(np.stack([picture] * 6), kind).astype(float)
    if not KINDS[kind].random:
        assert np.abs(ours - theirs).mean() < 0.5 or kind == "pixelate"
    elif kind not in ("elastic_transform", "frost"):
        assert np.abs(ours - picture).mean() == pytest.approx(
            np.abs(theirs - picture).mean(), rel=0.25
        )


@every_kind
@every_level
def test_each_kind_works_on_any_size(kind, level):
    """From 8 pixels on, in colour and, where that makes sense, in gray."""
    rng = np.random.default_rng(0)
    for shape in ((2, 8, 8, 3), (1, 3, 9, 40), (40, 8, 1), (31, 17), (300, 20, 3)):
        if kind != "saturate" or 3 in shape:
            images = rng.random(shape)
            fresh = corrupted(images, kind, level)
            assert (fresh.shape, fresh.dtype) == (images.shape, images.dtype)
            assert np.isfinite(fresh).all()
            assert fresh.min() >= 0
            assert fresh.max() <= 1


@every_kind
def test_an_image_is_struck_alike_however_it_is_carried(kind):
    """Channels first or last, 8 bits or floats, alone or in a large batch: one seed, one result for
    the image.
    """
    images = pictures(40, 80, 96)
    whole = corrupted(images, kind)
    assert np.array_equal(corrupted(images[:1], kind), whole[:1])
    assert np.array_equal(corrupted(images[0], kind), whole[0])
    assert np.array_equal(
        corrupted(images.transpose(0, 3, 1, 2), kind).transpose(0, 2, 3, 1), whole
    )
    floats = corrupted(images / 255, kind)
    assert np.abs(floats * 255 - whole).mean() < 1.01
    shifted = corrupted(
        (images[:2] / 255 * 4 - 2).astype(np.float32), kind, value_range=(-2, [2, 2, 2])
    )
    assert np.abs((shifted + 2) / 4 - floats[:2]).mean() < 0.01
    if KINDS[kind].random:
        assert len({image.tobytes() for image in corrupted(np.stack([images[0]] * 5), kind)}) == 5


def test_pictures_of_pillow_keep_mode_and_transparency():
    """Alone, in lists, and with an alpha channel."""
    image = pytest.importorskip("PIL.Image")
    clear = np.concatenate([pictures(1)[0], np.full((24, 32, 1), 9, np.uint8)], axis=-1)
    given = {
        "images": [image.fromarray(pictures(1)[0]), image.fromarray(pictures(1)[0][..., 0])],
        "clear": image.fromarray(clear),
    }
    before = [np.array(given["images"][0]), np.array(given["clear"])]
    fresh = corrupted(given, "gaussian_noise")
    assert [found.mode for found in fresh["images"]] == ["RGB", "L"]
    assert [found.size for found in fresh["images"]] == [(32, 24)] * 2
    assert np.array_equal(np.asarray(fresh["clear"])[..., 3], clear[..., 3])
    assert not np.array_equal(np.asarray(fresh["clear"])[..., :3], clear[..., :3])
    assert np.array_equal(np.asarray(given["images"][0]), before[0])
    assert np.array_equal(np.asarray(given["clear"]), before[1])
    with pytest.raises(
        PayloadMismatch, match=r"has the mode 'CMYK': convert it with image.convert\(\"RGB\"\)"
    ):
        corrupted([given["images"][0].convert("CMYK")], "gaussian_noise")


def test_only_what_looks_like_images_is_struck():
    """Features, masks and labels of a batch are the same objects afterwards."""
    batch = {
        "image": pictures() / 255,
        "mask": np.ones((3, 1, 24, 32), np.uint8),
        "features": np.random.default_rng(0).random((32, 100)),
        "frames": np.random.default_rng(0).random((5, 24, 32)),
        "label": np.arange(3),
    }
    fresh = corrupted(batch, "gaussian_noise")
    assert [name for name in batch if fresh[name] is not batch[name]] == ["image"]
    named = corrupted(batch, "gaussian_noise", fields=["frames", "mask"])
    assert [name for name in batch if named[name] is not batch[name]] == ["mask", "frames"]


@pytest.mark.parametrize(
    ("images", "keywords", "message"),
    [
        ({"y": np.arange(3)}, {}, "found no images in the batch dict(y: int64[3])"),
        (
            np.ones((2, 3, 16, 16)) * 3,
            {},
            "values outside 0 to 1 (or not finite). Give value_range=(low, high)",
        ),
        (np.ones((2, 3, 16, 16)) - 2, {}, "values outside 0 to 1 (or not finite)"),
        (np.full((2, 3, 16, 16), np.nan), {}, "values outside 0 to 1 (or not finite)"),
        (
            {"x": np.ones((2, 5, 16, 16))},
            {"fields": "x"},
            "x, float64[2, 5, 16, 16], of the batch dict(x: float64[2, 5, 16, 16]): it has no "
            "shape",
        ),
        (
            {"x": np.ones((2, 5, 16, 16))},
            {"fields": "x", "layout": "NCHW"},
            "it has 5 channels, and not 1 or 3",
        ),
        (
            {"x": np.ones((2, 3, 16, 7))},
            {"fields": "x", "layout": "NCHW"},
            "it has a side of less than 8 pixels",
        ),
        ({"x": np.ones((0, 3, 16, 16))}, {"fields": "x", "layout": "NCHW"}, "it is empty"),
        ({"x": np.ones((2, 3, 16, 16), bool)}, {"fields": "x"}, "it has the dtype bool"),
        (
            {"x": np.ones((2, 3, 16, 16), int)},
            {"fields": "x"},
            "which of its values are black and white is not clear",
        ),
        (
            {"x": np.ones((2, 3, 16, 16))},
            {"fields": "z"},
            "found no field 'z' with an array or a picture in the batch",
        ),
        (np.ones((2, 1, 16, 16)), {"kind": "saturate"}, "it is gray, and has no saturation"),
        (
            np.ones((2, 3, 16, 16)),
            {"kind": "brightness"},
            "left batch, float64[2, 3, 16, 16], as it was",
        ),
    ],
)
def test_what_cannot_be_struck_is_refused_by_name(images, keywords, message):
    """Never a silent nothing."""
    with pytest.raises(PayloadMismatch) as caught:
        corrupted(images, **{"kind": "gaussian_noise", **keywords})
    assert "corrupt_image" in str(caught.value)
    assert message in str(caught.value)


def test_without_opencv_the_error_says_what_to_install(monkeypatch):
    """It comes for kinds that need OpenCV. The others work."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pytest-mlchaos\[images\]"):
        corrupted(pictures(), "snow")
    corrupted(pictures(), "fog")
