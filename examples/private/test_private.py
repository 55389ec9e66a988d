"""Does the job still know how much privacy it has spent?"""

from examples.private import sound, unsound
from pytest_mlchaos import chaos


@chaos.crash(at=17)
def test_unsound_accountant(mlchaos, tmp_path):
    """A restart goes on with the model, and forgets what it has cost."""
    run = mlchaos.run(unsound.train, tmp_path)
    run.assert_privacy_budget(epsilon=8, delta=1e-5)


@chaos.crash(at=17)
def test_sound_accountant(mlchaos, tmp_path):
    """A restart goes on with both."""
    run = mlchaos.run(sound.train, tmp_path)
    run.assert_privacy_budget(epsilon=8, delta=1e-5)
