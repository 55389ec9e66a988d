"""Does a scorer notice that its feature store was not refreshed for two days?"""

from examples.freshness import sound, unsound
from examples.freshness.store import PRIOR
from pytest_mlchaos import chaos

CUSTOMERS = list(range(1, 6))
not_refreshed = chaos.stale_feature(target="examples.freshness.store:FeatureStore.get", age="2d")


@not_refreshed
def test_unsound_scorer(mlchaos):
    """Its answers look like all others."""
    load = mlchaos.serve(unsound.score).drive(CUSTOMERS)
    load.assert_fallback(value=PRIOR)


@not_refreshed
def test_sound_scorer(mlchaos):
    """It answers with the prior where the features are old, and as usual elsewhere."""
    load = mlchaos.serve(sound.score).drive(CUSTOMERS)
    load.assert_fallback(value=PRIOR)
    load.assert_isolated()
