"""json: the value of a basket in an API's answer."""

import json
import math

ANSWER = json.dumps({"rows": [{"item": f"i{n}", "price": 2.5 * n} for n in range(1, 9)]})


def prepare(workdir):
    pass


def answer():
    return json.loads(ANSWER)


def pipeline(workdir):
    rows = answer()["rows"]
    if len(rows) != 8:
        raise ValueError("items are missing")
    total = sum(float(row["price"]) for row in rows)
    if not math.isfinite(total):
        raise ValueError("prices are not numbers")
    return total
