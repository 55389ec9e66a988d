"""May the fit of a tabular model be killed at any moment?"""

from examples.kinds import tabular


def test_any_moment(mlchaos, tmp_path):
    """The coefficients are those of a fit without a crash."""
    mlchaos.explore_crashes(tabular.fit, tmp_path).assert_recovers()
