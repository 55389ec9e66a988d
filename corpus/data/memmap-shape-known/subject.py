"""numpy: the largest token id in a mapped file."""

import json

import numpy as np


def prepare(workdir):
    tokens = np.random.default_rng(3).integers(1, 50000, 6000).astype(np.uint16)
    tokens[-1] = 50001
    tokens.tofile(workdir / "tokens.bin")
    (workdir / "tokens.json").write_text(json.dumps({"tokens": len(tokens)}))


def pipeline(workdir):
    count = json.loads((workdir / "tokens.json").read_text())["tokens"]
    if (workdir / "tokens.bin").stat().st_size != 2 * count:
        raise ValueError("tokens.bin is not complete")
    tokens = np.memmap(workdir / "tokens.bin", dtype=np.uint16, mode="r", shape=(count,))
    return int(tokens.max()), len(tokens)
