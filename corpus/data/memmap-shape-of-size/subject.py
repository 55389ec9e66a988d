"""numpy: the largest token id in a mapped file."""

import json

import numpy as np


def prepare(workdir):
    tokens = np.random.default_rng(3).integers(1, 50000, 6000).astype(np.uint16)
    tokens[-1] = 50001
    tokens.tofile(workdir / "tokens.bin")
    (workdir / "tokens.json").write_text(json.dumps({"tokens": len(tokens)}))


def pipeline(workdir):
    tokens = np.memmap(workdir / "tokens.bin", dtype=np.uint16, mode="r")
    return int(tokens.max()), len(tokens)
