"""zarr: the mean of each stretch of a series that is stored in chunks."""

import numpy as np
import zarr


def prepare(workdir):
    series = zarr.create_array(
        str(workdir / "series.zarr"), shape=(400,), chunks=(100,), dtype="f8", fill_value=0
    )
    series[:] = np.random.default_rng(0).normal(5, 1, 400)


def pipeline(workdir):
    series = zarr.open_array(str(workdir / "series.zarr"), mode="r")
    if series.nchunks_initialized != series.nchunks:
        raise ValueError("series.zarr lacks chunks")
    return [float(part.mean()) for part in np.split(series[:], 4)]
