"""h5py: the mean of a virtual dataset over three files."""

import h5py
import numpy as np


def prepare(workdir):
    layout = h5py.VirtualLayout(shape=(3, 50), dtype="f8")
    for day in range(3):
        with h5py.File(workdir / f"day-{day}.h5", "w", libver="latest") as file:
            file.create_dataset("x", data=np.arange(50.0) + day, chunks=(50,), fletcher32=True)
        layout[day] = h5py.VirtualSource(f"day-{day}.h5", "x", shape=(50,))
    with h5py.File(workdir / "all.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("x", layout, fillvalue=0)


def pipeline(workdir):
    with h5py.File(workdir / "all.h5") as file:
        for source in file["x"].virtual_sources():
            with h5py.File(workdir / source.file_name) as day:
                day[source.dset_name][:]
        return float(file["x"][:].mean())
