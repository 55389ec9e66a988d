"""Judge one column by the tests of one column."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core.validation import count_text
from ..columns import ColumnValues
from ..two_sample import (
    bin_counts,
    category_counts,
    chi2_test,
    ks_distance,
    ks_p,
    most_bins,
    psi,
    smallest_p,
)
from .distances import compare_counts, compare_numbers, pooled_bins
from .findings import Finding, sizes_text

if TYPE_CHECKING:
    import numpy as np

__all__ = ["KINDS_OF", "Test", "judge_column", "trouble", "unusable"]

KINDS_OF = {
    "ks": ("numbers", "times"),
    "wasserstein": ("numbers", "times"),
    "psi": ("numbers", "times", "categories"),
    "js": ("numbers", "times", "categories"),
    "chi2": ("numbers", "times", "categories"),
    "order": ("times",),
    "missing": ("numbers", "times", "categories", "vectors", "mixed"),
    "mmd": ("numbers", "times", "categories", "vectors"),
    "c2st": ("numbers", "times", "categories", "vectors"),
    "energy": ("numbers", "times", "categories", "vectors"),
}
"""The kinds of columns that each method can judge."""
MOST_CATEGORIES = 200
"""The largest number of categories that ``js`` tells apart. The others are one group."""


@dataclasses.dataclass(frozen=True, slots=True)
class Test:
    """One test, of one column or of several together.

    Attributes:
        where: The columns (and the slice) in words.
        columns: The names of the columns.
        method: One of ``KINDS_OF``.
        threshold: The largest effect that does not matter.
        alpha: The level of all tests together.
        level: alpha, divided by the number of tests.
        bins: The largest number of bins.
        strict: True if a constant column cannot be judged. It can in a slice, and if it is derived.
        compare_missing: True if missing values are a test of their own.
        group: The number of the slice, or None for all rows.
    """

    where: str
    columns: tuple[Any, ...]
    method: str
    threshold: float
    alpha: float
    level: float
    bins: int
    strict: bool = True
    compare_missing: bool = False
    group: int | None = None


def unusable(column: ColumnValues, test: Test) -> str | None:
    """Return why a column of the reference cannot be used, or None."""
    if test.method == "missing":
        return None if column.rows else "is empty"
    found, n = trouble(column, test), len(column.values)
    if found is not None:
        return found
    if test.method == "chi2" and test.strict:
        distinct = len(set(_as_list(column)))
        if distinct > max(2, column.rows / 2):
            return f"has {distinct} different values in {column.rows} rows, too many to be categories. For numbers, give method='ks'"
    if smallest_p(n, n) > test.level:
        return f"has {n} values, too few to show a drift at this alpha"
    if test.method == "psi" and most_bins(n, n, test.threshold, test.level, test.bins) is None:
        return f"has {n} values, so few that chance alone makes a PSI above {test.threshold:g}. Give method='ks' or a higher threshold"
    return None


def trouble(column: ColumnValues, test: Test) -> str | None:
    """Return why a column cannot be judged, or None."""
    if not column.rows:
        return "is empty"
    if column.missing and not test.compare_missing:
        return f"has {column.missing} NaN or missing among {count_text(column.rows, 'value')}"
    if not len(column.values):
        return f"has nothing but missing values: {column.missing}"
    if column.kind == "mixed":
        return "mixes numbers with other values"
    if column.kind == "categories":
        if test.strict and len(set(column.values)) == 1:
            return f"is constant: {column.rows} times the same category"
        return None
    infinite = _infinite(column.values)
    if infinite:
        return f"has {infinite} infinite among {count_text(column.rows, 'value')}"
    if test.strict and (column.values == column.values[0]).all():
        return f"is constant: {column.rows} times the same value"
    return None


def _infinite(values: Any) -> int:
    import numpy as np

    if values.dtype.kind in "iu":
        return 0
    finite = np.isfinite(values)
    return len(values) - int(np.count_nonzero(finite if finite.ndim == 1 else finite.all(1)))


def judge_column(before: ColumnValues, after: ColumnValues, test: Test) -> Finding:
    """Return the finding of a test of one column.

    A fault has changed the current values, so a problem with them is the subject's failure, not a
    mistake in the test.
    """
    if test.method == "missing":
        return _by_missing(before, after, test)
    found = not_comparable(before, after, test)
    if found is not None:
        return Finding(test.where, found, columns=test.columns)
    return _JUDGES[test.method](before, after, test)


def not_comparable(before: ColumnValues, after: ColumnValues, test: Test) -> str | None:
    """Return why the current values of a column cannot be judged, or None."""
    found = trouble(after, test)
    if found is not None:
        return f"cannot be judged: it {found}"
    if after.kind != before.kind:
        return f"holds {after.kind}, but the reference holds {before.kind}"
    if smallest_p(len(before.values), len(after.values)) > test.level:
        return f"cannot be judged: {sizes_text(before, after)} are too few to show a drift at this alpha"
    return None


def above(test: Test) -> str:
    """Return the threshold for a message, or an empty text."""
    return f", threshold {test.threshold:g}" if test.threshold else ""


def _by_ks(before: ColumnValues, after: ColumnValues, test: Test) -> Finding:
    import numpy as np

    a, b = np.sort(before.values), np.sort(after.values)
    distance = ks_distance(a, b)
    p = ks_p(distance, a, b)
    if p > test.alpha or distance <= test.threshold:
        return Finding(test.where, "", p, False, test.columns)
    text = f"KS distance {distance:.3g} (p = {p:.2g}{above(test)}), {sizes_text(before, after)}\n{describe_shift(a, b)}"
    return Finding(test.where, text, p, True, test.columns)


def _by_distance(before: ColumnValues, after: ColumnValues, test: Test) -> Finding:
    import numpy as np

    a, b = (np.sort(column.values.astype("f8")) for column in (before, after))
    effect, p = compare_numbers(test.method, a, b, test.level)
    what = (
        f"Wasserstein distance {effect:.3g} standard deviations"
        if test.method == "wasserstein"
        else f"energy coefficient {effect:.3g}"
    )
    text = f"{what} (p = {p:.2g}{above(test)}), {sizes_text(before, after)}\n{describe_shift(a, b)}"
    return Finding(test.where, text, p, effect > test.threshold, test.columns)


def describe_shift(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> str:
    """Describe how sorted numbers moved, in units of their own spread. No value is shown."""
    import numpy as np

    if a[0] == a[-1]:
        return "the reference is constant"
    a, b = a.astype("f8"), b.astype("f8")
    with np.errstate(over="ignore", invalid="ignore"):
        unit = float(a.std())
        if not unit:  # whole numbers that are closer together than floats of their size
            return "moved by less than the precision of floats"
        moves = {"mean": b.mean() - a.mean()}
        for share, name in ((0.05, "5 % quantile"), (0.5, "median"), (0.95, "95 % quantile")):
            moves[name] = b[int(share * (len(b) - 1))] - a[int(share * (len(a) - 1))]
        told = ", ".join(f"{name} {move / unit:+.2g}" for name, move in moves.items())
        return f"moved, in standard deviations of the reference: {told}; spread {float(b.std()) / unit:.2g} times as large"


def _by_chi2(before: ColumnValues, after: ColumnValues, test: Test) -> Finding:
    counts = category_counts(_as_list(before), _as_list(after))
    if counts.shape[1] == 1:
        return Finding(test.where, "", 1.0, False, test.columns)
    found = chi2_test(counts, test.level)
    if found is None:
        return Finding(
            test.where,
            f"cannot be judged: {sizes_text(before, after)} in {counts.shape[1]} categories, each "
            f"of them rare",
            columns=test.columns,
        )
    statistic, p = found
    effect = (statistic / counts.sum()) ** 0.5
    what = f"chi-squared {statistic:.4g} (p = {p:.2g}), Cramér's V {effect:.3g}{above(test)}"
    text = f"{what}, {sizes_text(before, after)}\n{_shares(counts)}"
    return Finding(test.where, text, p, effect > test.threshold, test.columns)


def _as_list(column: ColumnValues) -> list[Any]:
    values: list[Any] = column.values if isinstance(column.values, list) else column.values.tolist()
    return values


def _shares(counts: np.ndarray[Any, Any]) -> str:
    """Name the category whose share changed most, by its rank, because its name is data."""
    shares = counts / counts.sum(1, keepdims=True)
    most = int(abs(shares[1] - shares[0]).argmax())
    unseen = int(((counts[0] == 0) * counts[1]).sum())
    kinds = int((counts[0] == 0).sum())
    which = (
        f"the reference's category number {most + 1} by frequency"
        if counts[0][most]
        else "a category unseen in the reference"
    )
    new = (
        f"; {unseen} values in {kinds} unseen {'category' if kinds == 1 else 'categories'}"
        if unseen
        else ""
    )
    return f"{which} makes up {shares[1][most]:.1%} instead of {shares[0][most]:.1%}{new}"


def _by_psi(before: ColumnValues, after: ColumnValues, test: Test) -> Finding:
    bins = most_bins(len(before.values), len(after.values), test.threshold, test.level, test.bins)
    if bins is None:
        return Finding(
            test.where,
            f"cannot be judged: with {sizes_text(before, after)} chance alone exceeds a PSI of "
            f"{test.threshold:g}",
            columns=test.columns,
        )
    if before.kind != "categories":
        if before.values.min() == before.values.max():
            counts = category_counts(_as_list(before), _as_list(after))
        else:
            counts = bin_counts(before.values, after.values, bins)
    else:
        counts = _most_frequent(category_counts(before.values, after.values), bins)
    value = psi(counts)
    if value <= test.threshold:
        return Finding(test.where, "", 1.0, False, test.columns)
    what = f"PSI {value:.3g} in {counts.shape[1]} bins (threshold {test.threshold:g})"
    text = f"{what}, {sizes_text(before, after)}\n{_fullest(counts, before.kind)}"
    return Finding(test.where, text, 0.0, True, test.columns)


def _by_js(before: ColumnValues, after: ColumnValues, test: Test) -> Finding:
    if before.kind == "categories":
        counts = _most_frequent(category_counts(before.values, after.values), MOST_CATEGORIES)
    else:
        counts = pooled_bins(before.values, after.values, test.bins)
    if counts.shape[1] == 1:
        return Finding(test.where, "", 1.0, False, test.columns)
    effect, p = compare_counts(counts, test.level)
    what = f"Jensen-Shannon distance {effect:.3g} in {counts.shape[1]} bins (p = {p:.2g}"
    text = f"{what}{above(test)}), {sizes_text(before, after)}\n{_fullest(counts, before.kind)}"
    return Finding(test.where, text, p, effect > test.threshold, test.columns)


def _fullest(counts: np.ndarray[Any, Any], kind: str) -> str:
    """Name the bin whose share changed most."""
    shares = counts / counts.sum(1, keepdims=True)
    place = int(abs(shares[1] - shares[0]).argmax())
    what = f"{'group' if kind == 'categories' else 'bin'} {place + 1} of {counts.shape[1]}"
    return f"{what} holds {shares[1][place]:.1%} instead of {shares[0][place]:.1%}"


def _most_frequent(counts: np.ndarray[Any, Any], bins: int) -> Any:
    """Return the most frequent categories of both samples together, and one group of all others."""
    import numpy as np

    order = np.argsort(-counts.sum(0), kind="stable")
    kept = np.sort(order[: bins if counts.shape[1] <= bins else bins - 1])
    others = np.setdiff1d(order, kept)
    return (
        counts[:, kept]
        if not len(others)
        else np.column_stack([counts[:, kept], counts[:, others].sum(1)])
    )


def _by_order(before: ColumnValues, after: ColumnValues, test: Test) -> Finding:
    """Compare the share of rows that are earlier than the row before them."""
    import numpy as np

    back = [int(np.count_nonzero(np.diff(column.values) < 0)) for column in (before, after)]
    sizes = [len(before.values) - 1, len(after.values) - 1]
    p, _ = two_shares(back, sizes, test.level)
    text = f"{back[1] / sizes[1]:.1%} of the rows are earlier than the row before them, instead of {back[0] / sizes[0]:.1%} (p = {p:.2g})"
    return Finding(test.where, text, p, True, test.columns)


def _by_missing(before: ColumnValues, after: ColumnValues, test: Test) -> Finding:
    missing, rows = [before.missing, after.missing], [before.rows, after.rows]
    if not rows[1]:
        return Finding(test.where, "", 1.0, False, test.columns)
    p, effect = two_shares(missing, rows, test.level)
    text = f"{missing[1] / rows[1]:.1%} of the values are missing instead of {missing[0] / rows[0]:.1%} (p = {p:.2g}{above(test)})"
    return Finding(test.where, text, p, effect > test.threshold, test.columns)


def two_shares(counts: list[int], sizes: list[int], level: float) -> tuple[float, float]:
    """Return the p-value and Cramér's V of two shares."""
    import numpy as np

    table = np.array([counts, [size - count for count, size in zip(counts, sizes, strict=True)]]).T
    table = table[:, table.sum(0) > 0]
    found = chi2_test(table, level) if table.shape[1] > 1 else None
    if found is None:
        return 1.0, 0.0
    return found[1], (found[0] / table.sum()) ** 0.5


_JUDGES: dict[str, Callable[[ColumnValues, ColumnValues, Test], Finding]] = {
    "ks": _by_ks,
    "wasserstein": _by_distance,
    "energy": _by_distance,
    "chi2": _by_chi2,
    "psi": _by_psi,
    "js": _by_js,
    "order": _by_order,
}
