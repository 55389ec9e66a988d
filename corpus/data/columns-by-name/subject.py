"""numpy: the mean temperature in the CSV files of three stations."""

import numpy as np


def prepare(workdir):
    for station in range(3):
        rows = [f"{hour},{station * 5 + hour % 9},{900 + hour}\n" for hour in range(48)]
        text = "hour,temperature,pressure\n" + "".join(rows)
        (workdir / f"station-{station}.csv").write_text(text)


def pipeline(workdir):
    means = []
    for station in range(3):
        text = (workdir / f"station-{station}.csv").read_text()
        header, *lines = text.splitlines()
        if len(lines) != 48 or not text.endswith("\n"):
            raise ValueError(f"station {station} is not complete")
        if header != "hour,temperature,pressure":
            raise ValueError(f"unexpected columns: {header}")
        values = np.genfromtxt(lines, delimiter=",", usecols=1)
        if np.isnan(values).any():
            raise ValueError(f"station {station} has missing values")
        means.append(float(np.mean(values)))
    return means
