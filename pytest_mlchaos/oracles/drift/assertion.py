"""Judge whether values still have the distribution of a reference.

Messages name columns, statistics, shares and counts, never the values themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...core.recording import oracle
from ...errors import BadArgument, Drifted
from ..columns import ColumnValues, columns_of
from .derived import embedded, probability_columns
from .findings import Finding, describe_findings, label, significant
from .joint import judge_together
from .options import JOINT, Options
from .plan import plan_tests
from .single import Test, judge_column, unusable
from .slices import Slices, find_slices

__all__ = ["assert_no_drift"]

Columns = dict[Any, ColumnValues]


@oracle
def assert_no_drift(
    reference: object,
    current: object,
    *,
    method: str | Mapping[Any, str] | None = None,
    alpha: float = 0.05,
    threshold: float | Mapping[str, float] | None = None,
    bins: int = 10,
    kind: str | None = None,
    embed: Callable[[list[str]], Any] | Mapping[Any, Callable[[list[str]], Any]] | None = None,
    slices: Any = None,
    missing: str = "fail",
) -> None:
    """Raise ``Drifted`` if the distribution of ``current`` differs from that of ``reference``.

    Both are one column (a 1-D array, tensor, list or series) or one table (a dict of columns, a
    data frame, a 2-D array or tensor). A column of a dict may hold vectors (a 2-D array). What
    cannot be judged never passes. All tests of a call share ``alpha`` (Holm's correction).

    Args:
        reference: The values to compare with.
        current: The values to judge.
        method: One method, or a dict by column. Without it, each column is judged alone: numbers
            and times by ``"ks"``, texts, booleans and categories by ``"chi2"``, vectors by
            ``"mmd"``. ``"auto"`` also judges the numbers of a table together by ``"mmd"``.

            For one column: ``"ks"``, the test of Kolmogorov and Smirnov, exact for small samples,
            ties included. ``"chi2"``, the chi-squared test of homogeneity. Pass it for class labels
            in whole numbers. Categories that the reference never had count as any change of shares.
            ``"psi"``, the population stability index over quantile bins of the reference (of
            categories: its most frequent ones, and the rest). For small samples there are fewer
            bins, so that chance exceeds the threshold at most with the probability ``alpha``.
            ``"wasserstein"`` (the earth mover's distance) and ``"js"`` (the Jensen-Shannon
            distance), by permutations.

            For columns together: ``"mmd"`` (maximum mean discrepancy with Gaussian kernels),
            ``"energy"`` (the energy distance) and ``"c2st"`` (a classifier by nearest neighbours),
            by permutations. They also see a change of the dependence of columns. All columns with
            the same one of these methods are judged in one test. Of more than 2,000 rows of a
            sample, 2,000 are drawn at random.
        alpha: The share of samples without drift that may fail, over *all* tests together.
        threshold: The smallest drift that matters. A significant drift up to it passes. In units of
            the KS distance, of Cramér's V, of the Jensen-Shannon distance (logarithms to 2) or of
            the energy coefficient (0 to 1, default 0), of MMD (0 to 1.4, default 0), of the
            accuracy of the classifier (0.5 is chance, the default), of standard deviations of the
            reference for Wasserstein (default 0), or of PSI (default 0.2: between the 0.1 and the
            0.25 of Siddiqi, *Credit Risk Scorecards*, 2006). A dict gives one for each method.
            In a million samples every small difference is significant, so pass one.
        bins: The largest number of bins for ``"psi"`` and ``"js"``.
        kind: What two-dimensional data are, if not a table. ``"embeddings"``: one vector for each
            row. ``"probabilities"``: the predicted probabilities of the classes. Their largest
            class, its probability, and the vectors are judged.
        embed: A function that returns a vector for each text of a list, for columns of texts. For a
            table, a dict by column.
        slices: Judge each group of rows, too: by the name of a column of groups, a list of names,
            or a pair of sequences (the groups of the reference and of ``current``). Groups with
            fewer than 20 rows are judged together.
        missing: ``"fail"``: a missing value (None, NaN) cannot be judged. ``"compare"``: the share
            of missing values is judged as well, and the other values without them.

    Raises:
        Drifted: A column drifted, or ``current`` is empty, constant, or has NaN, infinite values,
            missing or additional columns, or a different kind of values.
        Inconclusive: No group of ``slices`` has 20 rows in both samples.
        BadArgument: An argument is wrong, or the reference is empty, constant, not finite, or too
            small to show a drift.

    Fidelity: rows are independent draws. Of their order only that of times is judged: the share of
    rows that are earlier than the row before. Without a method for columns together, a change of
    their dependence is not seen. Thinned-out samples show fewer small drifts. Use
    ``assert_recovered`` or ``assert_same_output`` to check that a run returned the *same*
    predictions.

    Source: Gretton et al. (2012), "A kernel two-sample test"; Székely and Rizzo (2013), "Energy
    statistics"; Lopez-Paz and Oquab (2017), "Revisiting classifier two-sample tests"; Phipson and
    Smyth (2010), "Permutation p-values should never be zero".
    """
    options = Options(method, alpha, threshold, bins, kind, embed, slices, missing)
    options.check()
    before = _read(reference, "reference", options)
    try:
        after = _read(current, "current", options)
    except BadArgument as error:
        raise Drifted(f"cannot be judged: {error}") from None
    findings = _columns_that_differ(before, after)
    groups = Slices() if findings else find_slices(slices, before, after)
    tests = plan_tests(before, options, groups.names)
    for test in tests:
        _check_reference(_part(before, groups.before, test), test)
    for test in tests:
        findings += _judge(
            _part(before, groups.before, test), _part(after, groups.after, test), test
        )
    if drifted := significant(findings, alpha, len(tests)):
        raise Drifted(describe_findings(drifted, len({**before, **after})))


def _read(data: object, what: str, options: Options) -> Columns:
    columns = columns_of(data, what, vectors=options.kind is not None)
    if options.embed is not None:
        columns = embedded(columns, options.embed)
    if options.kind == "probabilities":
        return probability_columns(columns, what)
    if options.kind == "embeddings" and columns.get(None, _NOTHING).kind != "vectors":
        raise BadArgument(f"{what} must be rows of numbers for kind='embeddings'")
    return columns


_NOTHING = ColumnValues("", [])


def _columns_that_differ(before: Columns, after: Columns) -> list[Finding]:
    if (None in before) != (None in after):
        forms = ("a single column", "a table")[:: 1 if None in after else -1]
        return [
            Finding("current", f"is {forms[0]}, but the reference is {forms[1]}", columns=(None,))
        ]
    gone = [
        Finding(label(name, before), "is missing", columns=(name,))
        for name in before
        if name not in after
    ]
    return gone + [
        Finding(label(name, after), "is not in the reference", columns=(name,))
        for name in after
        if name not in before
    ]


def _part(columns: Columns, rows: Mapping[int, Any], test: Test) -> Columns:
    """Return the columns of a test, in all rows or in its slice."""
    chosen = {name: columns[name] for name in test.columns if name in columns}
    if test.group is None:
        return chosen
    return {name: column.take(rows[test.group]) for name, column in chosen.items()}


def _check_reference(columns: Columns, test: Test) -> None:
    for name, column in columns.items():
        found = unusable(column, test)
        if found is not None:
            where = test.where if len(columns) == 1 else label(name, columns)
            raise BadArgument(f"assert_no_drift: this reference cannot be used: {where} {found}")


def _judge(before: Columns, after: Columns, test: Test) -> list[Finding]:
    if test.method in JOINT and not _is_simple(before, test):
        return judge_together(before, after, test)
    return [judge_column(before[name], after[name], test) for name in test.columns if name in after]


def _is_simple(columns: Columns, test: Test) -> bool:
    """Return True for the energy distance of one column of numbers, which needs no matrix."""
    return (
        test.method == "energy"
        and len(columns) == 1
        and all(column.kind in ("numbers", "times") for column in columns.values())
    )
