"""Which share of broken batches does a training survive?"""

from examples.tolerance import sound, unsound
from pytest_mlchaos import chaos

BROKEN = chaos.corrupt_batch(kind="nan", fraction=0.1, p=chaos.scale(0, 0.4, steps=8))


def is_trained(run):
    """Return True if the classifier has learned the flowers."""
    return run.value < 0.3


@chaos.settings(timeout="10m")
def test_unsound_training(mlchaos):
    """It survives 10 % of broken batches, and gives up at 20 %."""
    point = mlchaos.breaking_point(unsound.train, BROKEN, is_trained)
    point.assert_survives(0.1)
    point.assert_survives(0.2)


@chaos.settings(timeout="10m")
def test_sound_training(mlchaos):
    """It learns from the others."""
    point = mlchaos.breaking_point(sound.train, BROKEN, is_trained)
    point.assert_survives(0.2)
