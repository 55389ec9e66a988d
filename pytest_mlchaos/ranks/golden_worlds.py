"""Keep golden worlds across the trials of one test.

A golden world depends on its subject, the arguments, the options, the environment and the initial
content of the directories. Trials have the same, except for the names of fresh directories. So a
golden world is kept under a key without these names. If it says a name itself, for example in a
returned value, it is used only in a directory of this name.

A difference from a kept golden world is never a verdict: the golden world is run again first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ..core.records import WorldRecord
from ..processes.subject_pickling import dumps_with
from ..runs.workdirs import WorkDirs
from .rank_view import Rank

__all__ = ["find_golden", "golden_key", "keep_golden"]

MAX_KEPT = 8
"""The number of golden worlds that are kept for one test."""


def golden_key(about: Sequence[object], subject: bytes, disk: WorkDirs) -> bytes:
    """Return a key that is equal for worlds that begin alike.

    Args:
        about: The options and the start of the processes.
        subject: The key of the subject and its arguments.
        disk: The directories.
    """
    told = hashlib.blake2b(digest_size=16)
    told.update(disk.start_digest())
    told.update(subject)
    told.update(_without_names(repr([_plain(one) for one in about]), disk.roots).encode())
    return told.digest()


def subject_key(subject: object, args: Sequence[object], disk: WorkDirs) -> bytes:
    """Return a key that is equal for equal subjects and arguments."""
    roots = disk.roots

    def stand_in(one: object) -> object:
        if isinstance(one, str):
            text = _without_names(one, roots)
            return None if text == one else text
        if isinstance(one, PurePath):
            return [type(one).__name__, _without_names(str(one), roots)]
        return None

    return hashlib.blake2b(dumps_with((subject, args), stand_in)).digest()


def _without_names(text: str, roots: Sequence[Path]) -> str:
    """Return a text without the names of the directories."""
    for number, root in enumerate(roots):
        text = text.replace(str(root), f"<root {number}>")
    return text


def find_golden(kept: Mapping[bytes, Any], key: bytes, roots: Sequence[Path]) -> WorldRecord | None:
    """Return the golden world that was kept under this key, if there is one for these directories."""
    record, names = kept.get(key, (None, None))
    if not isinstance(record, WorldRecord) or names not in (None, tuple(roots)):
        return None
    return dataclasses.replace(record, is_kept=True)


def keep_golden(
    kept: dict[bytes, Any],
    key: bytes,
    record: WorldRecord,
    ranks: Sequence[Rank],
    roots: Sequence[Path],
) -> None:
    """Keep a golden world for later trials of the test."""
    named = any(rank.mentions(os.fsencode(root.name)) for rank in ranks for root in roots)
    while len(kept) >= MAX_KEPT:
        del kept[next(iter(kept))]
    kept[key] = record, tuple(roots) if named else None


def _plain(value: object) -> object:
    """Return data whose text does not depend on the order in which a mapping was filled."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [_plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return sorted((str(name), _plain(held)) for name, held in value.items())
    return value
