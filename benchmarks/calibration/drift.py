"""Cases of the drift oracles."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from pytest_mlchaos import DriftMonitor, assert_no_drift, assert_no_text_drift

from . import Case, Simulation, draw, outcome

__all__ = ["CASES"]

SHIFT = "a shift by 0.5 standard deviations (discrete, tied: the larger of two draws)"
DEPENDENCE = "two independent columns become equal in 70 % of the rows; no marginal changes"
QUADRATIC = (50, 500, 2_000)
"""Methods that are quadratic in n. Above 2,000 rows they draw 2,000 of them."""
BATCHES = 20
COLUMNS = 3


def moved(rng: Any, n: int, shape: str) -> Any:
    """Return values that have moved by about 0.5 standard deviations."""
    values = draw(rng, n, shape)
    if shape in ("discrete", "tied"):  # a shifted value would be a new one
        return np.maximum(values, draw(rng, n, shape))
    return values + 0.5


def _drifted(*arguments: Any, **options: Any) -> bool:
    return outcome(assert_no_drift, *arguments, **options) == "Drifted"


def _column(
    change: Any, convert: Any, options: dict[str, Any], rng: Any, n: int, shape: str
) -> bool:
    return _drifted(convert(draw(rng, n, shape)), convert(change(rng, n, shape)), **options)


def _labels(values: Any) -> list[str]:
    return [f"class {place}" for place in np.digitize(values, [-1.5, -0.5, 0.5, 1.5])]


def _times(values: Any) -> Any:
    return np.datetime64("2026-01-01", "us") + (values * 1e9).astype("m8[us]")


def _table(rng: Any, n: int, shape: str, *, dependent: bool) -> Any:
    columns = draw(rng, n * COLUMNS, shape).reshape(n, COLUMNS)
    if dependent:
        columns[:, 1] = np.where(rng.random(n) < 0.7, columns[:, 0], columns[:, 1])
    return columns


def _tables(options: dict[str, Any], dependent: bool, rng: Any, n: int, shape: str) -> bool:
    return _drifted(
        _table(rng, n, shape, dependent=False),
        _table(rng, n, shape, dependent=dependent),
        **options,
    )


def _embeddings(shift: float, rng: Any, n: int, shape: str) -> bool:
    one, other = (draw(rng, n * 16, shape).reshape(n, 16) for _ in range(2))
    other[:, :8] += shift
    return _drifted(one, other, kind="embeddings")


def _probabilities(shift: float, rng: Any, n: int, shape: str) -> bool:
    sides = []
    for move in (0.0, shift):
        logits = draw(rng, n * 4, shape).reshape(n, 4)
        logits[:, 0] += move
        exponentials = np.exp(logits)
        sides.append(exponentials / exponentials.sum(1, keepdims=True))
    return _drifted(*sides, kind="probabilities")


def _slices(shift: float, rng: Any, n: int, shape: str) -> bool:
    tables = []
    for move in (0.0, shift):
        groups = rng.choice(["a", "b", "c", "d"], n, p=[0.5, 0.3, 0.15, 0.05])
        values = draw(rng, n, shape)
        tables.append({"value": values + move * (groups == "b"), "group": groups})
    return _drifted(*tables, slices="group")


def _missing(share: float, rng: Any, n: int, shape: str) -> bool:
    sides = []
    for lost in (0.1, share):
        values = draw(rng, n, shape)
        values[rng.random(n) < lost] = np.nan
        sides.append(values)
    return _drifted(*sides, missing="compare")


def _stream(change: Any, convert: Any, rng: Any, n: int, shape: str) -> bool:
    monitor = DriftMonitor(convert(draw(rng, n, shape)))
    size = min(max(n // 10, 20), 500)
    return any(monitor.update(convert(change(rng, size, shape))) for _ in range(BATCHES))


def _stream_of_tables(dependent: bool, rng: Any, n: int, shape: str) -> bool:
    monitor = DriftMonitor(_table(rng, n, shape, dependent=True))
    size = min(max(n // 10, 20), 500)
    return any(
        monitor.update(_table(rng, size, shape, dependent=dependent)) for _ in range(BATCHES)
    )


WORDS = "the model answers a question about data with words that are good".split()  # noqa: SIM905


def _texts(refusals: float, rng: Any, n: int, shape: str) -> bool:
    sides = []
    for share in (0.02, refusals):
        lengths = np.clip(np.abs(12 + 6 * draw(rng, n, shape)).astype(int), 1, 200)
        refused = rng.random(n) < share
        sides.append(
            [
                "I'm sorry, I cannot help." if no else " ".join(rng.choice(WORDS, length))
                for no, length in zip(refused, lengths, strict=True)
            ]
        )
    return outcome(assert_no_text_drift, *sides) == "Drifted"


def _of_columns(convert: Any, **options: Any) -> tuple[Simulation, Simulation]:
    null = functools.partial(_column, draw, convert, options)
    return null, functools.partial(_column, moved, convert, options)


def _same(values: Any) -> Any:
    return values


def _case(pair: tuple[Simulation, Simulation], effect: str, **facts: Any) -> Case:
    return pair[0], pair[1], {"effect": effect, **facts}


def _pair(function: Any, quiet: Any, loud: Any) -> tuple[Simulation, Simulation]:
    return functools.partial(function, quiet), functools.partial(function, loud)


def _joint(method: str) -> tuple[Simulation, Simulation]:
    options = {"method": method}
    return functools.partial(_tables, options, False), functools.partial(_tables, options, True)


CASES: dict[str, Case] = {
    "assert_no_drift (ks)": _case(_of_columns(_same, method="ks"), SHIFT, power={500: 0.95}),
    "assert_no_drift (psi)": _case(_of_columns(_same, method="psi"), SHIFT, power={500: 0.8}),
    "assert_no_drift (chi2)": _case(_of_columns(_labels), SHIFT, power={500: 0.95}),
    "assert_no_drift (wasserstein)": _case(
        _of_columns(_same, method="wasserstein"), SHIFT, power={500: 0.95}
    ),
    "assert_no_drift (js)": _case(_of_columns(_same, method="js"), SHIFT, power={500: 0.95}),
    "assert_no_drift (energy, one column)": _case(
        _of_columns(_same, method="energy"), SHIFT, power={500: 0.95}
    ),
    "assert_no_drift (datetimes)": _case(_of_columns(_times), SHIFT, power={500: 0.95}),
    "assert_no_drift (mmd)": _case(_joint("mmd"), DEPENDENCE, sizes=QUADRATIC, power={500: 0.95}),
    "assert_no_drift (energy)": _case(
        _joint("energy"), DEPENDENCE, sizes=QUADRATIC, power={500: 0.95}
    ),
    "assert_no_drift (c2st)": _case(_joint("c2st"), DEPENDENCE, sizes=QUADRATIC, power={500: 0.95}),
    "assert_no_drift (auto)": _case(_joint("auto"), DEPENDENCE, sizes=QUADRATIC, power={500: 0.95}),
    "assert_no_drift (embeddings)": _case(
        _pair(_embeddings, 0.0, 0.3),
        "8 of 16 dimensions move by 0.3 standard deviations",
        sizes=QUADRATIC,
        power={500: 0.95},
    ),
    "assert_no_drift (probabilities)": _case(
        _pair(_probabilities, 0.0, 0.5),
        "the logit of 1 of 4 classes moves by 0.5",
        sizes=QUADRATIC,
        power={500: 0.9},
    ),
    "assert_no_drift (slices)": _case(
        _pair(_slices, 0.0, 1.0),
        "1 standard deviation in a group of 30 %",
        sizes=(200, 500, 50_000),
        power={500: 0.95},
    ),
    "assert_no_drift (missing)": _case(
        _pair(_missing, 0.1, 0.2), "20 % missing values instead of 10 %", power={500: 0.9}
    ),
    "assert_no_text_drift": _case(
        _pair(_texts, 0.02, 0.12),
        "12 % refusals instead of 2 %",
        sizes=(50, 500),
        power={500: 0.95},
    ),
    "DriftMonitor (numbers, 20 looks)": _case(
        (functools.partial(_stream, draw, _same), functools.partial(_stream, moved, _same)),
        SHIFT,
        power={500: 0.95},
    ),
    "DriftMonitor (categories, 20 looks)": _case(
        (functools.partial(_stream, draw, _labels), functools.partial(_stream, moved, _labels)),
        SHIFT,
        power={500: 0.8},
    ),
    "DriftMonitor (a table, 20 looks)": _case(
        _pair(_stream_of_tables, True, False),
        "the dependence of two columns is lost",
        sizes=(100, 500, 2_000),
        power={500: 0.8},
    ),
}
