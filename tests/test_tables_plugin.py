"""Faults of tables in tests as users write them: unmodified code that reads tables."""

from __future__ import annotations

import sqlite3
import textwrap

import pytest

FEATURES = '''
import sqlite3
import numpy as np
import pandas as pd
import pytest
from pandas import read_csv

FRAME = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "city": ["Genève", "Zürich", "Bern", "Biel"]})

@pytest.fixture
def csv(tmp_path):
    FRAME.to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"

def mean_age(path):
    """Code under test: it knows nothing of faults."""
    return float(read_csv(path)["age"].mean())

def shares(frame):
    """Code under test: each age as a share of all."""
    return (frame["age"] / frame["age"].sum()).to_numpy()

def checked(frame):
    if frame["age"].isna().any():
        raise ValueError("ages are missing")
    return shares(frame)
'''


@pytest.fixture
def people(example):
    """A project with features made from tables."""
    pytest.importorskip("pandas")

    def project(tests):
        return example.with_tests(FEATURES + textwrap.dedent(tests))

    return project


def test_a_table_that_is_read_is_struck_and_the_file_is_not(people):
    """Whatever name the reader was imported by; only at the visit that was asked for."""
    people("""
        @chaos.missing_values(column="age", fraction=1.0, at=1)
        def test_read(csv, mlchaos):
            assert mean_age(csv) == 35.0
            assert np.isnan(mean_age(csv))
            assert mean_age(csv) == 35.0
            assert mlchaos.journal[0].details == {"columns": {"age": 4}}

        @chaos.missing_feature(column="city", at=0)
        def test_gone(csv):
            assert list(pd.read_csv(csv)) == ["age"]
            assert list(pd.read_csv(csv)) == ["age", "city"]

        @chaos.missing_feature(column="city", at=chaos.EVERY, where=lambda visit: visit.attributes["reader"] == "pandas.read_table")
        def test_where(csv):
            assert list(pd.read_csv(csv)) == ["age", "city"]
            assert list(pd.read_table(csv, sep=",")) == ["age"]

        def test_afterwards(csv):
            assert mean_age(csv) == 35.0
            assert not hasattr(read_csv, "__wrapped__") and pd.read_csv is read_csv
    """).run(fresh=True, passed=4)


def test_a_call_of_a_reader_is_one_visit_whatever_it_calls(people):
    """Pandas reads Parquet and Feather with pyarrow."""
    pytest.importorskip("pyarrow")
    people("""
        import pyarrow as pa, pyarrow.csv, pyarrow.feather, pyarrow.parquet as pq
        from pyarrow.parquet import read_table

        def names(table):
            if isinstance(table, np.ndarray): return list(table.dtype.names)
            return list(table.columns) if isinstance(table, pd.DataFrame) else table.schema.names

        def files(path):
            FRAME.to_parquet(path / "t.parquet")
            FRAME.to_feather(path / "t.feather")
            FRAME.to_csv(path / "t.csv", index=False)
            np.save(path / "t.npy", FRAME.to_records(index=False, column_dtypes={"city": "U9"}))
            table = pa.Table.from_pandas(FRAME)
            with pa.ipc.new_file(path / "t.arrow", table.schema) as file, pa.ipc.new_stream(path / "t.arrows", table.schema) as stream:
                file.write(table)
                stream.write(table)

        READERS = [
            lambda path: pd.read_parquet(path / "t.parquet"),
            lambda path: pd.read_feather(path / "t.feather"),
            lambda path: read_table(path / "t.parquet"),
            lambda path: pq.read_pandas(path / "t.parquet"),
            lambda path: pq.ParquetFile(path / "t.parquet").read(),
            lambda path: next(iter(pq.ParquetFile(path / "t.parquet").iter_batches(batch_size=9))),
            lambda path: pyarrow.csv.read_csv(path / "t.csv"),
            lambda path: pyarrow.feather.read_table(path / "t.feather"),
            lambda path: pa.ipc.open_file(path / "t.arrow").read_all(),
            lambda path: pa.ipc.open_file(path / "t.arrow").get_batch(0),
            lambda path: pa.ipc.open_file(path / "t.arrow").read_pandas(),
            lambda path: pa.ipc.open_stream(path / "t.arrows").read_all(),
            lambda path: next(iter(pa.ipc.open_stream(path / "t.arrows"))),
            lambda path: pa.ipc.open_stream(path / "t.arrows").read_next_batch(),
            lambda path: pa.csv.open_csv(path / "t.csv").read_all(),
            lambda path: pa.Table.from_batches(pa.csv.open_csv(path / "t.csv")),
            lambda path: np.load(path / "t.npy"),
            lambda path: np.genfromtxt(path / "t.csv", names=True, delimiter=",", dtype=None, encoding="utf-8"),
        ]

        @chaos.schema_drift(kind="dropped", column="city", at=range(len(READERS)))
        def test_all(tmp_path, mlchaos):
            files(tmp_path)
            for number, read in enumerate(READERS):
                table = read(tmp_path)
                assert names(table) == ["age"], number
                assert len(mlchaos.journal) == number + 1, number
            assert pq.read_metadata(tmp_path / "t.parquet").num_rows == 4
            np.save(tmp_path / "other.npy", np.ones((4, 2)))
            assert np.load(tmp_path / "other.npy").shape == (4, 2)
            assert isinstance(pa.csv.open_csv(tmp_path / "t.csv"), pa.RecordBatchReader)

        def test_afterwards():
            assert "read_all" not in vars(pa.ipc.RecordBatchFileReader)
    """).run(fresh=True, passed=2)


