"""Does a job that gets SIGTERM, and has 30 seconds, save what it has done so far?"""

from examples.preempt import sound, unsound
from pytest_mlchaos import chaos


@chaos.preempt(grace="30s")
def test_unsound_handler(mlchaos, tmp_path):
    """An epoch takes a minute: SIGKILL comes first."""
    run = mlchaos.run(unsound.train, tmp_path)
    run.assert_recovered()
    run.assert_emergency_save()


@chaos.preempt(grace="30s")
def test_sound_handler(mlchaos, tmp_path):
    """A step takes four seconds."""
    run = mlchaos.run(sound.train, tmp_path)
    run.assert_recovered()
    run.assert_emergency_save()
