"""Does a training run that runs out of memory in a backward pass take the same steps as one that
does not?
"""

from examples.oom import sound, unsound
from pytest_mlchaos import chaos


@chaos.gpu_oom
def test_unsound_retry(mlchaos):
    """Gradients of the failed attempt are counted twice."""
    run = mlchaos.run(unsound.train)
    run.assert_recovered(rtol=1e-4, atol=1e-6)


@chaos.gpu_oom
def test_sound_retry(mlchaos):
    """Gradients are cleared before each attempt. Sums in a different order differ only by rounding."""
    run = mlchaos.run(sound.train)
    run.assert_recovered(rtol=1e-4, atol=1e-6)


@chaos.gpu_oom
def test_unsound_effective_batch(mlchaos):
    """The optimizer sees longer gradients than those of the batch."""
    mlchaos.run(unsound.train).assert_same_effective_batch()


@chaos.gpu_oom
def test_sound_effective_batch(mlchaos):
    """The gradients of two halves of a batch add up to its gradient."""
    mlchaos.run(sound.train).assert_same_effective_batch()
