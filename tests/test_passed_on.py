"""Columns that a pipeline passes on as a fault left them, and those that it computes wrongly."""

from __future__ import annotations

import pytest

from pytest_mlchaos.core.records import Output, Record
from pytest_mlchaos.pipelines.passed_on import is_right_elsewhere, passed_on

BEFORE = [{"id": n, "v": float(n), "w": n * 2} for n in range(6)]
AFTER = [{**row, "v": None} if row["id"] in (1, 4) else row for row in BEFORE]


def output(value, *struck):
    """The output of a call that returned a value."""
    record = Record(value, (), (), 0.0, (), value)
    return Output(record, None, {}, {}, struck=struck)


def names(actual, golden, struck=((BEFORE, AFTER),)):
    """The columns that were passed on."""
    return passed_on(output(actual, *struck), output(golden), 0.0, 0.0, ())


def test_the_struck_table_itself_is_passed_on():
    """Alone, in a container, or with a right number beside it."""
    assert names(AFTER, BEFORE) == ["v"]
    assert names({"rows": AFTER, "sum": 3}, {"rows": BEFORE, "sum": 3}) == ["v"]


def test_some_struck_rows_and_one_record_are_passed_on():
    """A filter, and a look-up."""
    assert names(AFTER[:3], BEFORE[:3]) == ["v"]
    assert names(AFTER[4], BEFORE[4]) == ["v"]


@pytest.mark.parametrize(
    ("actual", "golden"),
    [
        (sum(row["v"] or 0 for row in AFTER), sum(row["v"] for row in BEFORE)),
        ({"rows": AFTER, "sum": 3}, {"rows": BEFORE, "sum": 4}),
        ([row["v"] or 0.0 for row in AFTER], [row["v"] for row in BEFORE]),
        ([{**row, "twice": (row["v"] or 0) * 2} for row in AFTER], BEFORE),
        (AFTER[1:], BEFORE),
        ([{**row, "v": 7.0} for row in AFTER], BEFORE),
    ],
    ids=["a sum", "a sum beside it", "imputed", "one more column", "a lost row", "another value"],
)
def test_what_is_computed_is_not_passed_on(actual, golden):
    """It differs in a way that the fault did not cause by itself."""
    assert names(actual, golden) == []


def test_a_column_without_a_name_and_one_with_a_new_name_are_passed_on():
    """Judge a list, and a column that the pipeline renamed."""
    assert names([row["v"] for row in AFTER], [row["v"] for row in BEFORE]) == [None]
    new = ([{"value": row["v"]} for row in rows] for rows in (AFTER, BEFORE))
    assert names(*new) == ["value"]
    gone = [{"id": row["id"], "w": row["w"]} for row in BEFORE]
    upper = ([{key.upper(): row[key] for key in row} for row in rows] for rows in (gone, BEFORE))
    assert names(*upper, ((BEFORE, gone),)) == ["V"]
    assert names([{"ID": row["id"]} for row in gone], BEFORE, ((BEFORE, gone),)) == []


def test_columns_that_the_fault_renamed_or_removed_are_passed_on():
    """The golden run has the old name."""
    renamed = [{"id": row["id"], "v_1": row["v"], "w": row["w"]} for row in BEFORE]
    assert names(renamed, BEFORE, ((BEFORE, renamed),)) == ["v_1", "v"]
    gone = [{"id": row["id"], "w": row["w"]} for row in BEFORE]
    assert names(gone, BEFORE, ((BEFORE, gone),)) == ["v"]
    assert names(gone, BEFORE) == []


def test_a_different_order_or_type_of_columns_is_passed_on():
    """The values are equal."""
    order = [{"w": row["w"], "v": row["v"], "id": row["id"]} for row in BEFORE]
    pd = pytest.importorskip("pandas")
    frames = pd.DataFrame(order), pd.DataFrame(BEFORE)
    assert names(*frames, ((BEFORE, order),)) == ["w", "v", "id"]
    assert names(order, BEFORE, ((BEFORE, order),)) == ["w", "v", "id"]
    upper = ([{key.upper(): row[key] for key in row} for row in rows] for rows in (order, BEFORE))
    assert names(*upper, ((BEFORE, order),)) == ["W", "V", "ID"]
    assert names(*frames, ((BEFORE, AFTER),)) == []
    floats = [{**row, "w": float(row["w"])} for row in BEFORE]
    assert names(pd.DataFrame(floats), pd.DataFrame(BEFORE), ((BEFORE, floats),)) == ["w"]


def test_repeated_rows_are_passed_on():
    """The whole columns equal those of the struck table."""
    more = [*BEFORE, BEFORE[2]]
    assert set(names(more, BEFORE, ((BEFORE, more),))) == {"id", "v", "w"}


