"""May a garden of the federation lie?"""

from examples.federation import gardens, sound, unsound
from pytest_mlchaos import chaos


@chaos.malicious_update
def test_unsound_average(mlchaos):
    """One liar is enough, and the model is worthless for all."""
    run = mlchaos.federation(
        gardens.train,
        unsound.aggregate,
        clients=gardens.GARDENS,
        rounds=3,
        parameters=gardens.START,
        data=gardens.DATA,
        evaluate=gardens.accuracy,
    )
    run.assert_intact()
    run.assert_not_worse(margin=0.05, higher_is_better=True)


@chaos.malicious_update
def test_sound_median(mlchaos):
    """The others outvote it, whatever it sends."""
    run = mlchaos.federation(
        gardens.train,
        sound.aggregate,
        clients=gardens.GARDENS,
        rounds=3,
        parameters=gardens.START,
        data=gardens.DATA,
        evaluate=gardens.accuracy,
    )
    run.assert_intact()
    run.assert_not_worse(margin=0.05, higher_is_better=True)
