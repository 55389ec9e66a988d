"""pyarrow: shards written in place, and taken as complete because they exist."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def preprocess(workdir, shards):
    paths = [os.path.join(workdir, f"shard-{i}.parquet") for i in range(shards)]
    for i, path in enumerate(paths):
        if os.path.exists(path):
            continue
        schema = pa.schema([("x", pa.float64())])
        with pq.ParquetWriter(path, schema) as writer:
            for chunk in range(3):
                values = np.random.default_rng([i, chunk]).normal(size=10)
                writer.write_table(pa.table({"x": np.sort(values)}, schema=schema))
    return {
        "sums": [round(float(np.sum(pq.read_table(path)["x"].to_numpy())), 9) for path in paths]
    }
