"""pandas: a report in JSON."""

import os

import pandas as pd


def prepare(workdir):
    pass


def pipeline(workdir):
    sales = pd.DataFrame({"shop": list("abc") * 200, "sales": range(600)})
    totals = sales.groupby("shop", as_index=False)["sales"].sum()
    try:
        with open(workdir / "report.json", "w") as file:
            totals.to_json(file)
    except OSError as error:
        print(f"no report: {error}")
    return len(totals)
