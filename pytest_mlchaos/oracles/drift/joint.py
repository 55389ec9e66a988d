"""Judge several columns, or one of vectors, together: also a change of their dependence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..columns import ColumnValues
from ..two_sample import ks_distance
from .findings import Finding, label
from .points import MOST_POINTS, compare_points
from .single import Test, above, not_comparable

if TYPE_CHECKING:
    import numpy as np

__all__ = ["judge_together", "points_of"]

MOST_LEVELS = 20
"""The number of categories that have a dimension of their own. The others share one."""
MOST_DESCRIBED = 50
"""Up to this number of columns, the message names the pair whose correlation changed most."""
FARTHEST = 1e6
"""Numbers that are more spreads than this away from the median are equally far."""
NORMAL_IQR = 1.349
"""The interquartile range of a normal distribution, in standard deviations."""

Columns = Mapping[Any, ColumnValues]


def judge_together(before: Columns, after: Columns, test: Test) -> list[Finding]:
    """Return the findings of a test that compares the rows as points."""
    wrong = []
    for name in test.columns:
        if name not in after:
            continue  # found anyway
        found = not_comparable(before[name], after[name], test)
        if found is None:
            found = _other_shape(before[name], after[name])
        if found is not None:
            wrong.append(Finding(label(name, before), found, columns=(name,)))
    if wrong or any(name not in after for name in test.columns):
        return wrong
    sides = [_complete_rows(side, test) for side in (before, after)]
    sizes = [_rows(side) for side in sides]
    if min(sizes) < 2:
        text = "cannot be judged: too few rows have a value in each column"
        return [Finding(test.where, text, columns=test.columns)]
    thin = [_thin_out(side, seed) for seed, side in enumerate(sides)]
    a, b = points_of(*thin)
    effect, p = compare_points(test.method, a, b, test.level)
    what = {
        "mmd": f"MMD {effect:.3g}",
        "energy": f"energy coefficient {effect:.3g}",
        "c2st": f"a classifier tells them apart with an accuracy of {effect:.3g}",
    }[test.method]
    lines = [f"{what} (p = {p:.2g}{above(test)}), {_sizes(sizes)}"]
    if effect > test.threshold and p <= test.alpha:
        lines += _describe(thin, before)
    return [Finding(test.where, "\n".join(lines), p, effect > test.threshold, test.columns)]


def _other_shape(before: ColumnValues, after: ColumnValues) -> str | None:
    if before.kind != "vectors" or before.values.shape[1] == after.values.shape[1]:
        return None
    return f"has {after.values.shape[1]} dimensions instead of {before.values.shape[1]}"


def _rows(columns: Columns) -> int:
    return next(iter(columns.values())).rows


def _complete_rows(columns: Columns, test: Test) -> dict[Any, ColumnValues]:
    import numpy as np

    chosen = {name: columns[name] for name in test.columns}
    masks = [column.present for column in chosen.values() if column.present is not None]
    if not masks:
        return chosen
    rows = np.flatnonzero(np.logical_and.reduce(masks))
    return {name: column.take(rows) for name, column in chosen.items()}


def _thin_out(columns: Columns, seed: int) -> dict[Any, ColumnValues]:
    import numpy as np

    total = _rows(columns)
    if total <= MOST_POINTS:
        return dict(columns)
    # The order is kept: it says nothing here, but sorted access is faster.
    rows = np.sort(np.random.default_rng(seed).choice(total, MOST_POINTS, replace=False))
    return {name: column.take(rows) for name, column in columns.items()}


def _sizes(sizes: list[int]) -> str:
    text = f"{sizes[1]} rows against {sizes[0]}"
    if max(sizes) <= MOST_POINTS:
        return text
    return f"{text}, of which at most {MOST_POINTS} each were drawn at random"


# -- points ----------------------------------------------------------------------------------------


def points_of(before: Columns, after: Columns) -> tuple[Any, Any]:
    """Return the rows of both samples as points. Each column has about the same weight.

    Numbers are centred and divided by the spread of both samples together, categories are one-hot.
    """
    import numpy as np

    blocks = []
    for name, column in before.items():
        other = after[name]
        if column.kind == "categories":
            blocks.append(_one_hot(column.values, other.values))
        elif column.kind == "vectors":
            blocks.append(_scaled_vectors(np.concatenate([column.values, other.values])))
        else:
            # Apart from NumPy's promotion of whole numbers, float64 is wide enough.
            pooled = np.concatenate([column.values, other.values]).astype("f8")
            blocks.append(_scaled(pooled)[:, None])
    points = np.hstack(blocks)
    n = _rows(before)
    return points[:n], points[n:]


def _scaled(values: np.ndarray[Any, Any]) -> Any:
    import numpy as np

    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    with np.errstate(over="ignore", invalid="ignore"):
        # Robust, or else a few extreme values would hide all others.
        spread = (high - low) / NORMAL_IQR or float(values.std()) or 1.0
        return np.clip((values - middle) / spread, -FARTHEST, FARTHEST)


def _scaled_vectors(vectors: np.ndarray[Any, Any]) -> Any:
    """Scale all dimensions alike, because the directions of an embedding mean something."""
    import numpy as np

    vectors = vectors / (np.abs(vectors).max() or 1.0)
    return (vectors - vectors.mean(0)) / (float(np.sqrt(vectors.var(0).sum())) or 1.0)


def _one_hot(one: list[Any], other: list[Any]) -> Any:
    import numpy as np

    names = [name for name, _ in Counter([*one, *other]).most_common(MOST_LEVELS)]
    place = {name: index for index, name in enumerate(names)}
    values = [place.get(name, len(names)) for name in [*one, *other]]
    return np.eye(len(names) + 1)[values] / np.sqrt(2)


# -- the message -----------------------------------------------------------------------------------


def _describe(sides: list[dict[Any, ColumnValues]], columns: Columns) -> list[str]:
    """Describe the largest change of one column, and of the dependence of two."""
    import numpy as np

    before, after = sides
    if len(before) == 1:
        (one,), (other,) = before.values(), after.values()
        return [_describe_vectors(one.values, other.values)] if one.kind == "vectors" else []
    names = [name for name, column in before.items() if column.kind in ("numbers", "times")]
    if not 2 <= len(names) <= MOST_DESCRIBED:
        return []
    moves = [
        ks_distance(np.sort(before[name].values), np.sort(after[name].values)) for name in names
    ]
    most = int(np.argmax(moves))
    one, other = (_rank_correlations([side[name].values for name in names]) for side in sides)
    first, second = np.unravel_index(int(np.argmax(np.abs(other - one))), one.shape)
    pair = f"{label(names[first], columns)} and {label(names[second], columns)}"
    return [
        f"largest change of one column: {label(names[most], columns)}, KS distance {moves[most]:.3g}",
        f"largest change of two: the rank correlation of {pair} is {other[first, second]:.2f} instead of {one[first, second]:.2f}",
    ]


def _rank_correlations(values: list[Any]) -> Any:
    import numpy as np

    ranks = np.array([np.unique(one, return_inverse=True)[1] for one in values], dtype=float)
    ranks -= ranks.mean(1, keepdims=True)
    lengths = np.sqrt((ranks**2).sum(1))
    lengths[lengths == 0] = 1.0
    ranks /= lengths[:, None]
    return ranks @ ranks.T


def _describe_vectors(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> str:
    import numpy as np

    scale = max(np.abs(a).max(), np.abs(b).max()) or 1.0
    a, b = a / scale, b / scale
    spread = float(np.sqrt(a.var(0).sum()))
    if not spread:
        return "the reference is constant"
    moved = float(np.sqrt(((b.mean(0) - a.mean(0)) ** 2).sum())) / spread
    now = float(np.sqrt(b.var(0).sum())) / spread
    return (
        f"the mean moved by {moved:.2g} times the spread of the reference; spread {now:.2g} times as "
        "large"
    )
