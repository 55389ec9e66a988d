"""duckdb: the mean weight in a CSV file."""

import json

import duckdb


def prepare(workdir):
    weights = [(number, 50 + number * 7 % 31) for number in range(120)]
    lines = "".join(f"{person},{weight}\n" for person, weight in weights)
    (workdir / "weights.csv").write_text(f"person,weight\n{lines}")
    totals = {"rows": 120, "sum": sum(weight for _, weight in weights)}
    (workdir / "totals.json").write_text(json.dumps(totals))


def pipeline(workdir):
    columns = "{'person': 'BIGINT', 'weight': 'BIGINT'}"
    query = (
        f"SELECT COUNT(weight), SUM(weight) FROM read_csv('{workdir}/weights.csv', header=true, "
        f"columns={columns}, auto_detect=false, ignore_errors=true)"
    )
    with duckdb.connect() as database:
        rows, total = database.execute(query).fetchone()
    return float(total or 0) / max(1, rows)
