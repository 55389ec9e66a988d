"""polars: the mean delay over the IPC files of a year."""

import polars as pl


def prepare(workdir):
    for month in range(12):
        flights = pl.DataFrame({"flight": range(30), "delay": [month + n % 4 for n in range(30)]})
        flights.write_ipc(workdir / f"month-{month:02}.arrow")


def pipeline(workdir):
    months = [pl.read_ipc(workdir / f"month-{m:02}.arrow") for m in range(12)]
    flights = pl.concat(months, how="diagonal_relaxed")
    if len(flights) != 360:
        raise ValueError("flights are missing")
    return flights["delay"].cast(pl.Int64, strict=False).mean()
