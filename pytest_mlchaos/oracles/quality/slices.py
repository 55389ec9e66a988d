"""Find the slices of a table in which a model is worst, and judge them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...core.privacy import key_text, shows_values
from ...core.recording import oracle
from ...core.validation import FLAG, check_arguments, format_value, is_real
from ...errors import BadArgument, Inconclusive, MetricMissed
from ..intervals import SKEWNESS_FACTOR, clopper_pearson
from ..libraries import scipy_module
from .samples import is_binary, numbers_of, raw_array, whole_number

if TYPE_CHECKING:
    from .samples import Array

__all__ = ["Slice", "assert_no_weak_slice", "find_slices"]

MOST_CATEGORIES = 50
"""The largest number of categories of a column. The rarest beyond them form one slice."""


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """The rows with one value of a column, or one of each of two columns.

    Attributes:
        columns: The positions of its columns.
        parts: The number of its value in each of them.
        size: The number of its rows.
        deficit: How much worse the mean score of its rows is than that of all other rows.
        low: The lower bound of the deficit, corrected for the number of slices.
        high: The upper bound of the deficit of this slice alone.
    """

    columns: tuple[int, ...]
    parts: tuple[int, ...]
    size: int
    deficit: float
    low: float
    high: float


@oracle
@check_arguments("assert_no_weak_slice", higher_is_better=FLAG)
def assert_no_weak_slice(
    scores: Any,
    table: Any,
    *,
    margin: float,
    alpha: float = 0.05,
    min_size: int = 50,
    depth: int = 2,
    bins: int = 4,
    higher_is_better: bool = True,
) -> None:
    """Pass only if no slice of a table is shown to be, or may be, worse by more than ``margin``.

    Slices are the values of each column and the combinations of two columns. Numbers are binned by
    quantiles. Each slice is compared with all other rows. A slice counts as *found* by a bound that
    is corrected for the number of slices that were looked at (Bonferroni), so a random table finds
    none. The test passes if each slice by itself is shown to be worse by at most the margin, which
    needs no correction (an intersection-union test).

    Args:
        scores: The score of each row, for example 1 if the prediction is right, or its loss.
        table: A dict of columns, a data frame, or a 2-D array.
        margin: The deficit that would not matter, in the unit of the scores.
        alpha: The probability that a slice is called weak although none is, and that a test with a
            weak slice passes.
        min_size: The smallest number of rows of a slice that is judged. Rare values of a column
            form one slice.
        depth: 1 for single columns alone, 2 also for pairs of columns.
        bins: The number of quantile bins of a column of numbers.
        higher_is_better: False for losses and errors.

    Raises:
        MetricMissed: A slice is worse by more than the margin. The message names the worst.
        Inconclusive: A slice may be. The message names it, and says how many rows would do.
        BadArgument: A score is NaN, or lengths differ. A value that is missing is a value, too.

    Fidelity: rows must be independent. A weak slice of three columns, or of a range inside a bin,
    is seen only as far as it shows in two columns and whole bins. Slices smaller than ``min_size``
    are not judged. For scores that are not 0 or 1, the bounds are Welch's, corrected for skewness.

    Example:
        >>> rng = numpy.random.default_rng(0)
        >>> country = rng.choice(["de", "fr", "it"], 3_000)
        >>> right = rng.random(3_000) < 0.9
        >>> assert_no_weak_slice(right, {"country": country}, margin=0.1)

    Source: Chung et al. (2020), "Automated data slicing for model validation", IEEE TKDE 32. Berger
    (1982) for intersection-union tests.
    """
    owner = "assert_no_weak_slice"
    for name, value, top in (("margin", margin, math.inf), ("alpha", alpha, 0.5)):
        if not is_real(value) or not 0 <= value < top or (name == "alpha" and not value):
            wanted = "0 or more" if name == "margin" else "above 0 and below 0.5"
            raise BadArgument(f"{owner}: {name} must be {wanted}, got {format_value(value)}")
    whole_number(owner, "min_size", min_size, 2)
    whole_number(owner, "bins", bins, 2)
    if depth not in (1, 2):
        raise BadArgument(f"{owner}: depth must be 1 or 2, got {format_value(depth)}")
    values = numbers_of(scores, f"{owner}: scores")
    columns = _columns(owner, table, len(values))
    slices = find_slices(
        values if higher_is_better else -values,
        [_codes(column, bins, min_size) for column in columns.values()],
        alpha=alpha,
        min_size=min_size,
        depth=depth,
    )
    names = [
        key_text(name, place, len(columns), noun="column") for place, name in enumerate(columns)
    ]
    if not slices:
        raise Inconclusive(
            f"no slice of {len(values):,} rows has {min_size} rows, with as many outside of it. Give "
            f"more rows, or a smaller min_size"
        )
    _judge(slices, names, list(columns.values()), bins, min_size, margin, alpha)


def find_slices(
    scores: Array, codes: list[Array], *, alpha: float, min_size: int, depth: int
) -> list[Slice]:
    """Return the slices with ``min_size`` rows or more. The worst comes first.

    Args:
        scores: The score of each row. Higher is better.
        codes: For each column, the number of each row's value.
        alpha: The probability that any lower bound is above its deficit.
        min_size: The smallest number of rows inside and outside of a slice.
        depth: The largest number of columns of a slice.
    """
    import numpy as np

    groups = [
        (columns, *_sums(scores, [codes[place] for place in columns]))
        for number in range(1, depth + 1)
        for columns in itertools.combinations(range(len(codes)), number)
    ]
    large = [
        (columns, widths, chosen := _chosen(sums[0], len(scores), min_size), sums[:, chosen])
        for columns, widths, sums in groups
    ]
    total = sum(len(chosen) for _, _, chosen, _ in large)
    if not total:
        return []
    sums = np.concatenate([sums for *_, sums in large], axis=1)
    bounds = _bounds(scores, sums, alpha, total)
    found, place = [], 0
    for columns, widths, chosen, _ in large:
        for number in chosen.tolist():
            parts = (number,) if len(columns) == 1 else divmod(number, widths[1])
            deficit, low, high = (float(one[place]) for one in bounds)
            found.append(Slice(columns, parts, int(sums[0][place]), deficit, low, high))
            place += 1
    return sorted(found, key=lambda one: (-one.low, -one.deficit))


def _chosen(sizes: Array, rows: int, min_size: int) -> Array:
    import numpy as np

    return np.flatnonzero((sizes >= min_size) & (rows - sizes >= min_size))


def _sums(scores: Array, codes: list[Array]) -> tuple[tuple[int, ...], Array]:
    """Return the number of values of each column, and the sums of powers 0 to 3 for each slice."""
    import numpy as np

    widths = tuple(int(one.max()) + 1 for one in codes)
    slices = codes[0] if len(codes) == 1 else codes[0] * widths[1] + codes[1]
    length = math.prod(widths)
    centred = scores - scores.mean()
    rows = [np.bincount(slices, minlength=length).astype(float)]
    power = centred
    for _ in range(3):
        rows.append(np.bincount(slices, weights=power, minlength=length))
        power = power * centred
    return widths, np.array(rows)


def _bounds(scores: Array, sums: Array, alpha: float, total: int) -> tuple[Array, Array, Array]:
    """Return the deficit of each slice, its corrected lower bound, and its own upper bound."""
    import numpy as np

    centred = scores - scores.mean()
    squares = centred * centred
    everything = np.array(
        [len(scores), *(float(one.sum()) for one in (centred, squares, squares * centred))]
    )
    inside, outside = sums, everything[:, None] - sums
    means = inside[1] / inside[0], outside[1] / outside[0]
    deficit = means[1] - means[0]
    if is_binary(scores) or is_binary(-scores):
        return deficit, *_share_bounds(scores, inside, outside, alpha, total)
    special = scipy_module("special", "assert_no_weak_slice")
    errors, thirds, degrees = [], [], []
    for part, mean in zip((inside, outside), means, strict=True):
        n = part[0]
        variance = np.clip(part[2] / n - mean**2, 0, None)
        thirds.append(part[3] / n - 3 * mean * part[2] / n + 2 * mean**3)
        errors.append(variance / (n - 1))
        degrees.append(errors[-1] ** 2 / (n - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = np.where(
            degrees[0] + degrees[1] > 0,
            (errors[0] + errors[1]) ** 2 / (degrees[0] + degrees[1]),
            inside[0] - 1,
        )
    # A small slice without any of the rare extreme scores seems to have little noise. So it has at
    # least the noise of all rows, and the skewness of all rows if that moves a bound outwards.
    error = np.sqrt(np.maximum(errors[0], squares.mean() / inside[0]) + errors[1])
    bounds = []
    for level, outwards, sign in ((alpha / total, np.minimum, 1), (alpha, np.maximum, -1)):
        t = special.stdtrit(freedom, 1 - level)
        third = outwards(thirds[0], (squares * centred).mean())
        skewness = sign * (thirds[1] / outside[0] ** 2 - third / inside[0] ** 2) / error**3
        # Cornish and Fisher's correction of a quantile for the skewness of the difference (Hall
        # 1992).
        added = np.clip(SKEWNESS_FACTOR * skewness * (2 * t**2 + 1) / 6, 0, None)
        bounds.append(deficit - sign * error * (t + added))
    low, high = bounds
    return deficit, low, high


def _share_bounds(
    scores: Array, inside: Array, outside: Array, alpha: float, total: int
) -> tuple[Array, Array]:
    """Return bounds of the deficit of shares from exact bounds of both shares."""
    import numpy as np

    mean = scores.mean()
    sign = -1 if scores.min() < 0 else 1
    hits, other = (
        np.clip(np.round(sign * (part[1] + mean * part[0])), 0, part[0])
        for part in (inside, outside)
    )

    def gap(level: float, *, lower: bool) -> Array:
        # The larger part decides little, so it gets a tenth of the doubt.
        a = clopper_pearson(
            hits, inside[0], 1 - 0.9 * level, "upper" if lower == (sign > 0) else "lower"
        )
        b = clopper_pearson(
            other, outside[0], 1 - 0.1 * level, "lower" if lower == (sign > 0) else "upper"
        )
        first, second = (b, a) if sign > 0 else (a, b)
        found: Array = first.low - second.high if lower else first.high - second.low
        return found

    return gap(alpha / total, lower=True), gap(alpha, lower=False)


# -- columns ---------------------------------------------------------------------------------------


def _columns(owner: str, table: Any, rows: int) -> dict[Any, Array]:
    """Return the columns of a table by name."""
    if isinstance(table, Mapping):
        named = list(table.items())
    elif (names := getattr(table, "columns", None)) is not None and not callable(names):
        named = [(name, table[name]) for name in names]
    else:
        array = raw_array(table, f"{owner}: table")
        if array.ndim != 2:
            raise BadArgument(
                f"{owner}: table must be a dict of columns, a data frame or a 2-D array, got "
                f"{array.ndim} dimension(s)"
            )
        named = [(place, array[:, place]) for place in range(array.shape[1])]
    found = {}
    for place, (name, values) in enumerate(named):
        called = f"{owner}: table[{key_text(name, place, len(named), noun='column')}]"
        array = raw_array(values, called)
        if array.ndim != 1:
            raise BadArgument(f"{called} must have one dimension, got {list(array.shape)}")
        if len(array) != rows:
            raise BadArgument(f"{called} has {len(array)} rows, but there are {rows} scores")
        found[name] = array
    if not found:
        raise BadArgument(f"{owner}: table must have one column or more, got none")
    if not rows:
        raise BadArgument(f"{owner}: scores must not be empty")
    return found


def _codes(column: Array, bins: int, min_size: int) -> Array:
    """Return the number of the slice of each row. Missing values have a slice of their own."""
    import numpy as np

    if column.dtype.kind in "iuf" and len(np.unique(column[:100_000])) > 2 * bins:
        values = column.astype(float)
        edges = _edges(values, bins)
        codes = np.searchsorted(edges, values, "left")
        return np.where(np.isnan(values), len(edges) + 1, codes).astype(np.intp)
    keys = column if column.dtype.kind in "biufUSM" else np.array([_key(one) for one in column])
    _, codes, counts = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    ranks = np.empty(len(counts), np.intp)
    ranks[order] = np.arange(len(counts))
    kept = min(int(np.count_nonzero(counts >= min_size)), MOST_CATEGORIES)
    # The rare values form one slice, after the frequent ones.
    return np.minimum(ranks[codes.ravel()], kept)


def _key(value: object) -> str:
    return "" if value is None or value != value else f"{type(value).__name__} {value}"


def _edges(values: Array, bins: int) -> Array:
    import numpy as np

    finite = np.sort(values[~np.isnan(values)])
    if not len(finite):
        return finite
    edges = np.unique(finite[[len(finite) * k // bins - 1 for k in range(1, bins)]])
    inner: Array = edges[edges < finite[-1]]
    return inner


def _slice_text(
    one: Slice, names: list[str], columns: list[Array], bins: int, min_size: int
) -> str:
    return " and ".join(
        f"{names[place]} {_part_text(columns[place], part, bins, min_size)}"
        for place, part in zip(one.columns, one.parts, strict=True)
    )


def _part_text(column: Array, part: int, bins: int, min_size: int) -> str:
    """Name a value or a bin. Without permission to show values, name its rank."""
    import numpy as np

    if column.dtype.kind in "iuf" and len(np.unique(column[:100_000])) > 2 * bins:
        edges = _edges(column.astype(float), bins)
        if part > len(edges):
            return "(missing)"
        if not shows_values():
            return f"in bin {part + 1} of {len(edges) + 1}"
        low = "" if not part else f"above {edges[part - 1]:g}"
        high = "" if part == len(edges) else f"up to {edges[part]:g}"
        return f"({' and '.join(filter(None, (low, high)))})"
    codes = _codes(column, bins, min_size)
    rows = codes == part
    values = np.unique(
        column[rows] if column.dtype.kind != "O" else [_key(v) for v in column[rows]]
    )
    if len(values) > 1:
        return f"({len(values)} rare values)"
    if shows_values():
        return f"= {column[rows][0]!r}"
    return f"(its value number {part + 1} by frequency)"


def _judge(
    slices: list[Slice],
    names: list[str],
    columns: list[Array],
    bins: int,
    min_size: int,
    margin: float,
    alpha: float,
) -> None:
    """Raise a verdict unless each slice is shown to be worse by at most the margin."""

    def text(one: Slice) -> str:
        return _slice_text(one, names, columns, bins, min_size)

    looked = f"{len(slices):,} slice{'' if len(slices) == 1 else 's'}"
    weak = [one for one in slices if one.low > margin]
    if weak:
        first = weak[0]
        more = f". {len(weak) - 1} more are, too" if len(weak) > 1 else ""
        raise MetricMissed(
            f"the slice {text(first)} is worse than the other rows by {first.deficit:.3g} "
            f"({first.size:,} rows), expected at most {margin:g}. It is worse by more than "
            f"{first.low:.3g} at alpha={alpha:g}, corrected for {looked}{more}"
        )
    unclear = [one for one in slices if one.high > margin]
    if unclear:
        first = max(unclear, key=lambda one: one.high)
        raise Inconclusive(
            f"{len(unclear)} of {looked} may be worse by more than the margin {margin:g}, and none "
            f"is shown to be. The slice {text(first)} is worse by {first.deficit:.3g} with "
            f"{first.size:,} rows, and by up to {first.high:.3g} at alpha={alpha:g}. "
            f"{_rows_advice(first, margin)}"
        )


def _rows_advice(one: Slice, margin: float) -> str:
    gap = margin - one.deficit
    if gap <= 0:
        return "Give more rows of this slice, or a larger margin"
    needed = math.ceil(one.size * (1.5 * (one.high - one.deficit) / gap) ** 2)
    return (
        f"About {max(needed, one.size + 1):,} rows of it would probably be enough, or give a larger "
        f"margin or min_size"
    )
