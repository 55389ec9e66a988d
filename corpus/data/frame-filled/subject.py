"""pandas: the mean consumption of records that a gateway returns."""

import pandas as pd


def prepare(workdir):
    pass


def readings():
    return [{"meter": number % 3, "kwh": 1.0 + number} for number in range(12)]


def pipeline(workdir):
    frame = pd.DataFrame.from_records(readings(), columns=["meter", "kwh"])
    if len(frame) != 12:
        raise ValueError("readings are missing")
    frame = frame.apply(pd.to_numeric).fillna(0)
    return frame.groupby("meter")["kwh"].mean().to_dict()
