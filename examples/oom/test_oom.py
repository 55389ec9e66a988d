"""Does a training run that runs out of memory in a backward pass take the same steps as one that does not?"""

from examples.oom import sound, unsound
from pytest_mlchaos import chaos


@chaos.gpu_oom
def test_unsound_retry(mlchaos):
    """Gradients of the attempt that failed are counted twice."""
    run = mlchaos.run(unsound.train)
    run.assert_recovered(rtol=1e-4, atol=1e-6)


@chaos.gpu_oom
def test_sound_retry(mlchaos):
    """Gradients are cleared before each attempt; sums in another order differ by rounding only."""
    run = mlchaos.run(sound.train)
    run.assert_recovered(rtol=1e-4, atol=1e-6)


@chaos.gpu_oom
def test_unsound_effective_batch(mlchaos):
    """The same, as the optimizer sees it: the steps get longer gradients than those of their batch."""
    mlchaos.run(unsound.train).assert_same_effective_batch()


@chaos.gpu_oom
def test_sound_effective_batch(mlchaos):
    """Two halves of a batch add up to its gradient."""
    mlchaos.run(sound.train).assert_same_effective_batch()