@pytest.mark.slow
def test_frames_of_libraries_are_compared_by_columns():
    """NaN and None are missing values alike."""
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    assert names(pd.DataFrame(AFTER), pd.DataFrame(BEFORE)) == ["v"]
    assert names(pa.Table.from_pylist(AFTER), pa.Table.from_pylist(BEFORE)) == ["v"]
    np = pytest.importorskip("numpy")
    arrays = (np.array([row["v"] for row in rows], dtype=float) for rows in (AFTER, BEFORE))
    assert names(*arrays) == [None]


@pytest.mark.parametrize(
    ("actual", "right"),
    [
        ([row for row in BEFORE if row["id"] not in (1, 4)], True),
        ([{**row, "v": 9.0} if row["id"] in (1, 4) else row for row in BEFORE], True),
        ([row for row in BEFORE if row["id"] not in (1, 3, 4)], False),
        ([{**row, "v": 9.0} for row in BEFORE], False),
        ([BEFORE[0], BEFORE[2], *BEFORE[2:4], *BEFORE[5:]], True),
    ],
    ids=["quarantined", "imputed", "one row too many", "all rows", "filled from the next row"],
)
def test_rows_that_no_fault_struck_are_judged(actual, right):
    """A pipeline may leave out or fill the struck rows, and no others."""
    judged = output(actual, (BEFORE, AFTER)), output(BEFORE)
    assert is_right_elsewhere(*judged, 0.0, 0.0, ()) is right


def test_a_column_by_keys_is_passed_on():
    """A look-up table of all rows."""
    tables = ({row["id"] + 100: row["v"] for row in rows} for rows in (AFTER, BEFORE))
    assert names(*tables) == [None]


def test_a_list_of_the_struck_rows_is_accepted():
    """The quarantine of a run without faults is empty."""
    bad = [row for row in AFTER if row["v"] is None]
    good = [row for row in AFTER if row["v"] is not None]
    judged = output([good, bad], (BEFORE, AFTER)), output([BEFORE, []])
    assert is_right_elsewhere(*judged, 0.0, 0.0, ())
    judged = output([good, [BEFORE[0]]], (BEFORE, AFTER)), output([BEFORE, []])
    assert not is_right_elsewhere(*judged, 0.0, 0.0, ())


def test_struck_rows_are_found_in_a_larger_output():
    """The struck table is one of several parts."""
    more = [{"id": n, "v": float(n), "w": n * 2} for n in range(6, 12)]
    judged = output([BEFORE[0], *BEFORE[2:4], BEFORE[5], *more], (BEFORE, AFTER))
    assert is_right_elsewhere(judged, output([*BEFORE, *more]), 0.0, 0.0, ())
    judged = output([*BEFORE[:4], BEFORE[5], *more[1:]], (BEFORE, AFTER))
    assert not is_right_elsewhere(judged, output([*BEFORE, *more]), 0.0, 0.0, ())


@pytest.mark.slow
def test_pipelines_are_told_apart(example):
    """One passes the column on, one computes with it, and the test may accept the first."""
    outcome = example.with_file(
        "test_them.py",
        """
        import pandas as pd
        import pytest
        from pytest_mlchaos import chaos
        from pytest_mlchaos.errors import PassedOn, SilentlyDifferent


        def table(folder):
            pd.DataFrame({"id": range(9), "v": range(9)}).to_csv(folder / "a.csv", index=False)
            return folder


        def load(folder):
            return pd.read_csv(folder / "a.csv")


        def convert(folder):
            load(folder).to_csv(folder / "b.csv", index=False)


        def add(folder):
            return load(folder), float(load(folder)["v"].sum())


        def fill(folder):
            return load(folder).fillna(-1)


        @pytest.mark.parametrize("how", [load, convert])
        @chaos.missing_values(column="v", at=0)
        def test_passed_on(mlchaos, tmp_path, how):
            run = mlchaos.pipeline(how, table(tmp_path))
            with pytest.raises(PassedOn, match="noticed nothing. All else is right"):
                run.assert_same_output()
            run.assert_same_output(struck_values="passed_on")


        @chaos.missing_values(file="a.csv", column="v", at=0)
        def test_wrong(mlchaos, tmp_path):
            run = mlchaos.pipeline(add, table(tmp_path))
            with pytest.raises(SilentlyDifferent) as raised:
                run.assert_same_output(struck_values="any")
            assert type(raised.value) is SilentlyDifferent


        @chaos.missing_values(file="a.csv", column="v", at=0)
        def test_filled(mlchaos, tmp_path):
            run = mlchaos.pipeline(fill, table(tmp_path))
            with pytest.raises(SilentlyDifferent):
                run.assert_same_output(struck_values="passed_on")
            run.assert_same_output(struck_values="any")
        """,
    ).run()
    assert outcome.outcomes == {"passed": 4}, outcome.text
