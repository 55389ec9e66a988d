"""datasets: the tokens in three Parquet files."""

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

datasets.disable_progress_bars()
FEATURES = datasets.Features({"id": datasets.Value("int64"), "tokens": datasets.Value("int64")})


def prepare(workdir):
    for part in range(3):
        texts = pa.table({"id": list(range(20)), "tokens": [part + n % 6 for n in range(20)]})
        pq.write_table(texts, workdir / f"part-{part}.parquet")


def pipeline(workdir):
    parts = [
        datasets.Dataset(pa.table(pq.read_table(workdir / f"part-{part}.parquet")))
        for part in range(3)
    ]
    if any(part.features != FEATURES for part in parts):
        raise TypeError("unexpected features")
    texts = datasets.concatenate_datasets(parts)
    if len(texts) != 60:
        raise ValueError("texts are missing")
    return sum(int(tokens) for tokens in texts["tokens"])
