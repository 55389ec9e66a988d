"""pandas: a report in JSON."""

import os

import pandas as pd


def prepare(workdir):
    pass


def pipeline(workdir):
    sales = pd.DataFrame({"shop": list("abc") * 200, "sales": range(600)})
    totals = sales.groupby("shop", as_index=False)["sales"].sum()
    with open(workdir / "report.json.tmp", "w") as file:
        totals.to_json(file)
    os.replace(workdir / "report.json.tmp", workdir / "report.json")
    return len(totals)
