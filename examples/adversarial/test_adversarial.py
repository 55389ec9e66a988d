"""Does the model still find faulty parts if readings change within the tolerance of the sensors?"""

from examples.adversarial import sound, unsound
from examples.adversarial.parts import predict, readings
from pytest_mlchaos import assert_metric, chaos

within_tolerance = chaos.adversarial(epsilon=0.2)


def judge(model):
    """Predict parts that the model has not seen."""
    rows, faulty = readings(400, seed=1)
    found = predict(model, rows)
    right = [one == other for one, other in zip(found, faulty.tolist(), strict=True)]
    assert_metric(right, at_least=0.9)


@within_tolerance
def test_unsound_training():
    """The slight readings decide, and they all change at once."""
    judge(unsound.MODEL)


@within_tolerance
def test_sound_training():
    """The clear reading decides."""
    judge(sound.MODEL)
