"""May a study be killed at any moment?"""

from examples.kinds import tuning


def test_any_moment(mlchaos, tmp_path):
    """It ends with as many complete trials, whatever the crash left."""
    report = mlchaos.explore_crashes(tuning.search, tmp_path, compare=[])
    report.assert_recovers()