def test_each_chunk_of_a_reader_is_a_visit(people):
    """The reader is the library's own otherwise; workbooks and queries give several tables, too."""
    people("""
        @chaos.missing_values(column="age", fraction=1.0, at=[1, 3])
        def test_chunks(csv, mlchaos):
            with pd.read_csv(csv, chunksize=2) as reader:
                assert isinstance(reader, pd.io.parsers.TextFileReader)
                first, second = reader
            assert first["age"].tolist() == [20.0, 30.0] and second["age"].isna().all()
            reader = pd.read_csv(csv, iterator=True)
            assert reader.get_chunk(1)["age"].tolist() == [20.0]
            assert reader.get_chunk(2)["age"].isna().all()
            assert reader.read()["age"].tolist() == [50.0]
            assert reader.chunksize is None
            reader.close()

        @chaos.missing_values(column="age", fraction=1.0, at=[1, 2])
        def test_query():
            with sqlite3.connect(":memory:") as base:
                FRAME.to_sql("people", base, index=False)
                first, second = pd.read_sql("select * from people", base, chunksize=2)
                assert first["age"].notna().all() and second["age"].isna().all()
                assert pd.read_sql_query("select * from people", base)["age"].isna().all()
                base.commit()
    """).run(fresh=True, passed=2)
    assert sqlite3.sqlite_version


def test_what_is_read_lazily_is_struck_as_a_whole(example):
    """When it is scanned; a query is planned by the columns that are left, and what a reader scans
    by itself is one visit.
    """
    pytest.importorskip("polars")
    example.with_tests("""
        import polars as pl
        import pytest
        from polars import scan_parquet

        @pytest.fixture
        def path(tmp_path):
            pl.DataFrame({"age": [20.0, 30.0, 40.0], "city": ["a", "b", "c"]}).write_parquet(tmp_path / "t.parquet")
            return tmp_path / "t.parquet"

        def ages(query):
            return query.filter(pl.col("city") != "b").select("age").collect()["age"].to_list()

        @chaos.missing_values(column="age", fraction=1.0, at=[1, 3])
        def test_scan(path, mlchaos):
            assert ages(scan_parquet(path)) == [20.0, 40.0]
            assert ages(scan_parquet(path)) == [None, None]
            assert pl.read_parquet(path)["age"].null_count() == 0
            assert pl.read_parquet(path)["age"].null_count() == 3
            assert ages(pl.collect_all([scan_parquet(path)])[0].lazy()) == [20.0, 40.0]
            assert mlchaos.journal[0].details == {"columns": {"age": 3}}

        @chaos.schema_drift(kind="dropped", column="age", at=0)
        def test_drift(path):
            with pytest.raises(pl.exceptions.ColumnNotFoundError):
                ages(scan_parquet(path))
            with pytest.raises(FileNotFoundError):
                scan_parquet(path.with_name("other")).collect()

        @chaos.missing_values(column="agee", at=0)
        def test_typo(path):
            scan_parquet(path).collect()
    """).run(fresh=True, passed=2, failed=1).has("it has no column 'agee' (did you mean 'age'?)")


