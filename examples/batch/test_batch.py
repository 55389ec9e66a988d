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
    """It gets the features at the second attempt, or raises and leaves no part of a file; the next night it runs as ever."""
    run = mlchaos.pipeline(sound.score, tmp_path / "predictions.csv")
    run.assert_same_output()
    run.again().assert_same_output()


@chaos.call_failure(target="examples.batch.store:lookup", error="ConnectionError", at=[2, 4])
def test_unsound_predictions(mlchaos, tmp_path):
    """The same mistake as a monitor sees it: the flowers of two batches all count as one species, which is now twice as frequent."""
    run = mlchaos.pipeline(unsound.score, tmp_path / "predictions.csv")
    run.assert_no_drift(method="chi2")


@chaos.call_failure(target="examples.batch.store:lookup", error="ConnectionError", at=[2, 4])
def test_sound_predictions(mlchaos, tmp_path):
    """Each failed look-up is made up for by the next one."""
    run = mlchaos.pipeline(sound.score, tmp_path / "predictions.csv")
    run.assert_no_drift(method="chi2")
