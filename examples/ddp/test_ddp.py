"""Does a DDP job that loses a rank end, or does the other rank wait forever?"""

from examples.ddp import sound, unsound
from pytest_mlchaos import chaos


@chaos.rank_failure
@chaos.settings(max_faults=1)
def test_unsound_wait(mlchaos, tmp_path):
    """Rank 1 polls for a file that no rank will write."""
    run = mlchaos.world(ranks=2, grace=2).run(unsound.train, tmp_path)
    run.assert_failed_fast(within=2)


@chaos.rank_failure
@chaos.settings(max_faults=1)
def test_sound_wait(mlchaos, tmp_path):
    """A barrier fails as soon as the connection to rank 0 does."""
    run = mlchaos.world(ranks=2, grace=2).run(sound.train, tmp_path)
    run.assert_failed_fast(within=2)
