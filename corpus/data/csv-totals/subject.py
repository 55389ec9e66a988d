"""pandas: the amount paid in each country."""

import json

import pandas as pd


def prepare(workdir):
    payments = pd.DataFrame({"country": list("ABCD") * 50, "amount": range(200)})
    payments.to_csv(workdir / "payments.csv", index=False)
    totals = {"rows": len(payments), "amount": int(payments["amount"].sum())}
    (workdir / "totals.json").write_text(json.dumps(totals))


def pipeline(workdir):
    payments = pd.read_csv(workdir / "payments.csv")
    totals = json.loads((workdir / "totals.json").read_text())
    complete = payments[["country", "amount"]].dropna()
    if {"rows": len(complete), "amount": complete["amount"].sum()} != totals:
        raise ValueError("payments.csv does not match its totals")
    return payments.groupby("country")["amount"].sum().to_dict()
