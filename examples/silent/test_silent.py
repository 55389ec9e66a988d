"""Does anybody notice when one rank sends wrong gradients?"""

from examples.silent import sound, unsound
from pytest_mlchaos import chaos


@chaos.corrupt_contribution
@chaos.settings(max_faults=1, max_trials=10)
def test_unsound_sum(mlchaos):
    """All ranks agree, and are wrong. The golden run shows it."""
    run = mlchaos.world(ranks=2).run(unsound.train)
    run.assert_finished()
    run.assert_in_sync()
    run.assert_recovered()


@chaos.corrupt_contribution
@chaos.settings(max_faults=1, max_trials=10)
def test_sound_sum(mlchaos):
    """A sum that differs the second time is not used."""
    run = mlchaos.world(ranks=2).run(sound.train)
    run.assert_finished()
    run.assert_in_sync()
    run.assert_recovered()
