"""Does a DDP job end if one rank has a batch less than the other?"""

from examples.uneven import sound, unsound
from pytest_mlchaos import chaos


@chaos.drop_batch(rank=1)
@chaos.settings(max_faults=1)
def test_unsound_epoch(mlchaos):
    """Rank 0 reduces gradients with a rank that has left."""
    run = mlchaos.world(ranks=2, grace=2).run(unsound.train)
    run.assert_finished()


@chaos.drop_batch(rank=1)
@chaos.settings(max_faults=1)
def test_sound_epoch(mlchaos):
    """Rank 1 takes part until rank 0 has no batch left."""
    run = mlchaos.world(ranks=2, grace=2).run(sound.train)
    run.assert_finished()
    run.assert_in_sync()
