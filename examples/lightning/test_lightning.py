"""Does a Lightning run that is killed at any step, and started again, end where it would have
ended?
"""

from examples.lightning import sound, unsound
from pytest_mlchaos import chaos


@chaos.crash
@chaos.settings(max_trials=20)  # each of the 9 steps, and some pairs and threes
def test_unsound_resume(mlchaos, tmp_path):
    """Lightning's checkpoint does not hold the generator that shuffles."""
    run = mlchaos.run(unsound.train, tmp_path)
    run.assert_recovered()


@chaos.crash
@chaos.settings(max_trials=20)  # each of the 9 steps, and some pairs and threes
def test_sound_resume(mlchaos, tmp_path):
    """The sampler shuffles by seed and epoch, so there is nothing to restore."""
    run = mlchaos.run(sound.train, tmp_path)
    run.assert_recovered()
