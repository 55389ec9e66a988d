"""Make typos and wrong encodings in many strings at once, as one array of code points."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["KINDS", "add_typos", "codes_of", "misread", "split"]

KINDS = ("neighbour", "transposition", "deletion", "insertion")
_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
"""The keys of each row. Each row is shifted to the right by about half a key."""


@functools.cache
def _neighbours() -> Any:
    """Return four adjacent keys of each ASCII character (some twice), uint32 [128, 4].

    A character without a key has itself.
    """
    import numpy as np

    table = np.tile(np.arange(128, dtype=np.uint32)[:, None], 4)
    places = {
        key: (row, column + row * 0.5)
        for row, keys in enumerate(_ROWS)
        for column, key in enumerate(keys)
    }
    for key, (row, column) in places.items():
        near = [
            other
            for other, (r, c) in places.items()
            if other != key and abs(r - row) <= 1 and abs(c - column) <= 1
        ]
        same = [other for other in near if other.isalpha() == key.isalpha()] or near
        for case in {key, key.upper()} if key.isalpha() else {key}:
            keys = [ord(other.upper() if case.isupper() else other) for other in same]
            table[ord(case)] = [keys[turn % len(keys)] for turn in range(4)]
    return table


def codes_of(strings: Sequence[str]) -> tuple[Any, Any]:
    """Return all characters as code points (uint8 if possible, else uint32), and each string's
    length.
    """
    import numpy as np

    text = "".join(strings)
    try:
        codes = np.frombuffer(text.encode("latin-1"), dtype="u1")
    except UnicodeEncodeError:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return codes, np.fromiter(map(len, strings), np.int64, len(strings))


_ENCODINGS = {1: ("u1", "latin-1"), 2: ("<u2", "utf-16-le"), 4: ("<u4", "utf-32-le")}


def split(codes: np.ndarray[Any, Any], lengths: Any) -> list[str]:
    """Return strings of these lengths from code points (in two bytes: no surrogates)."""
    import numpy as np

    stored, encoding = _ENCODINGS[codes.dtype.itemsize]
    text = codes.astype(stored, copy=False).tobytes().decode(encoding, "surrogatepass")
    ends = np.cumsum(lengths)
    return [
        text[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    ]


def misread(strings: Sequence[str], encoding: str) -> list[str]:
    """Return the UTF-8 bytes of strings, read in a different encoding. Invalid bytes become U+FFFD."""
    import numpy as np

    table = _table(encoding)
    if table is None:
        return [
            text.encode("utf-8", "surrogatepass").decode(encoding, "replace") for text in strings
        ]
    raw = np.frombuffer("".join(strings).encode("utf-8", "surrogatepass"), dtype=np.uint8)
    # the index of each character's first byte
    starts = np.append(np.flatnonzero((raw & 0xC0) != 0x80), len(raw))
    ends = starts[np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)))]
    return split(table[raw], np.diff(ends, prepend=0))


@functools.cache
def _table(encoding: str) -> Any:
    """Return the character of each byte, uint16 [256]. Return None if the encoding uses several
    bytes.
    """
    import numpy as np

    alone = [bytes([byte]).decode(encoding, "replace") for byte in range(256)]
    together = bytes(range(256)).decode(encoding, "replace")
    return np.array(list(map(ord, alone)), np.uint16) if list(together) == alone else None


def _hits(codes: np.ndarray[Any, Any], rate: float, rng: np.random.Generator) -> Any:
    """Return the struck positions, each with probability ``rate``, at least one. Skip white space."""
    import numpy as np

    hits = np.flatnonzero(rng.random(len(codes), dtype=np.float32) < rate)
    hits = hits[codes[hits] > 32]
    if not len(hits):
        candidates = np.flatnonzero(codes > 32)
        hits = (
            candidates[rng.integers(len(candidates), size=min(1, len(candidates)))]
            if len(candidates)
            else candidates
        )
    return hits


def add_typos(
    strings: Sequence[str], kind: str, rate: float, rng: np.random.Generator
) -> list[str]:
    """Return the strings with typos. Strings without a character to mistype stay unchanged."""
    import numpy as np

    given, lengths = codes_of(strings)
    hits = _hits(given, rate, rng)
    if not len(hits):
        return list(strings)
    which = (
        rng.integers(4, size=len(hits)) if kind == "any" else np.full(len(hits), KINDS.index(kind))
    )
    struck = given[hits]
    near = np.where(
        struck < 127,
        _neighbours()[np.minimum(struck, 127), rng.integers(4, size=len(hits))],
        struck,
    )
    ends = np.cumsum(lengths)
    after = np.minimum(hits + 1, len(given) - 1)
    at_end = ends[np.searchsorted(ends, hits, side="right")] == hits + 1
    # Two swaps of adjacent characters would undo each other.
    next_too = np.append(np.diff(hits) == 1, False)
    swaps = (which == 1) & ~at_end & ~next_too & (struck != given[after])
    slips = (which == 0) & (near != struck)
    codes = given.copy()
    codes[hits[swaps]], codes[after[swaps]] = given[after[swaps]], struck[swaps]
    codes[hits[slips]] = near[slips]
    # A character without an adjacent key is typed twice.
    twice = (which == 3) | ((which < 2) & ~swaps & ~slips)
    gone = hits[which == 2]
    typed = _retype(codes, gone, hits[twice], near[twice])
    longer = np.searchsorted(hits[twice], ends) - np.searchsorted(gone, ends)
    return split(typed, lengths + np.diff(longer, prepend=0))


def _retype(codes: np.ndarray[Any, Any], gone: Any, before: Any, more: Any) -> Any:
    """Return code points without those at ``gone``, and with ``more`` after those at ``before``.

    Both are in order.
    """
    import numpy as np

    kept = np.ones(len(codes), bool)
    kept[gone] = False
    left = codes[kept]
    places = before - np.searchsorted(gone, before) + 1 + np.arange(len(before))
    typed = np.empty(len(left) + len(before), codes.dtype)
    old = np.ones(len(typed), bool)
    old[places] = False
    typed[places] = more
    typed[old] = left
    return typed
