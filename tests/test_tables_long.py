"""Long tables: copied block by block and taken column by column, with the same result as at once."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.faults.tables.base import all_same, places
from pytest_mlchaos.faults.tables.copies import BLOCK_VALUES, pick, with_others
from pytest_mlchaos.faults.tables.numpy import NumpyColumn
from pytest_mlchaos.testing import strike

faults.load()

ROWS = 70_000
RNG = np.random.default_rng(0)
WHERE = {
    "some": np.flatnonzero(RNG.random(ROWS) < 0.1),
    "few": np.array([0, BLOCK_VALUES - 1, BLOCK_VALUES, ROWS - 1]),
    "all but the first": np.arange(1, ROWS),
    "a stretch over two blocks": np.arange(BLOCK_VALUES - 5, BLOCK_VALUES + 7),
    "twice": np.array([3, 3, 4, 5, 70, 70]),
    "out of order": RNG.permutation(ROWS)[:500],
    "none": np.empty(0, dtype=int),
}


@pytest.mark.parametrize("dtype", ["f8", "i4", "U3", "O", "M8[s]"])
@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE)
def test_a_copy_with_others_is_what_an_assignment_makes_of_one(where, dtype):
    """Whatever the places and the dtype; the array stays as it was."""
    values = np.arange(ROWS).astype("i8").astype(dtype)
    others = values[::-1][: len(where)].copy()
    wanted = values.copy()
    wanted[where] = others
    before = values.copy()
    assert np.array_equal(with_others(values, where, others), wanted)
    assert np.array_equal(values, before)
    assert np.array_equal(pick(values, where), values[where])
    wanted[where] = values[0]
    assert np.array_equal(with_others(wanted, where, values[0]), wanted)


def test_integers_become_floats_where_some_go_missing():
    """In one pass over a long column."""
    fresh = NumpyColumn("a", np.arange(ROWS)).without(WHERE["some"])
    assert fresh.dtype == np.float64
    assert np.array_equal(np.flatnonzero(np.isnan(fresh)), WHERE["some"])


@pytest.mark.parametrize("share", [0.001, 0.02, 0.1, 0.2, 0.7, 1.0])
def test_places_are_distinct_ascending_and_even(share):
    """Their number is the requested one, and each row is equally likely."""
    count = max(1, round(share * ROWS))
    hits = np.zeros(ROWS)
    for seed in range(40):
        where = places(np.random.Generator(np.random.SFC64(seed)), ROWS, count)
        assert len(where) == count
        assert (np.diff(where) > 0).all()
        hits[where] += 1
    halves = hits[: ROWS // 2].sum(), hits[ROWS // 2 :].sum()
    assert abs(halves[0] - halves[1]) <= 5 * (40 * count) ** 0.5
    assert hits.var() == pytest.approx(40 * share * (1 - share), rel=0.05, abs=1e-4)


def test_one_other_value_anywhere_is_seen():
    """Among the first values, and at the end."""
    values = np.zeros(ROWS)
    everywhere = np.arange(ROWS)
    for place in (0, 63, 64, ROWS - 1):
        other = values.copy()
        other[place] = 1
        assert not all_same(
            NumpyColumn("a", values), everywhere, NumpyColumn("b", other), everywhere
        )
    assert all_same(
        NumpyColumn("a", values), everywhere, NumpyColumn("b", values.copy()), everywhere
    )


def frame(index):
    """Columns of many kinds, two of one name."""
    pd = pytest.importorskip("pandas")
    numbers = np.arange(ROWS)
    columns = [
        numbers.astype(float),
        numbers,
        pd.array(numbers % 7, dtype="Int64"),
        pd.Categorical(numbers % 3),
        pd.date_range("2024-01-01", periods=ROWS, freq="s", tz="Europe/Berlin"),
        np.array([f"row {number}" for number in numbers], dtype=object),
        pd.array([str(number) for number in numbers], dtype="string"),
    ]
    table = pd.concat(
        [pd.Series(values, index=index, dtype=values.dtype) for values in columns], axis=1
    )
    table.columns = pd.Index(["a", "a", "c", "d", "e", "f", "g"], name="which")
    table.attrs["source"] = "here"
    return table


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", ["out_of_order_rows", "duplicate_rows", "late_rows"])
def test_rows_of_long_dataframes_move_as_a_whole(name, labelled):
    """Every column in the same order, labels with their rows, and dtypes, names and attributes as
    they were.
    """
    pd = pytest.importorskip("pandas")
    given = frame(pd.Index(np.arange(ROWS) * 2, name="key") if labelled else pd.RangeIndex(ROWS))
    before = given.copy()
    fresh = strike(create(name, at=0), [given]).outcomes[0]
    order = fresh.iloc[:, 1].to_numpy()
    wanted = before.take(order)
    if not labelled:
        wanted.index = pd.RangeIndex(len(order))
    pd.testing.assert_frame_equal(fresh, wanted)
    assert fresh.attrs == before.attrs
    assert not np.array_equal(order, np.arange(ROWS))
    pd.testing.assert_frame_equal(given, before)
    fresh.iloc[0, 0] = -1.0
    pd.testing.assert_frame_equal(given, before)
