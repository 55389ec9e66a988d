"""Does the scorer answer in time, and sensibly, while its feature store is slow or down?"""

from examples.serving import sound, unsound
from pytest_mlchaos import chaos

FLOWERS = [f"/score/{flower}" for flower in range(100, 110)]
STORE = "examples.serving.model:FeatureStore.get"
PRIOR = {"score": 1 / 3}


@chaos.latency_spike(target=STORE, delay="2s", at=3)
def test_unsound_waits_with_the_store(mlchaos):
    """One slow look-up makes its request equally slow."""
    load = mlchaos.serve(unsound.app).drive(FLOWERS)
    load.assert_slo(max="500ms", error_rate=0)


@chaos.latency_spike(target=STORE, delay="2s", at=3)
def test_sound_answers_in_time(mlchaos):
    """It gives up after 50 ms and answers with the prior. No other request is affected."""
    load = mlchaos.serve(sound.app).drive(FLOWERS)
    load.assert_slo(max="500ms", error_rate=0)
    load.assert_fallback(json=PRIOR)
    load.assert_isolated()


@chaos.dependency_failure(target=STORE)
def test_unsound_fails_with_the_store(mlchaos):
    """A store that is down makes it answer with status 500."""
    load = mlchaos.serve(unsound.app).drive(FLOWERS)
    load.assert_fallback(json=PRIOR)


@chaos.dependency_failure(target=STORE)
def test_sound_falls_back(mlchaos):
    """Requests with a failed look-up get the prior, and the others get their usual answer."""
    load = mlchaos.serve(sound.app).drive(FLOWERS)
    load.assert_slo(error_rate=0)
    load.assert_fallback(json=PRIOR)
    load.assert_isolated()
