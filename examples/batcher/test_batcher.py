"""Is a good request answered although a bad one is in its batch?"""

from examples.batcher import sound, unsound
from pytest_mlchaos import chaos

FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.7, 5.1, 1.6], [6.5, 3.0, 5.2, 2.0], [4.9, 3.1, 1.5, 0.1]]
REQUESTS = [("POST", "/classify", flower) for flower in FLOWERS]


@chaos.poisoned_batch
def test_unsound_batcher(mlchaos):
    """A flower with too few measurements takes its whole batch with it."""
    load = mlchaos.serve(unsound.app).drive(REQUESTS, concurrency=4)
    load.assert_isolated()


@chaos.poisoned_batch
def test_sound_batcher(mlchaos):
    """The bad request is refused, and the others get their usual answer."""
    load = mlchaos.serve(sound.app).drive(REQUESTS, concurrency=4)
    load.assert_isolated()
