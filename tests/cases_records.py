"""Provide the cases for the faults of tables, with records of plain Python."""

from __future__ import annotations

import dataclasses
import datetime

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import Case

ROWS = 12


@dataclasses.dataclass(frozen=True)
class Features:
    """Hold what a client of a feature store returns."""

    age: int
    income: float | None
    updated_at: datetime.datetime


def record():
    """One record of named fields."""
    moment = datetime.datetime(2024, 5, 1, 12, 30, tzinfo=datetime.UTC)
    return Features(age=40, income=3.5, updated_at=moment)


def reply():
    """A reply in JSON, with rows inside and one value missing."""
    rows = [
        {"age": 20 + n, "city": f"Zürich {n}", "at": f"2024-05-01T12:{n:02}:00Z"}
        for n in range(ROWS)
    ]
    rows[3]["age"] = None
    del rows[4]["city"]
    return {"status": "ok", "rows": rows}


def lists():
    """A reply that holds one list for each column."""
    return {"age": list(range(ROWS)), "income": [1.5 * n for n in range(ROWS)]}


CASES = {
    "missing_values of records": Case(create("missing_values"), record, wrong=[dict, list]),
    "missing_feature of records": Case(create("missing_feature"), reply, wrong=[record]),
    "schema_drift of records": Case(create("schema_drift", kind="units"), lists),
    "stale_feature of records": Case(
        create("stale_feature", age="2d"),
        record,
        bad=[{"age": 0}, {"lag": 2}, {"behind": "tables"}],
        wrong=[lists],
    ),
    "clock_skew of records": Case(create("clock_skew"), reply, wrong=[lists]),
}
