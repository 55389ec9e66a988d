"""Does a missing column harm the applicants of one region more than those of the other?"""

import pytest

from examples.fairness import applicants, sound, unsound
from pytest_mlchaos import chaos

no_rural_incomes = chaos.missing_values(column="income", where={"region": "rural"}, fraction=1.0)


@pytest.fixture
def file(tmp_path):
    """The applicants as a file."""
    return applicants.write(tmp_path / "applicants.csv")


def judge(run):
    """Judge the harm of each region."""
    people = applicants.table()
    run.assert_no_bias_amplification(groups=people["region"], y_true=people["repays"], at_most=0.2)


@no_rural_incomes
def test_unsound_defaults(mlchaos, file):
    """Everybody in the country gets a loan, also those who cannot repay it."""
    judge(mlchaos.pipeline(unsound.decide, file))


@no_rural_incomes
def test_sound_defaults(mlchaos, file):
    """The estimate from the rent is nearly as good as the income."""
    judge(mlchaos.pipeline(sound.decide, file))
