"""Decide which tests judge which columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...core.privacy import may_be_hinted
from ...core.validation import did_you_mean, format_value
from ...errors import BadArgument
from ..columns import ColumnValues
from .findings import label
from .options import JOINT, METHODS, Options
from .single import KINDS_OF, Test

__all__ = ["plan_tests"]

Columns = Mapping[Any, ColumnValues]
DEFAULTS = {"numbers": "ks", "times": "ks", "categories": "chi2", "vectors": "mmd", "mixed": "chi2"}
LISTED = ", ".join(repr(name) for name in ("auto", *METHODS[:-1])) + f" or {METHODS[-1]!r}"


def plan_tests(columns: Columns, options: Options, groups: Mapping[int, str]) -> list[Test]:
    """Return the tests, with their level.

    Args:
        columns: The columns of the reference.
        options: The options of the call.
        groups: The slices that are judged, in words.
    """
    if isinstance(options.method, Mapping):
        unknown = [name for name in options.method if name not in columns]
        if unknown:
            raise BadArgument(
                f"assert_no_drift: method= names {unknown[0]!r}, which is not in the "
                f"reference{_like(unknown[0], columns)}"
            )
    judged = columns
    if (
        options.kind == "probabilities"
        and isinstance(options.method, str)
        and options.method != "auto"
    ):
        judged = {name: columns[name] for name in ("probabilities",)}  # the method is for vectors
    pairs = _pairs(judged, options)
    joint_of_auto = []
    if options.method == "auto":
        numeric = tuple(name for name, column in columns.items() if column.kind == "numbers")
        if len(numeric) > 1:
            joint_of_auto = [(numeric, "mmd")]
    tests = []
    parts: list[tuple[int | None, str]] = [(None, ""), *groups.items()]
    for group, suffix in parts:
        for names, method in pairs + (joint_of_auto if group is None else []):
            tests.append(
                Test(
                    where=_where(names, columns) + suffix,
                    columns=names,
                    method=method,
                    threshold=options.threshold_of(method),
                    alpha=options.alpha,
                    level=options.alpha,
                    bins=options.bins,
                    strict=group is None and options.kind != "probabilities",
                    compare_missing=options.missing == "compare",
                    group=group,
                )
            )
    return [dataclasses.replace(test, level=options.alpha / len(tests)) for test in tests]


def _pairs(columns: Columns, options: Options) -> list[tuple[tuple[Any, ...], str]]:
    """Return the tests of all rows: names of columns, and the method."""
    found: list[tuple[tuple[Any, ...], str]] = []
    together: dict[str, list[Any]] = {}
    for name, column in columns.items():
        method = _method(name, columns, options.method)
        given = options.method is not None and options.method != "auto"
        if method in JOINT and given and column.kind != "mixed":
            together.setdefault(method, []).append(name)
        else:
            found.append(((name,), method))
        if column.kind == "times" and method not in JOINT:
            found.append(((name,), "order"))
        if options.missing == "compare":
            found.append(((name,), "missing"))
    return found + [(tuple(names), method) for method, names in together.items()]


def _method(name: object, columns: Columns, method: str | Mapping[Any, str] | None) -> str:
    kind = columns[name].kind
    how = method.get(name) if isinstance(method, Mapping) else method
    if how is None or how == "auto":
        return DEFAULTS[kind]
    if how not in METHODS:
        raise BadArgument(f"assert_no_drift: method must be {LISTED}, got {format_value(how)}")
    if kind not in KINDS_OF[how] and kind != "mixed":
        others = [one for one in METHODS if kind in KINDS_OF[one]]
        raise BadArgument(
            f"assert_no_drift: {label(name, columns)} holds {kind}, but method={how!r} takes "
            f"{' and '.join(KINDS_OF[how])}. Give {', '.join(map(repr, others[:-1]))} or "
            f"{others[-1]!r} for it"
        )
    return how


def _where(names: tuple[Any, ...], columns: Columns) -> str:
    if len(names) == 1:
        return label(names[0], columns)
    return f"{len(names)} columns together"


def _like(name: object, known: Columns) -> str:
    return did_you_mean(
        str(name), [str(one) for one in known if may_be_hinted(str(name), str(one))]
    )
