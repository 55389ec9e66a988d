"""Does a nightly job with a cache notice a file that came late, and a day that was corrected?"""

from pathlib import Path

import pandas as pd
import pytest

from examples.incremental import sound, unsound
from pytest_mlchaos import chaos

a_day_is_late = chaos.damaged_file(path="days/*.csv", kind="missing")


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """Write the sales of two days."""
    (tmp_path / "days").mkdir()
    write(tmp_path, "monday", [10.0, 20.0, 30.0])
    write(tmp_path, "tuesday", [5.0, 5.0])
    return tmp_path


def write(folder: Path, day: str, amounts: list[float]) -> None:
    """Write the sales of a day."""
    pd.DataFrame({"amount": amounts}).to_csv(folder / "days" / f"{day}.csv", index=False)


def correct_monday(folder: Path) -> None:
    """Deliver Monday again: one sale was missing."""
    write(folder, "monday", [10.0, 20.0, 30.0, 40.0])


@a_day_is_late
def test_unsound_late_day(mlchaos, sales):
    """The next night takes the totals from the cache, without the day that was late."""
    run = mlchaos.pipeline(unsound.totals, sales)
    run.again().assert_same_output()


@a_day_is_late
def test_sound_late_day(mlchaos, sales):
    """The next night computes the day that was late, and no other."""
    run = mlchaos.pipeline(sound.totals, sales)
    run.again().assert_same_output()


def test_unsound_corrected_day(mlchaos, sales):
    """The cache has the old totals."""
    run = mlchaos.pipeline(unsound.totals, sales)
    run.again(changed=correct_monday).assert_same_output()


def test_sound_corrected_day(mlchaos, sales):
    """The content is a part of the cache's key."""
    run = mlchaos.pipeline(sound.totals, sales)
    run.again(changed=correct_monday).assert_same_output()
