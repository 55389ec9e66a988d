"""Does a training run that is killed at any step, and started again, end where it would have ended?"""

from examples.checkpoints import sound, unsound
from pytest_mlchaos import chaos


@chaos.crash
def test_unsound_checkpoint(mlchaos, tmp_path):
    """The generator that shuffles starts again from its seed."""
    run = mlchaos.run(unsound.train, tmp_path)
    run.assert_recovered()


@chaos.crash
def test_sound_checkpoint(mlchaos, tmp_path):
    """Everything is restored."""
    run = mlchaos.run(sound.train, tmp_path)
    run.assert_recovered()
