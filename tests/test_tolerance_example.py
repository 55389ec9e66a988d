"""Run the example of a breaking point (needs torch), which the demo leaves out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("test_sound_training", 0, "1 passed"),
        ("test_unsound_training", 1, "train breaks between 0.1 and 0.2"),
    ],
)
def test_each_version_survives_what_its_text_says(name, code, words):
    """The unsound one survives 10 % of broken batches, and breaks at 20 %."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"examples/tolerance/test_tolerance.py::{name}"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, done.stdout
    assert words in done.stdout
