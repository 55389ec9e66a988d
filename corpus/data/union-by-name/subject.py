"""duckdb: the energy in the Parquet files of four meters."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq


def prepare(workdir):
    for meter in range(4):
        hours = pa.table({"hour": list(range(24)), "kwh": [meter + n % 5 for n in range(24)]})
        pq.write_table(hours, workdir / f"meter-{meter}.parquet")


def pipeline(workdir):
    with duckdb.connect() as database:
        hours = database.read_parquet(f"{workdir}/meter-*.parquet", union_by_name=True)
        rows, kwh = hours.aggregate("COUNT(*), SUM(TRY_CAST(kwh AS DOUBLE))").fetchall()[0]
    if rows != 96:
        raise ValueError("hours are missing")
    return kwh
