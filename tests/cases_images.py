"""Provide the cases for the faults of images: pictures of stripes, in batches."""

from __future__ import annotations

import importlib.util

import numpy as np

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.faults.images.kinds import KINDS
from pytest_mlchaos.testing import Case

faults.load()


def pictures(count=3, height=24, width=32):
    """Colourful stripes, each picture its own: uint8 [count, height, width, 3]."""
    rows, columns = np.mgrid[:height, :width]
    phases = np.arange(count)[:, None, None]
    waves = np.sin(0.5 * rows + phases) + np.sin(0.3 * columns - phases)
    colors = np.stack([waves, waves * 0.5, -waves], axis=-1)
    return (127 + 60 * colors).astype(np.uint8)


def batch():
    """Images as a training loop gets them: floats, channels first."""
    return {
        "image": (pictures().transpose(0, 3, 1, 2) / 255).astype(np.float32),
        "label": np.arange(3),
    }


def _case(kind, **more):
    return Case(create("corrupt_image", kind=kind), batch, **more)


BAD = [
    {"severity": 0},
    {"severity": 6},
    {"kind": "sharpen"},
    {"layout": "WHC"},
    {"value_range": (1, 0)},
    {"value_range": 3},
    {"value_range": ("a", "b")},
    {"fields": []},
    {"target": " "},
]
WRONG = [
    lambda: {"label": np.arange(3)},
    lambda: {"image": batch()["image"] * 5},
    lambda: {"image": np.full((2, 3, 16, 16), np.nan, np.float32)},
    lambda: {"image": np.ones((2, 3, 7, 16), np.float32)},
    lambda: {"image": np.ones((0, 3, 16, 16), np.float32)},
    lambda: "text",
]
CASES = {"corrupt_image": _case("gaussian_noise", bad=BAD, wrong=WRONG)}
for _kind, _corruption in KINDS.items():
    if not _corruption.opencv or importlib.util.find_spec("cv2") is not None:
        CASES[f"corrupt_image of the kind {_kind}"] = _case(_kind)
