"""Does a guard that skips bad batches keep broken values out of the model?"""

from examples.lossguard import sound, unsound
from pytest_mlchaos import chaos


@chaos.corrupt_batch(kind="nan", fraction=0.01)
def test_unsound_guard(mlchaos):
    """One missing value makes the loss NaN, every comparison with it is false, and the weights are
    lost.
    """
    run = mlchaos.run(unsound.train)
    run.assert_converged(below=0.3)


@chaos.corrupt_batch(kind="nan", fraction=0.01)
def test_sound_guard(mlchaos):
    """The batch is skipped, and training goes on."""
    run = mlchaos.run(sound.train)
    run.assert_converged(below=0.3)
