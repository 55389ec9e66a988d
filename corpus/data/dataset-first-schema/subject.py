"""pyarrow.dataset: the income in the Parquet files of three regions."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

SCHEMA = pa.schema({"person": pa.int64(), "income": pa.int64()})


def prepare(workdir):
    (workdir / "regions").mkdir()
    for region in range(3):
        people = pa.table([range(100), [region * 10 + n % 7 for n in range(100)]], schema=SCHEMA)
        pq.write_table(people, workdir / "regions" / f"{region}.parquet")


def pipeline(workdir):
    regions = pa.dataset.dataset(workdir / "regions", format="parquet")
    people = regions.to_table()
    if len(people) != 300:
        raise ValueError("people are missing")
    return pc.sum(people["income"]).as_py()
