"""Judge whether values still have the distribution of a reference.

Messages name columns, statistics, shares and counts, never the values themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.privacy import key_text, may_be_hinted
from ..core.recording import oracle
from ..core.validation import did_you_mean, format_value, index
from ..errors import BadArgument, Drifted
from .columns import ColumnValues, columns_of
from .two_sample import (
    bin_counts,
    category_counts,
    chi2_test,
    ks_distance,
    ks_p,
    most_bins,
    psi,
    smallest_p,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = ["assert_no_drift"]

_THRESHOLDS = {"ks": 0.0, "chi2": 0.0, "psi": 0.2}
_MOST_SHOWN = 10


@oracle
def assert_no_drift(
    reference: object,
    current: object,
    *,
    method: str | Mapping[Any, str] | None = None,
    alpha: float = 0.05,
    threshold: float | None = None,
    bins: int = 10,
) -> None:
    """Raise ``Drifted`` if the distribution of ``current`` differs from that of ``reference``.

    Both are one column (a 1-D array, tensor, list or series) or one table (a dict of columns, a
    data frame, a 2-D array or tensor), of which each column is judged. What cannot be judged never
    passes. With PSI there are fewer bins for small samples, so that chance exceeds the threshold at
    most with the probability ``alpha``.

    Args:
        reference: The values to compare with.
        current: The values to judge.
        method: One method, or a dict by column. ``"ks"`` (default for numbers): the two-sample test
            of Kolmogorov and Smirnov, exact for small samples. ``"chi2"`` (default for texts,
            booleans and categories): the chi-squared test of homogeneity. Pass it for class labels
            in whole numbers. Categories that the reference never had count as any change of shares.
            ``"psi"``: the population stability index over quantile bins of the reference (of
            categories: its most frequent ones, and the rest).
        alpha: The share of samples without drift that may fail, over *all* columns together (Holm's
            correction).
        threshold: The smallest drift that matters. A significant drift up to it passes. In units of
            the KS distance (0 to 1, default 0), of Cramér's V (0 to 1, default 0), or of PSI
            (default 0.2: between the 0.1 and the 0.25 of Siddiqi, *Credit Risk Scorecards*, 2006).
            In a million samples every small difference is significant, so pass one.
        bins: The largest number of bins for ``"psi"``.

    Raises:
        Drifted: A column drifted, or ``current`` is empty, constant, or has NaN, infinite values,
            missing or additional columns, or a different kind of values.
        BadArgument: An argument is wrong, or the reference is empty, constant, not finite, or too
            small to show a drift.

    Fidelity: columns are judged one by one, and rows as independent draws. A drift of their
    dependence, or a different order of rows, is not seen. Use ``assert_recovered`` or
    ``assert_same_output`` to check that a run returned the *same* predictions.
    """
    _check(alpha, threshold, bins)
    before = columns_of(reference, "reference")
    try:
        after = columns_of(current, "current")
    except BadArgument as error:
        raise Drifted(f"cannot be judged: {error}") from None
    level, tests = alpha / len(before), {}
    methods = {name: _method(name, before, method) for name in before}
    if isinstance(method, Mapping) and (unknown := [name for name in method if name not in before]):
        raise BadArgument(
            f"assert_no_drift: method= names {unknown[0]!r}, which is not in the "
            f"reference{_like(unknown[0], before)}"
        )
    for name, column in before.items():
        limit = _THRESHOLDS[methods[name]] if threshold is None else threshold
        if methods[name] != "psi" and limit >= 1:
            raise BadArgument(
                f"assert_no_drift: threshold must be below 1 for method={methods[name]!r}, whose "
                f"statistic is at most 1, got {limit:g}"
            )
        tests[name] = _Test(methods[name], limit, alpha, level, bins)
        _check_reference(_label(name, before), column, tests[name])
    findings = _columns_that_differ(before, after)
    findings += [
        _judge(_label(name, before), column, after[name], tests[name])
        for name, column in before.items()
        if name in after
    ]
    if drifted := _significant(findings, alpha, len(before)):
        raise Drifted(_told(drifted, len({**before, **after})))


@dataclasses.dataclass(frozen=True, slots=True)
class _Test:
    method: str
    threshold: float
    alpha: float
    level: float  # alpha, divided by the number of columns
    bins: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Finding:
    """The result of a test of one column. ``p`` is 0 if no statistic is needed to see the drift."""

    column: str
    text: str
    p: float = 0.0
    matters: bool = True


# -- arguments -------------------------------------------------------------------------------------


def _check(alpha: Any, threshold: Any, bins: Any) -> None:
    if not _is_number(alpha) or not 0 < alpha < 1:
        raise BadArgument(
            f"assert_no_drift: alpha must be between 0 and 1, got {format_value(alpha)}"
        )
    if threshold is not None and (not _is_number(threshold) or not 0 <= threshold < float("inf")):
        raise BadArgument(
            f"assert_no_drift: threshold must be 0 or more, got {format_value(threshold)}"
        )
    if index(bins) is None or not 2 <= bins <= 100:
        raise BadArgument(f"assert_no_drift: bins must be from 2 to 100, got {format_value(bins)}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _like(name: object, known: Mapping[Any, Any]) -> str:
    return did_you_mean(
        str(name), [str(one) for one in known if may_be_hinted(str(name), str(one))]
    )


def _label(name: object, columns: Mapping[Any, ColumnValues]) -> str:
    if name is None:
        return "the column"
    text = key_text(name, list(columns).index(name), len(columns), noun="column")
    return text[1:-1] if text.startswith("<") else f"column {text}"


def _method(
    name: object, columns: Mapping[Any, ColumnValues], method: str | Mapping[Any, str] | None
) -> str:
    column = columns[name]
    how = method.get(name) if isinstance(method, Mapping) else method
    if how is None:
        return "ks" if column.kind == "numbers" else "chi2"
    if how not in _THRESHOLDS:
        raise BadArgument(
            f"assert_no_drift: method must be 'ks', 'psi' or 'chi2', got {format_value(how)}"
        )
    if how == "ks" and column.kind != "numbers":
        raise BadArgument(
            f"assert_no_drift: {_label(name, columns)} holds {column.kind}, but method='ks' takes "
            f"numbers. Give 'chi2' or 'psi' for it"
        )
    return how


def _check_reference(called: str, column: ColumnValues, test: _Test) -> None:
    trouble, n = _trouble(column), len(column.values)
    if trouble is None and test.method == "chi2":
        trouble = _uncountable(column)
    if trouble is None and smallest_p(n, n) > test.level:
        trouble = f"has {n} values, too few to show a drift at this alpha"
    if (
        trouble is None
        and test.method == "psi"
        and most_bins(n, n, test.threshold, test.level, test.bins) is None
    ):
        trouble = f"has {n} values, so few that chance alone makes a PSI above {test.threshold:g}. Give method='ks' or a higher threshold"
    if trouble is not None:
        raise BadArgument(f"assert_no_drift: this reference cannot be used: {called} {trouble}")


def _trouble(column: ColumnValues) -> str | None:
    """Return why a column cannot be judged, or None."""
    if not column.rows:
        return "is empty"
    if column.missing:
        return f"has {column.missing} NaN or missing among {_count(column.rows, 'value')}"
    if column.kind == "mixed":
        return "mixes numbers with other values"
    values = column.values
    if column.kind == "numbers":
        import numpy as np

        infinite = (
            0
            if values.dtype.kind in "iu"
            else len(values) - int(np.count_nonzero(np.isfinite(values)))
        )
        if infinite:
            return f"has {infinite} infinite among {_count(column.rows, 'value')}"
        if values.min() == values.max():
            return f"is constant: {column.rows} times the same value"
        return None
    return f"is constant: {column.rows} times the same category" if len(set(values)) == 1 else None


def _uncountable(column: ColumnValues) -> str | None:
    distinct = len(set(_as_list(column)))
    if distinct <= max(2, column.rows / 2):
        return None
    return f"has {distinct} different values in {column.rows} rows, too many to be categories. For numbers, give method='ks'"


# -- one column ------------------------------------------------------------------------------------


def _columns_that_differ(
    before: Mapping[Any, ColumnValues], after: Mapping[Any, ColumnValues]
) -> list[_Finding]:
    if (None in before) != (None in after):
        forms = ("a single column", "a table")[:: 1 if None in after else -1]
        return [_Finding("current", f"is {forms[0]}, but the reference is {forms[1]}")]
    gone = [_Finding(_label(name, before), "is missing") for name in before if name not in after]
    return gone + [
        _Finding(_label(name, after), "is not in the reference")
        for name in after
        if name not in before
    ]


def _judge(called: str, before: ColumnValues, after: ColumnValues, test: _Test) -> _Finding:
    # A fault has changed these data, so a problem is the subject's failure, not a mistake in the
    # test.
    trouble = _trouble(after)
    if trouble is not None:
        return _Finding(called, f"cannot be judged: it {trouble}")
    if after.kind != before.kind:
        return _Finding(called, f"holds {after.kind}, but the reference holds {before.kind}")
    if smallest_p(len(before.values), len(after.values)) > test.level:
        return _Finding(
            called,
            f"cannot be judged: {_sizes(before, after)} are too few to show a drift at this alpha",
        )
    return {"ks": _by_ks, "chi2": _by_chi2, "psi": _by_psi}[test.method](
        called, before, after, test
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _sizes(before: ColumnValues, after: ColumnValues) -> str:
    return f"{_count(len(after.values), 'value')} against {len(before.values)}"


def _by_ks(called: str, before: ColumnValues, after: ColumnValues, test: _Test) -> _Finding:
    import numpy as np

    a, b = np.sort(before.values), np.sort(after.values)
    distance = ks_distance(a, b)
    p = ks_p(distance, a, b)
    if p > test.alpha or distance <= test.threshold:
        return _Finding(called, "", p, matters=False)
    text = f"KS distance {distance:.3g} (p = {p:.2g}{_above(test)}), {_sizes(before, after)}\n{_describe_shift(a, b)}"
    return _Finding(called, text, p)


def _above(test: _Test) -> str:
    return f", threshold {test.threshold:g}" if test.threshold else ""


def _describe_shift(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> str:
    """Describe how sorted numbers moved, in units of their own spread. No value is shown."""
    a, b = a.astype("f8"), b.astype("f8")
    unit = float(a.std())
    if not unit:  # whole numbers that are closer together than floats of their size
        return "moved by less than the precision of floats"
    moves = {"mean": b.mean() - a.mean()}
    for share, name in ((0.05, "5 % quantile"), (0.5, "median"), (0.95, "95 % quantile")):
        moves[name] = b[int(share * (len(b) - 1))] - a[int(share * (len(a) - 1))]
    told = ", ".join(f"{name} {move / unit:+.2g}" for name, move in moves.items())
    return f"moved, in standard deviations of the reference: {told}; spread {float(b.std()) / unit:.2g} times as large"


def _by_chi2(called: str, before: ColumnValues, after: ColumnValues, test: _Test) -> _Finding:
    counts = category_counts(_as_list(before), _as_list(after))
    found = chi2_test(counts, test.level)
    if found is None:
        return _Finding(
            called,
            f"cannot be judged: {_sizes(before, after)} in {counts.shape[1]} categories, each of "
            f"them rare",
        )
    statistic, p = found
    effect = (statistic / counts.sum()) ** 0.5
    text = f"chi-squared {statistic:.4g} (p = {p:.2g}), Cramér's V {effect:.3g}{_above(test)}, {_sizes(before, after)}\n{_shares(counts)}"
    return _Finding(called, text, p, matters=effect > test.threshold)


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


def _by_psi(called: str, before: ColumnValues, after: ColumnValues, test: _Test) -> _Finding:
    bins = most_bins(len(before.values), len(after.values), test.threshold, test.level, test.bins)
    if bins is None:
        return _Finding(
            called,
            f"cannot be judged: with {_sizes(before, after)} chance alone exceeds a PSI of "
            f"{test.threshold:g}",
        )
    if before.kind == "numbers":
        counts = bin_counts(before.values, after.values, bins)
    else:
        counts = _most_frequent(category_counts(before.values, after.values), bins)
    value = psi(counts)
    if value <= test.threshold:
        return _Finding(called, "", 1.0)
    shares = counts / counts.sum(1, keepdims=True)
    place = int(abs(shares[1] - shares[0]).argmax())
    what = f"{'bin' if before.kind == 'numbers' else 'group'} {place + 1} of {counts.shape[1]}"
    where = f"{what} holds {shares[1][place]:.1%} instead of {shares[0][place]:.1%}"
    return _Finding(
        called,
        f"PSI {value:.3g} in {counts.shape[1]} bins (threshold {test.threshold:g}), "
        f"{_sizes(before, after)}\n{where}",
    )


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


# -- all columns -----------------------------------------------------------------------------------


def _significant(findings: list[_Finding], alpha: float, columns: int) -> list[_Finding]:
    """Return the significant findings by Holm's method (1979).

    The smallest p is compared with alpha / columns, the next with alpha / (columns - 1), and so on.
    """
    kept = []
    for rank, finding in enumerate(sorted(findings, key=lambda finding: finding.p)):
        if finding.p > alpha / max(1, columns - rank):
            break
        if finding.matters:
            kept.append(finding)
    return [finding for finding in findings if finding in kept]


def _told(drifted: list[_Finding], columns: int) -> str:
    if columns == 1:
        head, *rest = drifted[0].text.splitlines()
        return "\n  ".join([f"{drifted[0].column}: {head}", *rest])
    lines = [f"{len(drifted)} of {columns} columns drifted"]
    for finding in drifted[:_MOST_SHOWN]:
        head, *rest = finding.text.splitlines()
        lines += [f"  {finding.column}: {head}", *(f"    {line}" for line in rest)]
    if len(drifted) > _MOST_SHOWN:
        lines.append(f"  and {len(drifted) - _MOST_SHOWN} more")
    return "\n".join(lines)
