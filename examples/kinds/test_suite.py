"""An ordinary test suite. One of its tests has a decorator more."""

import pytest

from examples.kinds import suite
from pytest_mlchaos import chaos


@pytest.fixture
def rows(tmp_path):
    """A file with three keys."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "a"}\n{"key": "bb"}\n{"key": "ccc"}\n')
    return path


def test_values(rows):
    """Each key has its value."""
    assert suite.enriched(rows) == [1, 2, 3]


@chaos.call_failure(target="examples.kinds.suite:fetch", error=ConnectionError, times=1)
@chaos.settings(max_trials=6)
def test_values_with_a_flaky_service(rows):
    """A service that fails once changes nothing."""
    assert suite.enriched(rows) == [1, 2, 3]
