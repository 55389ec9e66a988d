"""Does each rank go on with its own random numbers after a restart?"""

from examples.noise import sound, unsound
from pytest_mlchaos import chaos


@chaos.rank_failure
@chaos.settings(max_faults=1, max_trials=8)
def test_unsound_restart(mlchaos, tmp_path):
    """All ranks draw the noise of rank 0."""
    run = mlchaos.world(ranks=2, restarts=1).run(unsound.train, tmp_path)
    run.assert_recovered()


@chaos.rank_failure
@chaos.settings(max_faults=1, max_trials=8)
def test_sound_restart(mlchaos, tmp_path):
    """Each rank draws on where it stood."""
    run = mlchaos.world(ranks=2, restarts=1).run(sound.train, tmp_path)
    run.assert_recovered()
