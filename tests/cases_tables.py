"""Provide the cases for the faults of tables, with pandas."""

from __future__ import annotations

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.testing import Case

ROWS = 40


def people():
    """A DataFrame with a column of each kind, one value missing, labels and attributes."""
    pd = pytest.importorskip("pandas")
    numbers = range(ROWS)
    frame = pd.DataFrame(
        {
            "age": [20 + 1.5 * n for n in numbers],
            "income": [None if n == 5 else 1000.0 * (n % 9) for n in numbers],
            "distance": [3 * n for n in numbers],
            "balance": [n * n % 17 for n in numbers],
            "city": [f"Zürich {n % 5}" for n in numbers],
            "country": pd.Categorical(["CH", "DE", "FR", "IT"][n % 4] for n in numbers),
            "first_name": [f"first {n}" for n in numbers],
            "last_name": [f"last {n}" for n in numbers],
            "seen_at": pd.date_range("2024-01-01", periods=ROWS, freq="h"),
        },
        index=[f"row {n}" for n in numbers],
    )
    frame.attrs["source"] = "test"
    return frame


def empty():
    """The same columns, no rows."""
    return people().iloc[:0]


def twice():
    """Two columns of one name, which is asked for."""
    frame = people()
    return frame.set_axis(["age"] * 2 + list(frame.columns[2:]), axis=1)


def alike():
    """A table of equal rows."""
    return people().iloc[[0] * len(people())]


SHARES = [
    {"fraction": 0},
    {"fraction": 1.5},
    {"fraction": float("nan")},
    {"severity": 6},
    {"target": " "},
]
COLUMNS = [*SHARES, {"column": 1.5}, {"column": []}, {"column": [True]}]
NO_TABLES = [dict, lambda: [object()], empty]
CASES = {
    "missing_values": Case(
        create("missing_values", column="age", mechanism="mar", given="income"),
        people,
        bad=[*COLUMNS, {"mechanism": "mcar"}, {"given": None}],
        wrong=[*NO_TABLES, twice, lambda: people()[["age"]], lambda: people()[["income"]]],
    ),
    "missing_feature": Case(
        create("missing_feature"),
        people,
        bad=[{"mode": "lost"}, {"column": 1.5}, {"severity": 3}],
        wrong=[*NO_TABLES, lambda: people()[["age"]], lambda: people().age],
    ),
    "schema_drift": Case(
        create("schema_drift", kind="units"),
        people,
        bad=[
            {"kind": "gone"},
            {"to": "x"},
            {"hours": 1.0},
            {"factor": 1.0},
            {"factor": float("nan")},
            {"kind": "added", "column": "age"},
            {"severity": 1},
        ],
        wrong=[*NO_TABLES, lambda: people()[["city"]]],
    ),
    "outliers": Case(
        create("outliers"),
        people,
        bad=[*COLUMNS, {"magnitude": 0}, {"magnitude": float("inf")}],
        wrong=[*NO_TABLES, lambda: people()[["city"]]],
    ),
    "duplicate_rows": Case(create("duplicate_rows"), people, bad=SHARES, wrong=NO_TABLES),
    "late_rows": Case(
        create("late_rows"), people, bad=SHARES, wrong=[*NO_TABLES, lambda: people()[:1]]
    ),
    "out_of_order_rows": Case(
        create("out_of_order_rows"),
        people,
        neutral=alike,
        bad=SHARES,
        wrong=[*NO_TABLES, lambda: people()[:1]],
    ),
    "clock_skew": Case(
        create("clock_skew"),
        people,
        bad=[*COLUMNS, {"by": 0}, {"by": "soon"}, {"by": "-0s"}],
        wrong=[*NO_TABLES, lambda: people()[["age"]]],
    ),
    "encoding_errors": Case(
        create("encoding_errors", kind="mojibake", column="city"),
        people,
        bad=COLUMNS,
        wrong=[*NO_TABLES, lambda: people()[["age"]]],
    ),
    "swapped_values": Case(
        create("swapped_values"),
        people,
        neutral=alike,
        bad=[*COLUMNS, {"between": "tables"}, {"between": "columns", "column": "age"}],
        wrong=[*NO_TABLES, lambda: people()[:1]],
    ),
    "stale_feature": Case(
        create("stale_feature"),
        people,
        neutral=alike,
        bad=[*COLUMNS, {"lag": 0}, {"behind": "time"}],
        wrong=[*NO_TABLES, lambda: people()[:1]],
    ),
    "unseen_category": Case(
        create("unseen_category"),
        people,
        bad=COLUMNS,
        wrong=[*NO_TABLES, lambda: people()[["age"]]],
    ),
}
