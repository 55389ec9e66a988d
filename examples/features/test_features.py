"""Does a feature pipeline notice that its table has its columns in a different order?"""

from examples.features import model, sound, unsound
from pytest_mlchaos import chaos

another_order = chaos.schema_drift(kind="reordered")


@another_order
def test_unsound_features(mlchaos):
    """The columns are taken by position, so the model sees petals where it expects sepals."""
    mlchaos.pipeline(unsound.score, model.FLOWERS).assert_same_output()


@another_order
def test_sound_features(mlchaos):
    """It raises, and works again with the original file."""
    run = mlchaos.pipeline(sound.score, model.FLOWERS)
    run.assert_same_output()
    run.again().assert_same_output()
