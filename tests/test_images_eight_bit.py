"""The quicker ways for 8-bit images, against the ways that all images take."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlchaos.faults.images.blur import _disk_sums
from pytest_mlchaos.faults.images.kinds import KINDS
from tests.cases_images import pictures

cv2 = pytest.importorskip("cv2")
QUICK = sorted(kind for kind in KINDS if KINDS[kind].eight_bit)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", QUICK)
def test_the_quicker_way_is_the_same_but_for_rounding(kind, level, channels):
    """At each severity, in colour and gray, wherever the result goes; the images stay as they were."""
    corruption, images = KINDS[kind], np.ascontiguousarray(pictures(3, 50, 61)[..., :channels])
    constants, before = corruption.severities[level - 1], images.copy()
    wanted = corruption.function(
        images.astype(np.float32),
        255.0,
        constants,
        [np.random.default_rng(seed) for seed in range(3)],
    )
    room = np.zeros((3, 50, channels, 61), np.uint8)
    fresh = room.transpose(0, 1, 3, 2)
    corruption.eight_bit(
        images, fresh, constants, [np.random.default_rng(seed) for seed in range(3)]
    )
    assert np.array_equal(images, before)
    assert np.abs(fresh - np.clip(wanted, 0, 255)).max() <= 1.01
    assert not np.array_equal(fresh, images)


@pytest.mark.parametrize("kind", QUICK)
def test_an_image_is_the_same_alone_and_among_others(kind):
    """Pixels, bit by bit, however many images are worked on at once."""
    corruption, images = KINDS[kind], pictures(5, 40, 33)
    together = np.empty_like(images)
    corruption.eight_bit(
        images,
        together,
        corruption.severities[2],
        [np.random.default_rng(seed) for seed in range(5)],
    )
    for seed, image in enumerate(images):
        alone = np.empty_like(image[None])
        corruption.eight_bit(
            image[None], alone, corruption.severities[2], [np.random.default_rng(seed)]
        )
        assert np.array_equal(alone[0], together[seed])


@pytest.mark.parametrize("radius", [2, 3, 4, 5, 6, 7])
def test_sums_over_disks_are_exact(radius):
    """Against a filter of ones, of values so high that nothing may overflow."""
    image = np.random.default_rng(0).integers(200, 256, (20, 31, 3)).astype(np.uint8)
    rim = radius + 1
    wide = (20 + 2 * rim) * (31 + 2 * rim) * 3
    sums, count = _disk_sums(image, radius, np.empty((5, wide), np.uint16))
    reach = np.arange(-radius, radius + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.float64)
    bordered = cv2.copyMakeBorder(image, rim, rim, rim, rim, cv2.BORDER_REFLECT_101).astype(
        np.float64
    )
    wanted = cv2.filter2D(bordered, -1, disk)[radius:-radius, radius:-radius]
    assert count == disk.sum()
    assert np.abs(sums - wanted).max() < 1e-6
