"""Decide which findings are significant, and describe them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...core.privacy import key_text
from ...core.validation import count_text
from ..columns import ColumnValues

__all__ = ["Finding", "describe_findings", "label", "significant", "sizes_text"]

_MOST_SHOWN = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """The result of one test.

    Attributes:
        where: The column, or the columns and the slice, in words.
        text: The description, of one line or several.
        p: The p-value. It is 0 if no statistic is needed to see the drift.
        matters: False if the effect is at most the threshold.
        columns: The names of the columns.
    """

    where: str
    text: str
    p: float = 0.0
    matters: bool = True
    columns: tuple[Any, ...] = ()


def label(name: object, columns: Mapping[Any, ColumnValues]) -> str:
    """Return a column's name for a message. The name of a single column is "the column"."""
    if name is None:
        return "the column"
    if name not in columns:
        return "column"
    text = key_text(name, list(columns).index(name), len(columns), noun="column")
    return text[1:-1] if text.startswith("<") else f"column {text}"


def sizes_text(before: ColumnValues, after: ColumnValues) -> str:
    """Return the sizes of two samples."""
    return f"{count_text(len(after.values), 'value')} against {len(before.values)}"


def significant(findings: list[Finding], alpha: float, tests: int) -> list[Finding]:
    """Return the significant findings by Holm's method (1979).

    The smallest p is compared with alpha / tests, the next with alpha / (tests - 1), and so on.
    """
    kept = []
    for rank, finding in enumerate(sorted(findings, key=lambda finding: finding.p)):
        if finding.p > alpha / max(1, tests - rank):
            break
        if finding.matters:
            kept.append(finding)
    return [finding for finding in findings if finding in kept]


def describe_findings(drifted: list[Finding], columns: int) -> str:
    """Return the message of ``Drifted``."""
    if columns == 1 and len(drifted) == 1:
        head, *rest = drifted[0].text.splitlines()
        return "\n  ".join([f"{drifted[0].where}: {head}", *rest])
    alone = {one.columns for one in drifted if len(one.columns) == 1}
    lines = [
        f"{len(alone)} of {columns} columns drifted"
        if alone
        else f"the {columns} columns drifted, judged together"
    ]
    for finding in drifted[:_MOST_SHOWN]:
        head, *rest = finding.text.splitlines()
        lines += [f"  {finding.where}: {head}", *(f"    {line}" for line in rest)]
    if len(drifted) > _MOST_SHOWN:
        lines.append(f"  and {len(drifted) - _MOST_SHOWN} more")
    return "\n".join(lines)
