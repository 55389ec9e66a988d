"""Cases of the drift oracles."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

from pytest_mlchaos import DriftMonitor, assert_no_drift, assert_no_text_drift

from . import Case, Effect, draw, outcome

__all__ = ["CASES"]

SHIFT = "a shift by 0.5 standard deviations (discrete and tied data: the larger of two draws)"
DEPENDENCE = "two independent columns become equal in 70 % of the rows; no marginal changes"
QUADRATIC = (50, 500, 2_000)
"""Methods that are quadratic in n. Above 2,000 rows they draw 2,000 of them."""
BATCHES = 20
COLUMNS = 3


def moved(rng: Any, n: int, shape: str, share: float) -> Any:
    """Return values that have moved by about 0.5 standard deviations."""
    values = draw(rng, n, shape)
    if shape in ("discrete", "tied") and share:  # a shifted value would be a new one
        other = draw(rng, n, shape)
        return np.where(rng.random(n) < share, np.maximum(values, other), values)
    return values + 0.5 * share


def _drifted(*arguments: Any, **options: Any) -> bool:
    return outcome(assert_no_drift, *arguments, **options) == "Drifted"


def _column(
    convert: Any, options: dict[str, Any], rng: Any, n: int, shape: str, share: float
) -> bool:
    before, after = draw(rng, n, shape), moved(rng, n, shape, share)
    return _drifted(convert(before), convert(after), **options)


def _labels(values: Any) -> list[str]:
    return [f"class {place}" for place in np.digitize(values, [-1.5, -0.5, 0.5, 1.5])]


def _times(values: Any) -> Any:
    return np.datetime64("2026-01-01", "us") + (values * 1e9).astype("m8[us]")


def _table(rng: Any, n: int, shape: str, share: float) -> Any:
    columns = draw(rng, n * COLUMNS, shape).reshape(n, COLUMNS)
    equal = rng.random(n) < 0.7 * share
    columns[:, 1] = np.where(equal, columns[:, 0], columns[:, 1])
    return columns


def _tables(options: dict[str, Any], rng: Any, n: int, shape: str, share: float) -> bool:
    return _drifted(_table(rng, n, shape, 0.0), _table(rng, n, shape, share), **options)


def _embeddings(rng: Any, n: int, shape: str, share: float) -> bool:
    one, other = (draw(rng, n * 16, shape).reshape(n, 16) for _ in range(2))
    other[:, :8] += 0.3 * share
    return _drifted(one, other, kind="embeddings")


def _probabilities(rng: Any, n: int, shape: str, share: float) -> bool:
    sides = []
    for move in (0.0, 0.5 * share):
        logits = draw(rng, n * 4, shape).reshape(n, 4)
        logits[:, 0] += move
        exponentials = np.exp(logits)
        sides.append(exponentials / exponentials.sum(1, keepdims=True))
    return _drifted(*sides, kind="probabilities")


def _slices(rng: Any, n: int, shape: str, share: float) -> bool:
    tables = []
    for move in (0.0, share):
        groups = rng.choice(["a", "b", "c", "d"], n, p=[0.5, 0.3, 0.15, 0.05])
        values = draw(rng, n, shape)
        tables.append({"value": values + move * (groups == "b"), "group": groups})
    return _drifted(*tables, slices="group")


def _missing(rng: Any, n: int, shape: str, share: float) -> bool:
    sides = []
    for lost in (0.1, 0.1 + 0.1 * share):
        values = draw(rng, n, shape)
        values[rng.random(n) < lost] = np.nan
        sides.append(values)
    return _drifted(*sides, missing="compare")


def _stream(convert: Any, rng: Any, n: int, shape: str, share: float) -> bool:
    monitor = DriftMonitor(convert(draw(rng, n, shape)))
    size = min(max(n // 10, 20), 500)
    return any(monitor.update(convert(moved(rng, size, shape, share))) for _ in range(BATCHES))


def _stream_of_tables(rng: Any, n: int, shape: str, share: float) -> bool:
    monitor = DriftMonitor(_table(rng, n, shape, 1.0))
    size = min(max(n // 10, 20), 500)
    return any(monitor.update(_table(rng, size, shape, 1 - share)) for _ in range(BATCHES))


WORDS = "the model answers a question about data with words that are good".split()  # noqa: SIM905


def _texts(rng: Any, n: int, shape: str, share: float) -> bool:
    sides = []
    for refusals in (0.02, 0.02 + 0.1 * share):
        lengths = np.clip(np.abs(12 + 6 * draw(rng, n, shape)).astype(int), 1, 200)
        refused = rng.random(n) < refusals
        words = iter(rng.integers(0, len(WORDS), lengths.sum()).tolist())
        sides.append(
            [
                "I'm sorry, I cannot help."
                if no
                else " ".join(WORDS[word] for word in itertools.islice(words, length))
                for no, length in zip(refused, lengths.tolist(), strict=True)
            ]
        )
    return outcome(assert_no_text_drift, *sides) == "Drifted"


def _same(values: Any) -> Any:
    return values


def _case(effect: Effect, found: str, power: dict[int, float], **facts: Any) -> Case:
    def null(rng: Any, n: int, shape: str) -> bool:
        return effect(rng, n, shape, 0.0)

    alarm = "two samples of one distribution are called different"
    return Case(null=null, effect=effect, found=found, power=power, **{"alarm": alarm, **facts})


def _column_case(convert: Any, power: dict[int, float], **options: Any) -> Case:
    return _case(functools.partial(_column, convert, options), SHIFT, power)


def _joint_case(method: str, power: dict[int, float]) -> Case:
    effect = functools.partial(_tables, {"method": method})
    return _case(effect, DEPENDENCE, power, sizes=QUADRATIC)


STREAM = {"alarm": "an alarm at any of 20 looks at batches without drift"}
GOOD = {500: 0.95, 50_000: 0.99}
JOINT = {500: 0.95, 2_000: 0.99}

CASES: dict[str, Case] = {
    "assert_no_drift (ks)": _column_case(_same, GOOD, method="ks"),
    "assert_no_drift (psi)": _column_case(_same, {500: 0.8}, method="psi"),
    "assert_no_drift (chi2)": _column_case(_labels, GOOD),
    "assert_no_drift (wasserstein)": _column_case(_same, GOOD, method="wasserstein"),
    "assert_no_drift (js)": _column_case(_same, GOOD, method="js"),
    "assert_no_drift (energy, one column)": _column_case(_same, GOOD, method="energy"),
    "assert_no_drift (datetimes)": _column_case(_times, GOOD),
    "assert_no_drift (mmd)": _joint_case("mmd", JOINT),
    "assert_no_drift (energy)": _joint_case("energy", JOINT),
    "assert_no_drift (c2st)": _joint_case("c2st", JOINT),
    "assert_no_drift (auto)": _joint_case("auto", JOINT),
    "assert_no_drift (embeddings)": _case(
        _embeddings, "8 of 16 dimensions move by 0.3 standard deviations", JOINT, sizes=QUADRATIC
    ),
    "assert_no_drift (probabilities)": _case(
        _probabilities,
        "the logit of 1 of 4 classes moves by 0.5",
        {500: 0.9, 2_000: 0.99},
        sizes=QUADRATIC,
    ),
    "assert_no_drift (slices)": _case(
        _slices, "1 standard deviation in a group of 30 %", GOOD, sizes=(200, 500, 50_000)
    ),
    "assert_no_drift (missing)": _case(
        _missing, "20 % missing values instead of 10 %", {500: 0.9, 50_000: 0.99}
    ),
    "assert_no_text_drift": _case(
        _texts, "12 % refusals instead of 2 %", {500: 0.95}, sizes=(50, 500)
    ),
    "DriftMonitor (numbers)": _case(functools.partial(_stream, _same), SHIFT, GOOD, **STREAM),
    "DriftMonitor (categories)": _case(
        functools.partial(_stream, _labels), SHIFT, {500: 0.8, 50_000: 0.99}, **STREAM
    ),
    "DriftMonitor (a table)": _case(
        _stream_of_tables,
        "the dependence of two columns is lost",
        {500: 0.8, 2_000: 0.95},
        sizes=(100, 500, 2_000),
        **STREAM,
    ),
}
