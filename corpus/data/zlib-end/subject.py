"""zlib: the norm of a compressed vector."""

import zlib

import numpy as np


def prepare(workdir):
    vector = np.random.default_rng(0).integers(0, 1000, 5000)
    (workdir / "vector.z").write_bytes(zlib.compress(vector.tobytes()))


def pipeline(workdir):
    stream = zlib.decompressobj()
    data = stream.decompress((workdir / "vector.z").read_bytes())
    if not stream.eof:
        raise EOFError("vector.z is not complete")
    vector = np.frombuffer(data, dtype=np.int64)
    return float(np.linalg.norm(vector))
