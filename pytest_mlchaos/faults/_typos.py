"""Typing mistakes in many strings at once: all characters are worked on as one array of code points."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

__all__ = ["KINDS", "codes_of", "mistyped", "split"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

KINDS = ("neighbour", "transposition", "deletion", "insertion")
_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
"""Keys, row by row; each row is shifted by about half a key to the right."""


@functools.cache
def _neighbours() -> Any:
    """Of each ASCII character four keys next to its own (some twice): uint32 [128, 4]; characters without a key have themselves."""
    import numpy as np

    table = np.tile(np.arange(128, dtype=np.uint32)[:, None], 4)
    places = {key: (row, column + row * 0.5) for row, keys in enumerate(_ROWS) for column, key in enumerate(keys)}
    for key, (row, column) in places.items():
        near = [other for other, (r, c) in places.items() if other != key and abs(r - row) <= 1 and abs(c - column) <= 1]
        same = [other for other in near if other.isalpha() == key.isalpha()] or near
        for case in {key, key.upper()} if key.isalpha() else {key}:
            keys = [ord(other.upper() if case.isupper() else other) for other in same]
            table[ord(case)] = [keys[turn % len(keys)] for turn in range(4)]
    return table


def codes_of(strings: Sequence[str]) -> tuple[Any, Any]:
    """All characters, one after the other, as code points (uint32), and how many each string has."""
    import numpy as np

    codes = np.frombuffer("".join(strings).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return codes, np.fromiter(map(len, strings), np.int64, len(strings))


def split(codes: Any, lengths: Any) -> list[str]:
    """Strings of these lengths from code points, one after the other."""
    import numpy as np

    text = codes.astype("<u4", copy=False).tobytes().decode("utf-32-le", "surrogatepass")
    ends = np.cumsum(lengths)
    return [text[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]


def _hits(codes: Any, rate: float, rng: Any) -> Any:
    """Positions of characters (white space apart) that are hit, each with the probability ``rate``; at least one."""
    import numpy as np

    hits = np.flatnonzero(rng.random(len(codes), dtype=np.float32) < rate)
    hits = hits[codes[hits] > 32]
    if not len(hits):
        candidates = np.flatnonzero(codes > 32)
        hits = candidates[rng.integers(len(candidates), size=min(1, len(candidates)))] if len(candidates) else candidates
    return hits


def mistyped(strings: Sequence[str], kind: str, rate: float, rng: Any) -> list[str]:
    """The strings with typing mistakes; where none has a character to mistype, they stay as they are."""
    import numpy as np

    given, lengths = codes_of(strings)
    hits = _hits(given, rate, rng)
    which = rng.integers(4, size=len(hits)) if kind == "any" else np.full(len(hits), KINDS.index(kind))
    keys = _neighbours()
    ascii_codes = np.minimum(given[hits], 127)
    near = np.where(given[hits] < 127, keys[ascii_codes, rng.integers(4, size=len(hits))], given[hits])
    codes = given.copy()
    ends = np.cumsum(lengths)
    last = np.zeros(len(codes) + 1, bool)
    last[ends[lengths > 0] - 1] = True
    follows = np.zeros(len(codes) + 1, bool)
    follows[hits[1:][np.diff(hits) == 1] - 1] = True  # the next one is hit as well: they would undo each other
    after = np.minimum(hits + 1, len(codes) - 1)
    swaps = (which == 1) & ~last[hits] & ~follows[hits] & (given[hits] != given[after])
    codes[hits[swaps]], codes[after[swaps]] = given[after[swaps]], given[hits[swaps]]
    slips = (which == 0) & (near != given[hits])
    codes[hits[slips]] = near[slips]
    widths = np.ones(len(codes), np.int64)
    widths[hits[which == 2]] = 0
    pressed = (which == 3) | ((which < 2) & ~swaps & ~slips)  # what has no neighbour to slip to is typed twice
    widths[hits[pressed]] = 2
    typed = np.repeat(codes, widths)
    places = np.cumsum(widths)
    typed[places[hits[pressed]] - 1] = near[pressed]
    total = np.concatenate([[0], places])
    return split(typed, total[ends] - total[ends - lengths])
