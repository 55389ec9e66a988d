"""polars: the kilometres in a CSV file."""

import json

import polars as pl


def prepare(workdir):
    trips = pl.DataFrame({"car": [n % 4 for n in range(150)], "km": [n % 37 for n in range(150)]})
    trips.write_csv(workdir / "trips.csv")
    totals = {"rows": len(trips), "km": int(trips["km"].sum())}
    (workdir / "totals.json").write_text(json.dumps(totals))


def pipeline(workdir):
    trips = pl.scan_csv(workdir / "trips.csv", ignore_errors=True).collect()
    return trips["km"].cast(pl.Int64, strict=False).sum()
