"""Does a batch job whose feature store fails put out the same predictions, or none?"""

from examples.batch import sound, unsound
from pytest_mlchaos import chaos

store_fails = chaos.call_failure(target="examples.batch.store:lookup", error="ConnectionError")


@store_fails
def test_unsound_batch_job(mlchaos, tmp_path):
    """A flower without features is scored as if it measured nothing."""
    run = mlchaos.pipeline(unsound.score, tmp_path / "predictions.csv")
    run.assert_same_output()


@store_fails
def test_sound_batch_job(mlchaos, tmp_path):
    """It gets the features at the second attempt, or raises and leaves no part of a file."""
    run = mlchaos.pipeline(sound.score, tmp_path / "predictions.csv")
    run.assert_same_output()
    run.again().assert_same_output()


@chaos.call_failure(target="examples.batch.store:lookup", error="ConnectionError", at=[2, 4])
def test_unsound_predictions(mlchaos, tmp_path):
    """A monitor sees the same mistake: one species is twice as frequent."""
    run = mlchaos.pipeline(unsound.score, tmp_path / "predictions.csv")
    run.assert_no_drift(method="chi2")


@chaos.call_failure(target="examples.batch.store:lookup", error="ConnectionError", at=[2, 4])
def test_sound_predictions(mlchaos, tmp_path):
    """The next look-up makes up for each failed one."""
    run = mlchaos.pipeline(sound.score, tmp_path / "predictions.csv")
    run.assert_no_drift(method="chi2")
