"""Do the scores tell who was in the training data, if the store of the settings is down?"""

from examples.membership import patients, sound, unsound
from pytest_mlchaos import assert_no_membership_leak, chaos

settings_down = chaos.call_failure(
    target="examples.membership.patients:Settings.decimals", error=ConnectionError
)


def judge(mlchaos, score):
    """Attack the scores of members and of others."""
    scores = mlchaos.pipeline(score, patients.RECORDS).value
    members = len(patients.MEMBERS)
    assert_no_membership_leak(scores[:members], scores[members:])


@settings_down
def test_unsound_fails_open(mlchaos):
    """Members have a confidence of exactly 1."""
    judge(mlchaos, unsound.score)


@settings_down
def test_sound_fails_closed(mlchaos):
    """All scores are the same."""
    judge(mlchaos, sound.score)
