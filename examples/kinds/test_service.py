"""Does the service keep its SLO while the feature store is slow?"""

from examples.kinds import service
from pytest_mlchaos import chaos


@chaos.latency_spike(target="examples.kinds.service:FeatureStore.get", delay="2s")
@chaos.settings(max_trials=6)
def test_slow_store(mlchaos):
    """It answers in time, and with the fallback where the store was late."""
    load = mlchaos.serve(service.app).drive([f"/predict/{user}" for user in range(8)])
    load.assert_slo(p99="150ms", error_rate=0)
    load.assert_fallback(json={"score": 0.5})
