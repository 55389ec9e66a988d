"""Is each decision right, or left to an officer, while the feature store fails?"""

from examples.scorer import sound, unsound
from pytest_mlchaos import chaos

APPLICANTS = [f"/credit/{applicant}" for applicant in range(3, 11)]
STORE = "examples.scorer.features:FeatureStore.get"
OFFICER = {"decision": "an officer decides"}


@chaos.dependency_failure(target=STORE)
def test_unsound_scorer(mlchaos):
    """It says yes to an applicant with missed payments, and the answer looks as usual."""
    load = mlchaos.serve(unsound.app).drive(APPLICANTS)
    load.assert_no_silent_wrong(or_fallback=OFFICER)


@chaos.dependency_failure(target=STORE)
def test_sound_scorer(mlchaos):
    """It leaves these applicants to an officer. All others get their usual answer."""
    load = mlchaos.serve(sound.app).drive(APPLICANTS)
    load.assert_no_silent_wrong(or_fallback=OFFICER)
    load.assert_isolated()
