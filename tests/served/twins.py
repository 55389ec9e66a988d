"""Mark a test as one of a sound and an unsound app. A search of the sound one finds nothing."""

import os

import pytest

from pytest_mlchaos import chaos

SOUND_TRIALS = int(os.environ.get("SOUND_TRIALS", "50"))

sound_alone = pytest.mark.parametrize(
    "sound", [pytest.param(True, id="sound", marks=chaos.settings(max_trials=SOUND_TRIALS))]
)
unsound_alone = pytest.mark.parametrize("sound", [pytest.param(False, id="unsound")])
twins = pytest.mark.parametrize(
    "sound",
    [
        pytest.param(True, id="sound", marks=chaos.settings(max_trials=SOUND_TRIALS)),
        pytest.param(False, id="unsound"),
    ],
)
