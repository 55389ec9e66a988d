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
    return payments.groupby("country")["amount"].sum().to_dict()
