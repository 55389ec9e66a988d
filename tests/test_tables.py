"""Faults of tables on everything that tables are made of."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.sites import Visit
from pytest_mlchaos.errors import BadArgument, PayloadMismatch
from pytest_mlchaos.faults.tables.base import places, table_of
from pytest_mlchaos.oracles.state import first_difference
from pytest_mlchaos.testing import strike

faults.load()

ROWS = 60


def plain():
    """Pandas with its default dtypes."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "number": np.arange(ROWS) * 1.5 + 20,
            "count": np.arange(ROWS) % 7,
            "more": np.arange(ROWS) * 3 % 11,
            "flag": np.arange(ROWS) % 3 == 0,
            "text": [f"Zürich {n % 5}" for n in range(ROWS)],
            "time": pd.date_range("2024-01-01", periods=ROWS, freq="h"),
            "code": pd.Categorical([["a", "b", "c"][n % 3] for n in range(ROWS)]),
        }
    )
    frame.attrs["source"] = "test"
    return frame


def nullable():
    """Pandas with nullable dtypes, values that are missing, a zone, and labels."""
    pd = pytest.importorskip("pandas")
    frame = plain().astype(
        {
            "number": "Float64",
            "count": "Int64",
            "more": "Int64",
            "flag": "boolean",
            "text": "string[python]",
        }
    )
    frame["time"] = frame["time"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    frame.loc[[2, 9], ["count", "text", "number"]] = pd.NA
    return frame.set_axis(pd.Index([f"row {n}" for n in range(ROWS)], name="key"))


def objects():
    """Pandas with texts as objects, one of them None."""
    frame = plain()
    frame["text"] = frame["text"].astype(object)
    frame.loc[1, "text"] = None
    return frame


def arrow_backed():
    """Pandas whose values Arrow holds."""
    pytest.importorskip("pyarrow")
    return plain().convert_dtypes(dtype_backend="pyarrow").assign(code=plain()["code"])


def sparse():
    """Pandas with a sparse column."""
    pd = pytest.importorskip("pandas")
    return plain().assign(count=pd.arrays.SparseArray(np.arange(ROWS) % 7, fill_value=0))


def arrow():
    """Arrow, in chunks, with metadata, and a value that is missing."""
    pa = pytest.importorskip("pyarrow")
    frame = plain()
    frame.loc[4, ["number", "text"]] = None
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(
        {"source": "test"}
    )
    return pa.concat_tables([table.slice(30, 30), table.slice(0, 20), table.slice(20, 10)])


def batch():
    """Arrow, one batch."""
    pytest.importorskip("pyarrow")
    return arrow().combine_chunks().to_batches()[0]


def polars():
    """Polars."""
    return pytest.importorskip("polars").from_arrow(arrow())


def fields():
    """NumPy with fields, read-only."""
    frame = np.zeros(
        ROWS,
        [
            ("number", "f8"),
            ("count", "i4"),
            ("more", "i4"),
            ("flag", "?"),
            ("text", "U8"),
            ("time", "M8[s]"),
            ("code", "S2"),
        ],
    )
    frame["number"], frame["count"], frame["more"] = (
        np.arange(ROWS) * 1.5 + 20,
        np.arange(ROWS) % 7,
        np.arange(ROWS) * 3 % 11,
    )
    frame["flag"], frame["text"] = (
        np.arange(ROWS) % 3 == 0,
        [f"Zürich {n % 5}" for n in range(ROWS)],
    )
    frame["time"], frame["code"] = (
        np.datetime64("2024-01-01", "s") + np.arange(ROWS) * 3600,
        [b"abc"[n % 3 : n % 3 + 1] for n in range(ROWS)],
    )
    frame.flags.writeable = False
    return frame


def records():
    """NumPy's recarray."""
    return fields().copy().view(np.recarray)


CARRIERS = [plain, nullable, objects, arrow_backed, sparse, arrow, batch, polars, fields, records]
VALUES = [
    ("missing_values", {"column": "number"}, ["number"]),
    ("missing_values", {"column": "count", "mechanism": "mnar"}, ["count"]),
    ("missing_values", {"column": "more", "mechanism": "mar", "given": "text"}, ["more"]),
    ("missing_values", {"column": ["text", "time"]}, ["text", "time"]),
    ("missing_feature", {"column": "flag", "mode": "null"}, ["flag"]),
    ("outliers", {}, ["number", "count", "more"]),
    ("unseen_category", {"column": ["text", "code"]}, ["text", "code"]),
    ("unseen_category", {"column": "count"}, ["count"]),
    ("clock_skew", {"by": "-90s"}, ["time"]),
    ("swapped_values", {"column": "number"}, ["number"]),
    ("swapped_values", {"column": ["time", "code"]}, ["time", "code"]),
    ("encoding_errors", {"column": "text"}, ["text"]),
    ("encoding_errors", {"column": "text", "kind": "mojibake"}, ["text"]),
    (
        "stale_feature",
        {"column": ["number", "text"], "lag": 2, "fraction": 0.5},
        ["number", "text"],
    ),
    ("schema_drift", {"kind": "units", "column": "number"}, ["number"]),
    ("schema_drift", {"kind": "units", "column": "count"}, ["count"]),
    ("schema_drift", {"kind": "retyped", "column": ["count", "time"]}, ["count", "time"]),
    ("schema_drift", {"kind": "category_codes", "column": "count"}, ["count"]),
    ("schema_drift", {"kind": "time_zone"}, ["time"]),
    ("schema_drift", {"kind": "float_for_int", "column": "more"}, ["more"]),
]


def struck(name, table, seed=0, **keywords):
    """The table behind one strike; an error is raised."""
    (outcome,) = strike(create(name, at=0, **keywords), [table], seed=seed).outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def listed(table, name):
    """A column as Python's values; what is missing is None, times are texts."""
    if hasattr(table, "schema"):
        values = (
            table[name].to_list()
            if hasattr(table[name], "to_list")
            else table.column(name).to_pylist()
        )
    else:
        values = [
            value.isoformat() if hasattr(value, "isoformat") else value
            for value in table[name].tolist()
        ]
    return [
        None if str(value) in ("None", "nan", "<NA>", "NaT") else str(value) for value in values
    ]


def names(table):
    """Return the names of a table's columns."""
    return list(table_of(table).names)


@pytest.mark.parametrize(
    ("fault", "keywords", "hit"),
    VALUES,
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_values_of_these_columns_alone_change_in_a_copy(carrier, fault, keywords, hit):
    """Same library, same columns, same rows; the input is as it was, and so is every other column."""
    given, before = carrier(), carrier()
    after = struck(fault, given, **keywords)
    assert type(after) is type(given)
    assert names(after) == names(given) and len(after) == ROWS  # noqa: PT018
    zone = fault == "schema_drift" and keywords["kind"] == "time_zone"
    for name in names(before):
        assert listed(given, name) == listed(before, name), "the input was modified"
        if name not in hit:
            assert listed(after, name) == listed(before, name), f"{name} is another"
        elif keywords.get("kind") not in ("retyped", "float_for_int") and not zone:
            assert listed(after, name) != listed(before, name), f"{name} is as it was"
    if zone or keywords.get("kind") in ("retyped", "float_for_int"):
        assert any(
            table_of(after).dtype(place) != table_of(before).dtype(place) for place in range(7)
        ) or listed(after, "time") != listed(before, "time")
    if hasattr(given, "attrs"):
        assert after.attrs == given.attrs
        assert after.index.equals(given.index)
        assert after.index.name == given.index.name
    if hasattr(given, "schema") and hasattr(given.schema, "metadata"):
        assert after.schema.metadata == given.schema.metadata


@pytest.mark.parametrize("carrier", CARRIERS)
def test_the_share_that_is_missing_is_exact(carrier):
    """It is a share of the values that are present, at least one."""
    given = carrier()
    present = sum(value is not None for value in listed(given, "number"))
    for fraction in (0.001, 0.25, 0.9, 1.0):
        left = sum(
            value is not None
            for value in listed(
                struck("missing_values", given, column="number", fraction=fraction), "number"
            )
        )
        assert present - left == max(1, round(fraction * present))


def test_any_rows_may_be_hit():
    """Each about as often as any other, and another seed hits others."""
    hits = np.zeros(50)
    for seed in range(600):
        hits[places(np.random.Generator(np.random.SFC64(seed)), 50, 10)] += 1
    assert hits.sum() == 6000
    assert 80 < hits.min() <= hits.max() < 160
    for size, count in itertools.product((1, 2, 7, 1000), (1, 2, 6, 7, 900, 1000)):
        found = places(np.random.Generator(np.random.SFC64(count)), size, count)
        assert len(set(found.tolist())) == len(found) == min(size, count)
        assert (np.sort(found) == found).all()


def test_values_go_missing_where_the_mechanism_says():
    """At random: where another column is high; not at random: where they are high themselves."""
    given = plain()
    where = {
        mechanism: struck(
            "missing_values", given, column="number", fraction=0.2, mechanism=mechanism, given=other
        )["number"].isna()
        for mechanism, other in (("mcar", None), ("mnar", None), ("mar", "more"))
    }
    assert given.number[where["mnar"]].min() > given.number.quantile(0.58)
    assert given.number[~where["mnar"]].max() > given.number[where["mnar"]].min()
    assert given.more[where["mar"]].min() >= given.more.quantile(0.55)
    assert given.number[where["mcar"]].min() < given.number.median()
    assert where["mnar"].sum() == where["mar"].sum() == where["mcar"].sum() == 12


@pytest.mark.parametrize("carrier", CARRIERS)
def test_columns_drift(carrier):
    """Renamed, dropped, added, and in another order: each column keeps its values."""
    given = carrier()
    renamed = struck("schema_drift", given, column="count", to="total")
    assert names(renamed) == ["number", "total", *names(given)[2:]]
    assert listed(renamed, "total") == listed(given, "count")
    for gone in (
        struck("schema_drift", given, kind="dropped", column="count"),
        struck("missing_feature", given, column="count"),
    ):
        assert names(gone) == [name for name in names(given) if name != "count"]
    added = struck("schema_drift", given, kind="added", to="Unnamed: 0")
    assert names(added) == ["Unnamed: 0", *names(given)]
    assert listed(added, "Unnamed: 0") == [str(n) for n in range(ROWS)]
    for seed in range(20):
        reordered = struck("schema_drift", given, kind="reordered", seed=seed)
        assert sorted(names(reordered)) == sorted(names(given))
        assert names(reordered) != names(given)
        assert all(listed(reordered, name) == listed(given, name) for name in names(given))
    two = names(struck("schema_drift", given, kind="reordered", column=["number", "code"]))
    assert two == ["code", *names(given)[1:-1], "number"]


@pytest.mark.parametrize("carrier", CARRIERS)
def test_rows_come_twice_or_in_another_order(carrier):
    """Whole rows: their values stay together."""
    given = carrier()

    def rows(table):
        return list(zip(*(listed(table, name) for name in names(table)), strict=True))

    twice = rows(struck("duplicate_rows", given, fraction=0.1))
    assert twice[:ROWS] == rows(given)
    assert len(twice) == ROWS + 6
    assert set(twice[ROWS:]) <= set(rows(given))
    other = rows(struck("out_of_order_rows", given, fraction=0.2))
    assert sorted(other, key=str) == sorted(rows(given), key=str)
    assert sum(old != new for old, new in zip(rows(given), other, strict=True)) == 12


@pytest.mark.parametrize("carrier", CARRIERS)
def test_late_rows_turn_up_in_the_next_table_of_their_columns(carrier):
    """Tables of other columns in between have nothing to do with it."""
    tables = [carrier(), np.arange(8.0).reshape(4, 2), carrier(), carrier()]
    first, _, second, third = strike(
        create("late_rows", at=[0, 1, 2], fraction=0.1), tables
    ).outcomes
    assert [len(table) for table in (first, second, third)] == [ROWS - 6, ROWS, ROWS]
    late = (
        set(range(ROWS))
        - {listed(tables[0], "time").index(value) for value in listed(first, "time")}
        if carrier is plain
        else None
    )
    if late is not None:
        assert listed(second, "time")[-6:] == [
            listed(tables[0], "time")[row] for row in sorted(late)
        ]
        assert list(second.index) == list(range(ROWS))
        assert second.attrs == tables[0].attrs
    assert third is tables[3]


def test_a_stale_feature_is_that_of_an_earlier_row_or_table():
    """Row by row; the first table has none before it, which is said."""
    tables = [
        plain(),
        np.arange(8.0).reshape(4, 2),
        plain().assign(number=1.0),
        plain().assign(number=2.0),
    ]
    fault = create("stale_feature", column="number", behind="tables", at=3, lag=2)
    outcomes = strike(fault, tables).outcomes
    assert outcomes[3]["number"].tolist() == tables[0]["number"].tolist()
    assert outcomes[3]["count"].tolist() == tables[3]["count"].tolist()
    shifted = struck("stale_feature", plain(), column="number", lag=3)["number"].tolist()
    assert shifted == [*plain()["number"][:3], *plain()["number"][: ROWS - 3]]
    with pytest.raises(PayloadMismatch, match="there were 0 tables of its columns before it"):
        struck("stale_feature", plain(), behind="tables")
    with pytest.raises(PayloadMismatch, match="too few rows for a lag of 60 rows"):
        struck("stale_feature", plain(), lag=60)


GAPS = {
    "pandas": lambda pd, values: pd.DataFrame({"v": values}, dtype="float64"),
    "nullable": lambda pd, values: pd.DataFrame({"v": pd.array(values, dtype="Int64")}),
    "texts": lambda pd, values: pd.DataFrame(
        {"v": [value and str(value) for value in values]}, dtype=object
    ),
    "NA": lambda pd, values: pd.DataFrame(
        {"v": [pd.NA if value is None else value for value in values]}, dtype=object
    ),
    "arrow": lambda pd, values: pytest.importorskip("pyarrow").table({"v": values}),
    "numpy": lambda pd, values: np.array(
        [(np.nan if value is None else value,) for value in values], dtype=[("v", "f8")]
    ),
}


@pytest.mark.parametrize("carrier", GAPS)
def test_a_stale_feature_comes_with_its_gaps(carrier):
    """All of a column is the earlier one: what is missing now is filled, and what was missing then
    is missing.
    """
    pd = pytest.importorskip("pandas")
    earlier, now = (
        GAPS[carrier](pd, values) for values in ([1, 2, 3, None, 5], [9, None, None, 8, None])
    )
    assert listed(
        strike(create("stale_feature", behind="tables", at=1), [earlier, now]).outcomes[1], "v"
    ) == listed(earlier, "v")
    before = listed(now, "v")
    assert listed(struck("stale_feature", now), "v") == [before[0], *before[:-1]]


@pytest.mark.parametrize("carrier", [plain, fields])
def test_what_an_earlier_table_held_is_kept_whatever_its_owner_does_with_it(carrier):
    """User code fills gaps in place."""
    early, late = carrier().copy(), carrier().copy()
    late["number"] = 7.0
    with_owner = create("stale_feature", column="number", behind="tables", at=1)

    def owner(table):
        kept = table.copy()
        table["number"] = -1.0
        return kept

    assert listed(
        strike(with_owner, [early, late], operation=owner).outcomes[1], "number"
    ) == listed(carrier(), "number")


def test_an_array_with_two_axes_has_columns_without_names():
    """Numbers name them; reordered, nothing tells."""
    given = np.arange(12.0).reshape(4, 3)
    after = struck("missing_values", given, column=1, fraction=1.0)
    assert np.isnan(after[:, 1]).all()
    assert (after[:, [0, 2]] == given[:, [0, 2]]).all()
    assert struck("missing_values", given.astype(int), column=1).dtype == np.float64
    moved = struck("schema_drift", given, kind="reordered")
    assert sorted(moved[0].tolist()) == given[0].tolist()
    assert moved[0].tolist() != given[0].tolist()
    with pytest.raises(
        PayloadMismatch, match=r"ndarray\[4 rows x 3 columns\] .*its columns have no names"
    ):
        struck("schema_drift", given)


def test_a_mapped_file_is_never_written(tmp_path):
    """A copy in memory is changed."""
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(6, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r+")
    after = struck("outliers", mapped)
    assert first_difference(np.asarray(mapped), np.load(tmp_path / "x.npy")) is None
    assert not np.array_equal(after, mapped)


@pytest.mark.parametrize(
    ("fault", "keywords", "says"),
    [
        (
            "missing_values",
            {"column": "numbr"},
            r"it has no column 'numbr' \(did you mean 'number'\?\)",
        ),
        (
            "missing_values",
            {"column": "number", "mechanism": "mar", "given": "txt"},
            r"it has no column 'txt' \(did you mean 'text'\?\)",
        ),
        (
            "outliers",
            {"column": "text"},
            r"the column 'text' is of the dtype \w+, which is not float or integer",
        ),
        (
            "clock_skew",
            {"column": "count"},
            "the column 'count' is of the dtype int64, which is not time",
        ),
        (
            "encoding_errors",
            {"column": ["text", "code"]},
            "the column 'code' is of the dtype category, which is not text",
        ),
        (
            "unseen_category",
            {"column": "count", "value": 3},
            "the column 'count' holds the value already",
        ),
        (
            "unseen_category",
            {"column": "count", "value": "x"},
            "does not take the value. Give a different one with value=",
        ),
        (
            "swapped_values",
            {"between": "columns", "column": ["number", "count"]},
            "their dtypes differ, float64 and int64",
        ),
        (
            "swapped_values",
            {"between": "columns", "column": ["count", "copy"]},
            "they hold the same values",
        ),
        (
            "swapped_values",
            {"column": "constant"},
            "has the same value in all rows that were drawn",
        ),
        ("stale_feature", {"column": "constant"}, "had the same values before"),
        ("encoding_errors", {"column": "ascii", "kind": "mojibake"}, "holds only ASCII"),
        ("schema_drift", {"kind": "units", "column": "zeros"}, "holds only zeros"),
        ("schema_drift", {"to": "count", "column": "number"}, "there is a column 'count' already"),
        ("schema_drift", {"kind": "retyped", "column": "text"}, "is of the dtype"),
        (
            "schema_drift",
            {"kind": "category_codes", "column": "constant"},
            "has fewer than two codes",
        ),
        ("missing_values", {"column": "nothing"}, "the column 'nothing' has no such values"),
        (
            "missing_feature",
            {"column": "nothing", "mode": "null"},
            "the column 'nothing' has no values",
        ),
        (
            "missing_feature",
            {"column": "twin"},
            "2 columns are called 'twin'. Without column=, columns are chosen by position",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name_shape_and_type(fault, keywords, says):
    """Never a silent no-op."""
    table = plain().assign(
        copy=lambda x: x["count"], constant=1, zeros=0.0, ascii="plain", nothing=float("nan")
    )
    table.insert(len(table.columns), "twin", 1)
    table.insert(len(table.columns), "twin", 2, allow_duplicates=True)
    with pytest.raises(
        PayloadMismatch,
        match=rf"{fault} cannot work on DataFrame\[60 rows x 14 columns\] \(number: float64, .*{says}",
    ):
        struck(fault, table, **keywords)


def test_columns_of_one_name_are_told_apart_by_position():
    """Without column=, each is hit."""
    pd = pytest.importorskip("pandas")
    given = pd.DataFrame(np.arange(40.0).reshape(20, 2), columns=["a", "a"])
    after = struck("missing_values", given, fraction=0.5)
    assert after.isna().sum().tolist() == [10, 10]
    assert list(after.columns) == ["a", "a"]
    assert not given.isna().any(axis=None)


def test_columns_that_are_not_hit_are_shared():
    """No copy of what stays as it is."""
    pa = pytest.importorskip("pyarrow")
    given = plain()
    after = struck("missing_values", given, column="count")
    assert np.shares_memory(after["number"].to_numpy(), given["number"].to_numpy())
    table = pa.table({"a": np.arange(9.0), "b": np.arange(9.0)})
    fresh = struck("missing_values", table, column="a")
    assert fresh["b"].chunk(0).buffers()[1].address == table["b"].chunk(0).buffers()[1].address
    assert fresh["a"].chunk(0).buffers()[1].address == table["a"].chunk(0).buffers()[1].address
    assert fresh["a"].null_count == 1


def test_values_that_are_extreme_already_stay_in_their_dtype():
    """Integers at the end of their range move the other way; infinities do not count."""
    pd = pytest.importorskip("pandas")
    given = pd.DataFrame(
        {
            "small": np.array([0, 255, 0, 255], np.uint8),
            "large": np.array([np.inf, 1.0, 2.0, np.nan]),
        }
    )
    after = struck("outliers", given, column="small", fraction=1.0)
    assert after["small"].dtype == np.uint8
    assert (after["small"] != given["small"]).all()
    assert np.isfinite(struck("outliers", given[1:3], column="large", fraction=1.0)["large"]).all()


@pytest.mark.parametrize(
    ("fault", "keywords"),
    [
        ("encoding_errors", {}),
        ("missing_values", {}),
        ("missing_feature", {"mode": "null"}),
        ("stale_feature", {}),
        ("unseen_category", {}),
        ("swapped_values", {}),
        ("swapped_values", {"between": "columns"}),
    ],
)
@pytest.mark.parametrize("series", [False, True])
def test_a_column_of_objects_stays_one(fault, keywords, series):
    """Texts keep their dtype after a fault, and a missing value is None."""
    pd = pytest.importorskip("pandas")
    given = pd.DataFrame(
        {name: pd.Series([f"{name}{n}" for n in range(9)] + [None], dtype=object) for name in "ab"}
    )
    if series and "between" not in keywords:
        (after,) = struck(fault, given["a"], **keywords).to_frame().items()
    else:
        (after, *_) = struck(
            fault, given, column=["a", "b"] if "between" in keywords else "a", **keywords
        ).items()
    assert after[1].dtype == object
    assert {type(value) for value in after[1]} <= {str, type(None)}
    assert after[1].tolist() != given["a"].tolist()


def test_what_is_missing_is_no_text_behind_another_type():
    """Retyped, a gap is a gap: of NumPy's own texts, the empty one."""
    pd = pytest.importorskip("pandas")
    given = pd.DataFrame(
        {
            "float": [1.5, None],
            "time": [pd.Timestamp("2024"), pd.NaT],
            "zone": [pd.Timestamp("2024", tz="UTC"), pd.NaT],
            "Int": pd.array([1, None], dtype="Int64"),
            "sparse": pd.arrays.SparseArray([1.0, None]),
        }
    )
    for name in given:
        for after in (
            struck("schema_drift", given, kind="retyped", column=name)[name],
            struck("schema_drift", given[name], kind="retyped"),
        ):
            assert after.isna().tolist() == [False, True], name
            assert isinstance(after[0], str), name
    for array in (
        np.array([(1.5,), (np.nan,)], dtype=[("x", "f8")]),
        np.array([("2024",), ("NaT",)], dtype=[("x", "M8[s]")]),
    ):
        assert [bool(text) for text in struck("schema_drift", array, kind="retyped")["x"]] == [
            True,
            False,
        ]
    assert struck(
        "schema_drift", np.array([[1.5, np.nan], [np.nan, 2.5]]), kind="retyped"
    ).tolist() == [["1.5", ""], ["", "2.5"]]


UNITS = {
    "pandas": lambda pd, x: pd.DataFrame({"x": x}),
    "nullable": lambda pd, x: pd.DataFrame({"x": pd.array(x)}),
    "sparse": lambda pd, x: pd.DataFrame(
        {"x": pd.arrays.SparseArray(x, fill_value=x.dtype.type(0))}
    ),
    "backed": lambda pd, x: UNITS["arrow"](pd, x).to_pandas(types_mapper=pd.ArrowDtype),
    "arrow": lambda pd, x: pytest.importorskip("pyarrow").table({"x": x}),
    "numpy": lambda pd, x: x.view([("x", x.dtype)]),
    "axes": lambda pd, x: x[:, None],
}


@pytest.mark.parametrize("carrier", UNITS)
@pytest.mark.parametrize(
    ("dtype", "last", "factor", "wide"),
    [
        ("int8", 99, 1000, "int32"),
        ("int8", 99, 100, "int16"),
        ("int8", 9, -2, "int8"),
        ("uint8", 99, 1000, "uint32"),
        ("uint16", 99, -1000, "int32"),
        ("int32", 99, 0.5, "int32"),
        ("int64", 2**53 + 1, 1000, "int64"),
        ("int64", 2**62, 1000.5, "float64"),
        ("float16", 99, 1000, "float32"),
        ("float32", 99, 1e300, "float64"),
    ],
)
def test_other_units_widen_a_dtype_that_they_do_not_fit(carrier, dtype, last, factor, wide):
    """No value ends at the end of its dtype's range: it is the product, in the smallest dtype that
    holds all.
    """
    pd = pytest.importorskip("pandas")
    if (carrier, dtype) == ("nullable", "float16"):
        pytest.skip("pandas has no such dtype")
    given = np.array([0, 1, 50, last], dtype)
    after = struck(
        "schema_drift",
        UNITS[carrier](pd, given),
        kind="units",
        column=0 if carrier == "axes" else "x",
        factor=factor,
    )
    values = after[:, 0] if carrier == "axes" else np.asarray(after["x"])
    product = [
        round(value * factor) if "int" in wide else value * factor for value in given.tolist()
    ]
    assert values.tolist() == (product if "int" in wide else pytest.approx(product, rel=1e-6))
    known = {"float32": "float", "float64": "double"} if carrier in ("arrow", "backed") else {}
    assert known.get(wide, wide) in table_of(after).dtype(0).lower()


@pytest.mark.parametrize(("old", "column", "index"), [("v", "new", "key"), ("key", "v", "new")])
def test_a_renamed_column_of_arrows_leaves_pandas_its_index(old, column, index):
    """The metadata of pandas uses the new name, and other metadata stays."""
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    frame = pd.DataFrame({"v": range(3)}, index=pd.Index(list("abc"), name="key"))
    given = pa.Table.from_pandas(frame)
    given = given.replace_schema_metadata({**given.schema.metadata, "source": "test"})
    after = struck("schema_drift", given, column=old, to="new")
    assert after.schema.metadata[b"source"] == b"test"
    assert after.to_pandas().equals(frame.rename(columns={"v": column}).rename_axis(index))
    assert (list(after.to_pandas()), after.to_pandas().index.name) == ([column], index)
    assert given.to_pandas().equals(frame)
    odd = pa.table({"v": [1]}).replace_schema_metadata({"pandas": "odd"})
    assert struck("schema_drift", odd, column="v").schema.metadata == odd.schema.metadata


def test_category_codes_mean_others():
    """The values are the same, the list is in another order."""
    pa = pytest.importorskip("pyarrow")
    given = plain()
    after = struck("schema_drift", given, kind="category_codes")
    assert after["code"].astype(str).tolist() == given["code"].astype(str).tolist()
    assert (after["code"].cat.codes != given["code"].cat.codes).all()
    table = struck("schema_drift", pa.Table.from_pandas(given), kind="category_codes")
    assert table["code"].to_pylist() == given["code"].tolist()
    assert table["code"].chunk(0).dictionary.to_pylist() != list(given["code"].cat.categories)


def test_a_zone_changes_the_clock_and_not_the_moment():
    """Times without a zone read otherwise."""
    pd = pytest.importorskip("pandas")
    given = nullable()
    after = struck("schema_drift", given, kind="time_zone", hours=-3.5)
    assert (after["time"] == given["time"]).all()
    assert after["time"].dt.hour.tolist() != given["time"].dt.hour.tolist()
    naive = struck("schema_drift", plain(), kind="time_zone", hours=-3.5)
    assert (naive["time"] - plain()["time"] == pd.Timedelta(hours=-3.5)).all()


@pytest.mark.parametrize(
    ("zone", "start", "hours", "offset"),
    [
        ("Asia/Tokyo", "2024-01-01", 2.0, "11h"),
        ("Europe/Berlin", "2024-07-01", 2.0, "4h"),
        ("Europe/Berlin", "2024-01-01", -3.5, "-2.5h"),
        ("UTC", "2024-01-01", 2.0, "2h"),
        ("Asia/Tokyo", "2024-01-01", -9.0, "0h"),
        ("+02:00", "2024-01-01", 2.0, "4h"),
    ],
)
def test_the_clock_is_ahead_of_the_columns_own_zone(zone, start, hours, offset):
    """By the offset that the first time has there; none is a day or more from UTC."""
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    given = pd.DataFrame({"t": [pd.NaT, *pd.date_range(start, periods=3, tz=zone)]})
    table = pa.table(
        {"t": pa.array(given["t"].dt.tz_convert("UTC")).cast(pa.timestamp("ns", zone))}
    )
    for one in (given, table, table.to_pandas(types_mapper=pd.ArrowDtype)):
        after = struck("schema_drift", one, kind="time_zone", hours=hours)
        times = (after if one is not table else after.to_pandas())["t"]
        assert times[1].utcoffset() == pd.Timedelta(offset)
        assert [time == old for time, old in zip(times[1:], given["t"][1:], strict=True)] == [
            True
        ] * 3
        with pytest.raises(PayloadMismatch, match="the column 't' has no values"):
            struck(
                "schema_drift",
                one[:1] if one is not table else one.slice(0, 1),
                kind="time_zone",
                hours=hours,
                column="t",
            )
    if zone == "Asia/Tokyo":
        with pytest.raises(PayloadMismatch, match=r"the column 't' would be \+32 h from UTC"):
            struck("schema_drift", given, kind="time_zone", hours=23.0, column="t")


@pytest.mark.parametrize("dtype", ["f4", "i2", "?", "M8[s]", "U3", "O"])
def test_a_field_that_has_an_array_in_each_row_is_hit_row_by_row(dtype):
    """All of a row's array is missing, or moves, together; other fields stay."""
    given = np.zeros(20, dtype=[("a", "f8"), ("v", dtype, (3,)), ("b", dtype)])
    given["v"], given["b"] = np.arange(60).reshape(20, 3), np.arange(20)
    if dtype == "f4":
        given["v"][4, 1] = np.nan  # a gap within an array is none of the row
    gone = "NaT" if dtype == "M8[s]" else "" if dtype == "U3" else None if dtype == "O" else np.nan

    def missing(table):
        return [sum(str(value) == str(gone) for value in row.ravel()) for row in table["v"]]

    after = struck("missing_values", given, column="v", fraction=0.5)
    assert sum(count == 3 for count in missing(after)) == 10
    assert (after["a"] == given["a"]).all()
    assert after["v"].shape == (20, 3)
    assert missing(struck("missing_feature", given, column="v", mode="null")) == [3] * 20
    assert missing(struck("stale_feature", after, column="v")) == [
        missing(after)[0],
        *missing(after)[:-1],
    ]
    if dtype != "?":
        swapped = struck("swapped_values", given, column="v")
        assert sorted(map(str, swapped["v"])) == sorted(map(str, given["v"]))
        assert sum(map(str.__ne__, map(str, swapped["v"]), map(str, given["v"]))) == 2
    assert struck("missing_values", given)["a"].tolist().count(0.0) == 18
    with pytest.raises(PayloadMismatch, match="their dtypes differ"):
        struck("swapped_values", given, column=["v", "b"], between="columns")
    with pytest.raises(
        PayloadMismatch, match=r"the column 'v' is of the dtype .+\[3\], which is not"
    ):
        struck("outliers", given, column="v")


def test_a_field_that_has_fields_itself_is_refused_by_name():
    """It has no missing value."""
    with pytest.raises(
        PayloadMismatch, match=r"the column 'v' of the dtype .* has no missing value"
    ):
        struck("missing_values", np.zeros(4, dtype=[("a", "f8"), ("v", [("x", "f8")])]), column="v")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("featur_257", "'feature_257'"),
        ("TOTAL", "'total'"),
        ("300", "300"),
        (57, "'57'"),
        ("nothing like it", None),
    ],
)
def test_a_misspelt_column_of_a_wide_table_gets_the_nearest_of_all_names(wrong, meant):
    """However far behind it stands, in another case, or a number."""
    pd = pytest.importorskip("pandas")
    wide = pd.DataFrame(
        [[0.0] * 303] * 2, columns=[*(f"feature_{n}" for n in range(300)), "57", 300, "total"]
    )
    with pytest.raises(PayloadMismatch) as error:
        struck("missing_values", wide, column=wrong)
    assert str(error.value).endswith(
        f"it has no column {wrong!r}" + (f" (did you mean {meant}?)" if meant else "")
    )


@pytest.mark.parametrize("kind", ["timedelta", "period", "duration", "time", "decimal"])
def test_spans_of_time_have_an_order(kind):
    """The highest of them go missing."""
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    numbers = [None, *range(1, 20)]
    given = {
        "timedelta": lambda: pd.DataFrame({"x": pd.to_timedelta(numbers, unit="s")}),
        "period": lambda: pd.DataFrame(
            {
                "x": pd.PeriodIndex(
                    [pd.NaT if n is None else pd.Period(str(2000 + n), freq="Y") for n in numbers]
                )
            }
        ),
        "duration": lambda: pa.table({"x": pa.array(numbers, pa.duration("s"))}),
        "time": lambda: pa.table({"x": pa.array(numbers, pa.time32("s"))}),
        "decimal": lambda: pa.table({"x": pa.array(numbers, pa.int8()).cast(pa.decimal128(20, 2))}),
    }[kind]()
    after = struck("missing_values", given, fraction=0.25, mechanism="mnar")
    column = (
        after["x"].isna().tolist() if hasattr(after, "isna") else after["x"].is_null().to_pylist()
    )
    assert sum(column) == 6  # a quarter of 19, in a window of the ten highest
    assert column[:10] == [True] + [False] * 9


@pytest.mark.parametrize(
    ("fault", "keywords", "says"),
    [
        ("duplicate_rows", {}, "Arrow takes no rows out of 'x', which is of the type string_view$"),
        ("late_rows", {}, "Arrow takes no rows out of 'x', which is of the type string_view$"),
        (
            "out_of_order_rows",
            {},
            "Arrow takes no rows out of 'x', which is of the type string_view$",
        ),
        (
            "swapped_values",
            {"column": "x"},
            "the column 'x' is of the dtype string_view, for which its library has no such "
            "operation$",
        ),
        (
            "stale_feature",
            {"column": "x"},
            "the column 'x' is of the dtype string_view, for which its library has no such "
            "operation$",
        ),
    ],
)
def test_what_arrow_has_not_for_a_type_is_said_by_column_and_type(fault, keywords, says):
    """And not in the library's own words."""
    pa = pytest.importorskip("pyarrow")
    given = pa.table({"n": range(9), "x": pa.array(list("abcdefghi")).cast(pa.string_view())})
    with pytest.raises(
        PayloadMismatch, match=rf"{fault} cannot work on Table\[9 rows x 2 columns\] .*: {says}"
    ):
        struck(fault, given, **keywords)


def test_severities_stand_for_shares():
    """1 hardly to be noticed, 5 half of all; not both."""
    missing = [
        int(
            struck("missing_values", plain(), column="number", severity=severity)["number"]
            .isna()
            .sum()
        )
        for severity in range(1, 6)
    ]
    assert missing == [1, 3, 6, 15, 30]
    with pytest.raises(BadArgument, match="severity=2 stands for fraction"):
        create("missing_values", severity=2, fraction=0.3)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_one_seed_gives_one_table(carrier):
    """And another seed another one."""
    given = carrier()
    one, two, other = (
        listed(struck("missing_values", given, column="number", seed=seed), "number")
        for seed in (1, 1, 2)
    )
    assert one == two != other


ODD = {
    "bool": lambda pa: pa.array([True, None, False] * 4),
    "date": lambda pa: pa.array(range(12), pa.int32()).cast(pa.date32()),
    "zone": lambda pa: pa.array(range(12), pa.timestamp("us", "Asia/Tokyo")),
    "decimal": lambda pa: pa.array(range(12), pa.int8()).cast(pa.decimal128(20, 2)),
    "list": lambda pa: pa.array([[n] for n in range(12)]),
    "struct": lambda pa: pa.array([{"a": n} for n in range(12)]),
    "binary": lambda pa: pa.array([b"%d" % n for n in range(12)]),
    "half": lambda pa: pa.array(np.arange(12, dtype=np.float16)),
    "codes": lambda pa: pa.array(
        [None if n == 3 else n % 3 for n in range(12)]
    ).dictionary_encode(),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("backed", [False, True])
def test_types_that_are_rarely_seen_can_miss_values_and_change_places(kind, backed):
    """Arrow's, in a table of its own or in pandas; cut out of a longer one, too."""
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    given = pa.table({"x": ODD[kind](pa)}).slice(1)
    values = given["x"].to_pylist()
    if backed:
        given = given.to_pandas(types_mapper=pd.ArrowDtype)
    missing = struck("missing_values", given, fraction=0.5)
    swapped = struck("swapped_values", given, fraction=1.0)
    assert type(missing) is type(swapped) is type(given)
    if backed:
        assert missing.dtypes.equals(given.dtypes)
        missing, swapped = (pa.array(frame["x"].array).to_pylist() for frame in (missing, swapped))
    else:
        assert missing.schema == given.schema
        missing, swapped = missing["x"].to_pylist(), swapped["x"].to_pylist()
    present = len(values) - values.count(None)
    assert missing.count(None) - values.count(None) == round(present / 2)
    assert all(new is None or new == old for new, old in zip(missing, values, strict=True))
    assert sorted(map(str, swapped)) == sorted(map(str, values))
    assert swapped != values


def test_what_a_library_cannot_do_for_a_type_is_refused():
    """Run-end encoding, which pyarrow takes no rows out of."""
    pa, pc = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.compute")
    given = pa.table({"x": pc.run_end_encode(pa.array([1, 1, 2, 2]))})
    for fault, keywords in (
        ("duplicate_rows", {}),
        ("swapped_values", {"column": "x"}),
        ("swapped_values", {}),
    ):
        with pytest.raises(
            PayloadMismatch,
            match=rf"{fault} cannot work on Table\[4 rows x 1 columns\] \(x: run_end_encoded",
        ):
            struck(fault, given, **keywords)


def test_a_series_is_a_table_of_one_column():
    """With its name and its index."""
    given = nullable()["count"]
    after = struck("outliers", given, fraction=0.2)
    assert (after.name, after.dtype) == ("count", given.dtype)
    assert after.index.equals(given.index)
    assert (after.dropna() != given.dropna()).sum() == 12
    with pytest.raises(PayloadMismatch, match="no column would be left"):
        struck("missing_feature", given)


def test_the_journal_says_what_was_hit_and_no_values():
    """Names of columns and counts."""
    (entry,) = strike(
        create("missing_values", at=0, column=["number", "text"]), [copy.copy(plain())]
    ).journal
    assert entry.details == {"columns": {"number": 6, "text": 6}}


def test_a_search_tries_each_column():
    """Only the second of three columns matters, so a column that is drawn could miss it."""
    table = {"a": [1, 2], "b": [3, 4], "c": [5, 6]}
    for name, keywords in (("missing_feature", {}), ("schema_drift", {"kind": "retyped"})):
        measures = {}
        visit = Visit("data.table", 0, payload=table, measures=measures)
        fault = create(name, **keywords)
        assert fault.possible(visit)
        assert measures == {"spot": 3}
        found = [struck(name, table, spot=spot, **keywords) for spot in range(4)]
        changed = [[key for key in table if one.get(key) != table[key]] for one in found]
        assert changed == [["a"], ["b"], ["c"], ["a"]]
        assert create(name, at=0, **keywords).is_pinned
