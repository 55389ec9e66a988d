"""May a rank of this job die while the others save?"""

from examples.ranksave import sound, unsound


def test_unsound_save(mlchaos, tmp_path):
    """The files of the ranks are of different epochs."""
    report = mlchaos.world(ranks=2).explore_crashes(unsound.train, tmp_path / "work", max_states=24)
    report.assert_recovers()


def test_sound_save(mlchaos, tmp_path):
    """A checkpoint counts when all of its files are there."""
    report = mlchaos.world(ranks=2).explore_crashes(sound.train, tmp_path / "work", max_states=24)
    report.assert_recovers()
