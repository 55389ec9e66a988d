"""Is the output of the nightly job complete, or absent with an error?"""

import pytest

from examples.kinds import etl
from pytest_mlchaos import chaos


@pytest.fixture
def folder(tmp_path):
    """A folder with the two tables."""
    (tmp_path / "orders.csv").write_text("item,count\na,2\nb,3\na,1\n")
    (tmp_path / "prices.csv").write_text("item,price\na,10\nb,20\n")
    return tmp_path


@chaos.flaky_storage
@chaos.settings(max_trials=8)
def test_flaky_disk(mlchaos, folder):
    """An error of the disk never leaves half a table."""
    mlchaos.pipeline(etl.daily, folder).assert_same_output()
