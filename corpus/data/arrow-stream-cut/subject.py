"""pyarrow: the revenue in a stream of record batches."""

import pyarrow as pa
import pyarrow.compute as pc


def prepare(workdir):
    fields = [pa.field("revenue", pa.int64())]
    schema = pa.schema(fields, metadata={"rows": "4000"})
    with pa.ipc.new_stream(str(workdir / "sales.arrows"), schema) as stream:
        for start in range(0, 4000, 1000):
            batch = pa.record_batch([list(range(start, start + 1000))], schema=schema)
            stream.write_batch(batch)


def pipeline(workdir):
    with pa.OSFile(str(workdir / "sales.arrows")) as file, pa.ipc.open_stream(file) as stream:
        sales = stream.read_all()
    return pc.sum(sales["revenue"]).as_py()
