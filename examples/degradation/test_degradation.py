"""Does an alert see a sensor whose gain grows slowly, from its usual value to three times that?"""

import numpy as np

from examples.degradation import sound, unsound
from pytest_mlchaos import chaos


def readings():
    """Return forty batches of a hundred readings."""
    rng = np.random.default_rng(0)
    return [rng.normal(10.0, 1.0, 100) for _ in range(40)]


def watched(mlchaos, version):
    """Score the readings, and watch the alarm."""
    monitor = version.Monitor()

    def alarm():
        return monitor.alarm

    watch = mlchaos.watch(alarm)
    mlchaos.run(version.score, mlchaos.batches(readings()), monitor)
    return watch


@chaos.corrupt_batch(kind="scale", magnitude=3.0, ramp=20)
def test_unsound_alert(mlchaos):
    """Each batch is a little higher than the one before. No step is large enough."""
    watched(mlchaos, unsound).assert_fired(within=10)


@chaos.corrupt_batch(kind="scale", magnitude=3.0, ramp=20)
def test_sound_alert(mlchaos):
    """The third wrong batch is 30 % too high."""
    watched(mlchaos, sound).assert_fired(within=10)
