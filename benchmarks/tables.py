"""Compare faults of tables with those of Jenga and havoc-monkey.

``python benchmarks/tables.py [--rows N] [--rounds N] [--json FILE]`` needs jenga and havoc-monkey
(``nox -s peers`` installs them). Each tool does the same to the same DataFrame, in turns, and the
result is the median of rows per second. ``measure`` is the short part for ``benchmarks/run.py``,
without the peers.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import timeit
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timing import Figure, Samples, Spread, compare, interleaved, milliseconds

from pytest_mlchaos import __version__
from pytest_mlchaos.core.faults import EVERY, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.faults import load

NEEDS = "pandas"
ROWS, COLUMNS, TEXTS = 1_000_000, 10, 20_000
SHARE = 0.1
PACKAGES = ("havoc-monkey", "jenga", "pandas", "numpy", "pyarrow")
NAMES = [f"c{number}" for number in range(COLUMNS)]
OURS = "pytest-mlchaos"
Side = Callable[[], Any]


def numbers(rows: int) -> Any:
    """Return ten columns of float64."""
    import numpy as np
    import pandas as pd

    return pd.DataFrame(np.random.default_rng(0).random((rows, COLUMNS)), columns=NAMES)


def times(rows: int) -> Any:
    """Return the same with a first column of times."""
    import pandas as pd

    frame = numbers(rows)
    frame["c0"] = pd.date_range("2024-01-01", periods=rows, freq="s")
    return frame


def texts(rows: int) -> Any:
    """Return one column of texts."""
    import pandas as pd

    return pd.DataFrame(
        {"t": [f"a city or another, number {number % 1000}" for number in range(rows)]}
    )


def fault(name: str, table: Any, **keywords: Any) -> Side:
    """Return a visit that this fault strikes, as in a test."""
    controller = Controller(Schedule((create(name, at=EVERY, **keywords),), 0))
    return lambda: controller.visit("data.table", table)


def ours(rows: int) -> dict[str, tuple[Any, Side]]:
    """Return for each operation the table and the fault."""
    plain, timed, text = numbers(rows), times(rows), texts(min(rows, TEXTS))
    column: dict[str, Any] = {"column": "c3", "fraction": SHARE}
    return {
        "missing values, 1 of 10 columns": (plain, fault("missing_values", plain, **column)),
        "missing values, 10 of 10 columns": (plain, fault("missing_values", plain, fraction=SHARE)),
        "outliers, 1 of 10 columns": (plain, fault("outliers", plain, magnitude=5.0, **column)),
        "values swapped between 2 of 10": (
            plain,
            fault("swapped_values", plain, column=["c3", "c4"], between="columns", fraction=SHARE),
        ),
        "times 2 h early, 1 of 10 columns": (
            timed,
            fault("clock_skew", timed, column="c0", by="-2h", fraction=SHARE),
        ),
        "columns in another order": (plain, fault("schema_drift", plain, kind="reordered")),
        f"broken texts, {len(text)} rows": (text, fault("encoding_errors", text, fraction=SHARE)),
    }


def of_havoc_monkey(tables: dict[str, Any]) -> dict[str, Side]:
    """Return its operations under the same names."""
    from havoc_monkey import HavocMonkey

    monkey = HavocMonkey(seed=0)
    made: dict[str, Callable[[Any], Any]] = {
        "missing values, 1 of 10 columns": lambda table: monkey.null_flood(
            table, cols=["c3"], pct=SHARE
        ),
        "missing values, 10 of 10 columns": lambda table: monkey.null_flood(
            table, cols=NAMES, pct=SHARE
        ),
        "outliers, 1 of 10 columns": lambda table: monkey.outlier_inject(
            table, cols=["c3"], sigma=5.0, pct=SHARE
        ),
        "times 2 h early, 1 of 10 columns": lambda table: monkey.temporal(
            table, col="c0", attack="late", pct=SHARE, delta="2h"
        ),
        "columns in another order": lambda table: monkey.schema_drift(table, attack="reorder"),
    }
    return {name: lambda name=name, make=make: make(tables[name]) for name, make in made.items()}  # type: ignore[misc]


def of_jenga(tables: dict[str, Any]) -> dict[str, Side]:
    """Return its operations under the same names."""
    from jenga.corruptions.generic import MissingValues, SwappedValues
    from jenga.corruptions.numerical import GaussianNoise
    from jenga.corruptions.text import BrokenCharacters

    def all_columns(table: Any) -> Any:
        for name in NAMES:
            table = MissingValues(name, SHARE).transform(table)
        return table

    made: dict[str, Callable[[Any], Any]] = {
        "missing values, 1 of 10 columns": MissingValues("c3", SHARE).transform,
        "missing values, 10 of 10 columns": all_columns,
        "outliers, 1 of 10 columns": GaussianNoise("c3", SHARE).transform,
        "values swapped between 2 of 10": SwappedValues("c3", SHARE, swap_with="c4").transform,
        next(name for name in tables if name.startswith("broken texts")): BrokenCharacters(
            "t", SHARE
        ).transform,
    }
    return {name: lambda name=name, make=make: make(tables[name]) for name, make in made.items()}  # type: ignore[misc]


def seconds(side: Side) -> Callable[[], float]:
    """Return a function that measures one call."""

    def timed() -> float:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timeit.timeit(side, number=1)

    return timed


def compared(rows: int, rounds: int) -> list[dict[str, Any]]:
    """Measure each operation with each tool that supports it, in turns."""
    load()
    mine = ours(rows)
    tables = {name: table for name, (table, _) in mine.items()}
    others = {"havoc-monkey": of_havoc_monkey(tables), "jenga": of_jenga(tables)}
    found = []
    for name, (table, side) in mine.items():
        sides = {OURS: side, **{tool: made[name] for tool, made in others.items() if name in made}}
        samples = interleaved(rounds, {tool: seconds(one) for tool, one in sides.items()})
        spreads = {tool: Spread.of(len(table) / taken for taken in samples[tool]) for tool in sides}
        found.append({"what": name, **{tool: spread.median for tool, spread in spreads.items()}})
        _printed(found[-1], spreads)
    return found


def _printed(row: dict[str, Any], spreads: dict[str, Spread]) -> None:
    mine = row[OURS]
    cells = [f"{mine / 1e6:>8.2f}"]
    for tool in ("havoc-monkey", "jenga"):
        cells.append(
            f"{row[tool] / 1e6:>8.3f} {mine / row[tool]:>7.1f} x"
            if tool in row
            else f"{'-':>8} {'':>9}"
        )
    quartiles = f"{spreads[OURS].q1 / 1e6:.2f} … {spreads[OURS].q3 / 1e6:.2f}"
    print(f"{row['what']:<34} {cells[0]} {cells[1]} {cells[2]}   {quartiles}", flush=True)


def measure(quick: bool) -> list[Figure]:
    """Measure a million rows against the budgets: 40 million rows per second, and 1 million for
    texts.
    """
    load()
    plain, text = numbers(ROWS), texts(ROWS)
    sides = {
        "nothing": lambda: None,
        "missing values, 1 of 10 columns": fault(
            "missing_values", plain, column="c3", fraction=SHARE
        ),
        "outliers, 1 of 10 columns": fault("outliers", plain, column="c3", fraction=SHARE),
        "missing values, all 10 columns": fault("missing_values", plain, fraction=SHARE),
        "broken texts": fault("encoding_errors", text, fraction=SHARE),
    }
    samples: Samples = interleaved(
        5 if quick else 25, {name: seconds(side) for name, side in sides.items()}
    )
    budgets = {"broken texts": 1000.0, "missing values, all 10 columns": None}
    return [
        compare(
            f"1M rows: {name}",
            samples,
            name,
            "nothing",
            milliseconds,
            "ms",
            budget=budgets.get(name, 25.0),
        )
        for name in list(sides)[1:]
    ]


def main() -> None:
    """Print the table, and write the file."""
    parser = argparse.ArgumentParser(description="Compare with other tools on the same table.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    arguments = parser.parse_args()
    versions = {
        OURS: __version__,
        **{package: importlib.metadata.version(package) for package in PACKAGES},
    }
    print(", ".join(f"{package} {version}" for package, version in versions.items()))
    print(
        f"million rows a second of {arguments.rows} rows; how many times as fast as the other; "
        f"quartiles of ours\n"
    )
    print(f"{'what':<34} {'ours':>8} {'havoc-monkey':>18} {'jenga':>18}")
    rows = compared(arguments.rows, arguments.rounds)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