def test_an_open_store_of_tables_is_struck(people):
    """Whatever method gives the table, in chunks too."""
    pytest.importorskip("tables")
    people("""
        @chaos.missing_values(column="age", fraction=1.0, at=[1, 3])
        def test_store(tmp_path):
            FRAME[["age"]].to_hdf(tmp_path / "t.h5", key="people", format="table")
            with pd.HDFStore(tmp_path / "t.h5", "r") as store:
                missing = [store[key]["age"].isna().all() for key in ("people", "people")]
                missing += [chunk["age"].isna().all() for chunk in store.select("people", chunksize=2)]
                assert missing == [False, True, False, True]
                assert len(store.select("people")) == 4 and store.keys() == ["/people"]
    """).run(fresh=True, passed=1)


def test_a_library_that_the_body_imports_is_reached(example):
    """The test's module knows none."""
    pytest.importorskip("pandas")
    example.with_file(
        "features.py", "import pandas\ndef load(path): return pandas.read_csv(path)"
    ).with_tests("""
        @chaos.missing_feature(column="a", at=0)
        def test_late(tmp_path):
            (tmp_path / "t.csv").write_text("a,b\\n1,2\\n")
            import features
            assert list(features.load(tmp_path / "t.csv")) == ["b"]
            assert list(features.load(tmp_path / "t.csv")) == ["a", "b"]
    """).run(fresh=True, passed=1)


def test_what_a_target_returns_is_struck(people):
    """The target may be a client of a feature store. A result that is not a table is reported."""
    outcome = people("""
        def fetch(): return FRAME.copy()
        def count(): return len(FRAME)

        @chaos.outliers(column="age", severity=5, at=0, target="test_it:fetch")
        def test_target():
            assert fetch()["age"].max() > 1000
            assert fetch()["age"].equals(FRAME["age"])

        @chaos.outliers(at=0, target="test_it:count")
        def test_no_table():
            count()
    """).run(fresh=True, passed=1, failed=1)
    outcome.has(
        "PayloadMismatch: outliers: what test_it:count returns is not a table but int. It works on "
        "DataFrames"
    )


def test_tables_that_a_pipeline_is_given_are_struck_and_its_golden_run_is_not(people):
    """Silent damage is told, a refusal passes; the caller's table is as it was."""
    outcome = people("""
        @chaos.missing_values(column="age")
        def test_silent(mlchaos):
            mlchaos.pipeline(shares, FRAME).assert_same_output()

        @chaos.missing_values(column="age")
        def test_refuses(mlchaos):
            run = mlchaos.pipeline(checked, FRAME)
            run.assert_same_output()
            if run.faults:
                assert "ages are missing" in str(run.error)
                run.again().assert_same_output()
            assert FRAME["age"].tolist() == [20.0, 30.0, 40.0, 50.0]

        @chaos.duplicate_rows(fraction=1.0, at=1)
        def test_second_argument(mlchaos):
            run = mlchaos.pipeline(lambda one, number, other: (len(one), number, len(other)), FRAME, 7, np.ones((3, 2)))
            assert run.value == (4, 7, 6) and run.golden.value == (4, 7, 3)
            assert len(run.faults) == 1
    """).run(fresh=True, passed=2, failed=1)
    outcome.has(
        "SilentlyDifferent: the pipeline raised nothing",
        'reproduce: @chaos.missing_values(at=0, column="age")'.replace('"', "'"),
    )


def test_a_column_that_is_not_there_is_no_verdict_on_the_code_under_test(people):
    """The fault is wrong; the message names the column that was meant, and no value."""
    outcome = people("""
        @chaos.missing_values(column="agee", at=0)
        def test_typo(csv):
            mean_age(csv)

        @chaos.clock_skew(at=0)
        def test_no_times(csv):
            mean_age(csv)

        @chaos.clock_skew(at=3)
        def test_never(csv):
            mean_age(csv)
    """).run(fresh=True, failed=3)
    outcome.has(
        "missing_values cannot work on DataFrame[4 rows x 2 columns] (age: float64, <str column 2 "
        "of 2>: "
    )
    outcome.has(
        "it has no column 'agee' (did you mean 'age'?)",
        "it has no column of the kind time that it can change",
    )
    outcome.has("NeverStruck")
    assert "20.0" not in outcome.text


def test_late_rows_come_with_the_next_file(people):
    """Rows are only moved, so nothing is lost in the sum."""
    people("""
        @chaos.late_rows(fraction=0.5, at=[0, 1])
        def test_late(csv):
            lengths = [len(pd.read_csv(csv)) for _ in range(3)]
            assert lengths == [2, 4, 4]
    """).run(fresh=True, passed=1)
