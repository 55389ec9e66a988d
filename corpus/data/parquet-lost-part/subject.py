"""pyarrow: the fares of each month, a Parquet file for each."""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def prepare(workdir):
    (workdir / "trips").mkdir()
    rows = {}
    for month in range(1, 5):
        name = f"month-{month}.parquet"
        trips = pa.table({"month": [month] * 100, "fare": [month * 7 + n for n in range(100)]})
        pq.write_table(trips, workdir / "trips" / name, write_page_checksum=True)
        rows[name] = trips.num_rows
    (workdir / "manifest.json").write_text(json.dumps(rows))


def pipeline(workdir):
    fares = {}
    for path in sorted((workdir / "trips").glob("*.parquet")):
        trips = pq.read_table(path, page_checksum_verification=True)
        fares[path.name] = pc.sum(trips["fare"]).as_py()
    return fares
