"""pandas: the refunds in the Parquet files of a week."""

import pandas as pd

COLUMNS = {"order": "int64", "refund": "int64"}


def prepare(workdir):
    for day in range(4):
        orders = pd.DataFrame({"order": range(50), "refund": [day + n % 9 for n in range(50)]})
        orders.to_parquet(workdir / f"day-{day}.parquet", index=False)


def pipeline(workdir):
    days = [pd.read_parquet(workdir / f"day-{day}.parquet") for day in range(4)]
    for day in days:
        if day.dtypes.astype(str).to_dict() != COLUMNS:
            raise TypeError(f"unexpected columns: {day.dtypes.to_dict()}")
    orders = pd.concat(days, ignore_index=True)
    if len(orders) != 200:
        raise ValueError("orders are missing")
    refunds = pd.to_numeric(orders["refund"].fillna(0))
    return float(refunds.sum())
