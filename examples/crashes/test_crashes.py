"""Do they resume from every state that a crash can leave, and to the same end?"""

from examples.crashes import plain_sound, plain_unsound, sound, unsound


def test_unsound_overwrites(mlchaos, tmp_path):
    """The checkpoint overwrites the previous one."""
    report = mlchaos.explore_crashes(plain_unsound.train, tmp_path)
    report.assert_recovers()


def test_sound_replaces(mlchaos, tmp_path):
    """The checkpoint replaces the previous one once it is complete."""
    report = mlchaos.explore_crashes(plain_sound.train, tmp_path)
    report.assert_recovers(max_lost_steps=3)


def test_unsound_trainer(mlchaos, tmp_path):
    """Lightning saves within the epoch, and the temporary directory is on a different filesystem."""
    report = mlchaos.explore_crashes(unsound.train, tmp_path, cross_device=True)
    report.assert_recovers()


def test_sound_trainer(mlchaos, tmp_path):
    """Lightning saves complete checkpoints."""
    report = mlchaos.explore_crashes(sound.train, tmp_path, cross_device=True)
    report.assert_recovers(max_lost_steps=3)
