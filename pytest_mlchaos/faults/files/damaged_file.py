"""Define the fault of files that are damaged, missing or late before the subject reads them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ...core.faults import Fault, is_drawn, register
from ...core.sites import Key, Visit
from ...core.storage import StoredFile
from ...core.validation import format_value, parse_duration
from ...errors import BadArgument, PayloadMismatch
from .damage import cut_places, flip, flip_places, noticeable, swap, zero, zero_places
from .layouts import Boundary

__all__ = ["SITE", "DamagedFile", "check_pattern", "file_key", "struck_later"]
LAYER = "Storage"

SITE = "storage.file"
SEARCHED = ("cut", "empty", "missing", "zeroed_block", "bit_flip", "late")
"""The kinds that a sound program can notice, the most telling first."""
PLACED = ("cut", "bit_flip", "zeroed_block", "swapped_blocks")
"""The kinds that have a place in the file."""


def check_pattern(owner: str, name: str, pattern: Any) -> None:
    """Refuse a pattern of files that is empty or a URL."""
    if pattern is None or is_drawn(pattern):
        return
    if not pattern.strip():
        raise BadArgument(
            f"{owner}: {name} must be a pattern such as 'in/*.csv', got {format_value(pattern)}"
        )
    if "://" in pattern:
        raise BadArgument(
            f"{owner}: {name} must be a pattern of local files, got {format_value(pattern)}. Use "
            f"truncated_read or flaky_storage for remote files"
        )


def file_key(pattern: str | None) -> Key:
    """Return the key of the visits of files that match a pattern."""
    return SITE if pattern is None else (SITE, pattern)


def struck_later(visit: Visit, file: StoredFile) -> StoredFile:
    """Record the strike once a reader opens the file.

    A file that no reader opens was not struck.
    """
    before, recorder, struck = file.took_effect, visit.recorder, False
    details = dict(visit.details)

    def took_effect() -> None:
        nonlocal struck
        if before is not None:
            before()
        if not struck:
            struck = True
            if recorder is not None:  # not visit.recorder, which may belong to a later fault
                recorder(details)

    visit.skip()
    return dataclasses.replace(file, took_effect=took_effect)


@register
class DamagedFile(Fault):
    """A file is damaged, missing or late before the subject reads it.

    The file changes on disk, so every reader finds the damage: Python, C++ and Rust libraries, and
    child processes. The original is restored when the subject ends, unless the subject has changed
    the file itself. ``at`` counts the files that match, in the order of their paths, at each start
    of a subject (``mlchaos.pipeline``, ``run``, ``serve``, a world). In a test without the fixture
    ``mlchaos``, its body is the subject. There, a file that the test writes counts before the
    test's next call. A search tries the files that the trial without faults opened for reading.

    Args:
        path: A pattern (``"*.csv"``, ``"in/*.parquet"``) that must match the path below the test's
            own directory, or its last part. Without it, any file.
        kind: ``"cut"``: the file ends early. ``"empty"``: it has no content. ``"missing"``: it does
            not exist. ``"late"``: it appears after ``delay``. ``"zeroed_block"``: a block of 4 KiB
            holds zeros. ``"bit_flip"``: one bit differs. ``"swapped_blocks"``: two blocks have
            exchanged places. ``"replaced"``: it has the content of a different file that matches.
            ``"duplicated"``: a copy with a different name is beside it. Without it, a search tries
            those that a sound program can notice: the first six. It flips bits only in bytes that a
            checksum of the format covers, and zeroes blocks only there and in texts.
        offset: The byte at which it is cut or damaged: a number, or a share of the size (0.5).
        spot: Without ``offset``, the number of a place in the file, the most telling first. A
            cut comes between two parts of the format: lines, CSV records, row groups of Parquet,
            batches of Arrow, members of archives, tensors, pages. Then come 3 bytes, one byte
            before the end, the middle, and 0. Without both, a search tries each of them.
        delay: For ``"late"``: seconds, or ``"30s"``, on the trial's clock.

    Under ``mlchaos.run``, an error that the subject raises after a strike ends its attempt. The
    next attempt finds the originals, as if an operator had restored them.

    Imitates: an upload that stopped half-way, a writer that died, a disk that lost a block, an
    object store's retry that left two copies, a consumer that is earlier than its producer.

    Fidelity: only files below the test's own directories are struck. A path elsewhere that is an
    argument of ``mlchaos.pipeline`` or ``run`` is copied, and the subject receives the copy. Copy
    other files to ``tmp_path``. Times and modes of a damaged file are those of the original. A
    pinned ``"missing"``, ``"late"`` or ``"duplicated"`` counts as a strike although no reader may
    look for the file. Files that a run writes and reads back itself are struck only if ``path`` is
    given, if Python opens them, and not in child processes. A file that one call of a library
    writes and reads in C++ is not struck. Without inotify (Linux), reads by C++ are not seen, so a
    search tries all files that match.

    Source: Ganesan et al., Redundancy Does Not Imply Fault Tolerance, FAST 2017.

    Example: ``@chaos.damaged_file(path="*.csv", kind="cut", offset=0.5, at=0)``
    """

    site = SITE
    random = False
    searchable = ("spot",)
    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {"kind": SEARCHED}
    member_of: ClassVar[Mapping[str, int]] = {"bad_data": 10, "bad_storage": 20}
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    path: str | None = None
    kind: Literal[
        "cut",
        "empty",
        "missing",
        "late",
        "zeroed_block",
        "bit_flip",
        "swapped_blocks",
        "replaced",
        "duplicated",
    ] = "cut"
    offset: Any = None
    spot: int | None = None
    delay: Any = "30s"

    def check(self) -> None:
        """Check the parameters."""
        check_pattern(self.name, "path", self.path)
        if not is_drawn(self.delay):
            parse_duration(self.delay, f"{self.name}: delay")
        if self.spot is not None and not is_drawn(self.spot) and self.spot < 0:
            raise BadArgument(
                f"{self.name}: spot must be a number of 0 or more, got {format_value(self.spot)}"
            )
        if self.offset is None or is_drawn(self.offset):
            return
        share = isinstance(self.offset, float) and 0 <= self.offset < 1
        number = isinstance(self.offset, int) and not isinstance(self.offset, bool)
        if not share and not (number and self.offset >= 0):
            raise BadArgument(
                f"{self.name}: offset must be a number of bytes (4096) or a share below 1 (0.5), "
                f"got {format_value(self.offset)}"
            )

    @property
    def key(self) -> Key:
        """Count the visits of each pattern separately."""
        return file_key(self.path)

    @property
    def is_pinned(self) -> bool:
        """Return True if nothing is left to be drawn: a fixed offset needs no spot."""
        unplaced = self.offset is not None or (not is_drawn(self.kind) and self.kind not in PLACED)
        if not unplaced or self.spot is not None:
            return super().is_pinned
        return (self.at is not None or self.p is not None) and not any(
            is_drawn(getattr(self, name)) for name in ("at", "path", "kind", "offset", "delay")
        )

    def possible(self, visit: Visit) -> bool:
        """Return False for a file that this kind does not change."""
        file: StoredFile = visit.payload
        if self.kind in ("missing", "late", "duplicated"):
            return True
        try:
            content = file.read()
            if self.kind == "replaced":
                return any(other.read() != content for other in file.group)
        except OSError:  # it may not be read, or is gone
            return False
        if not content or self.kind == "empty" or self.offset is not None:
            return bool(content)
        places = self._places(content, file.path)
        if "kind" in self._searched:
            places = places[: noticeable(self.kind, content, file.path)]
        visit.measure(spot=len(places))
        return bool(places)

    def _places(self, content: bytes, path: str) -> list[Boundary]:
        if self.kind == "cut":
            return cut_places(content, path)
        if self.kind == "bit_flip":
            return flip_places(content, path)
        places = zero_places(content, path)
        return (
            [place for place in places if swap(content, place.offset) != content]
            if (self.kind == "swapped_blocks")
            else places
        )

    def apply(self, visit: Visit) -> StoredFile | None:
        """Return the file with its damage."""
        file: StoredFile = visit.payload
        visit.note(path=file.path, kind=self.kind)
        if self.kind == "missing":
            return struck_later(visit, dataclasses.replace(file, absent=True, delay=None))
        if self.kind == "late":
            seconds = parse_duration(self.delay, "delay")
            return struck_later(visit, dataclasses.replace(file, absent=True, delay=seconds))
        if self.kind == "duplicated":
            name = _free_name(file)
            visit.note(copy=name.rpartition("/")[2])
            return struck_later(visit, dataclasses.replace(file, beside=name))
        content = file.read()
        changed = self._changed(file, content, visit)
        if changed == content:
            visit.skip()
            return None
        return struck_later(visit, dataclasses.replace(file, replacement=changed))

    def _changed(self, file: StoredFile, content: bytes, visit: Visit) -> bytes:
        if self.kind == "empty":
            return b""
        if self.kind == "replaced":
            source = next((one for one in file.group if one.read() != content), None)
            if source is None:
                raise PayloadMismatch(
                    f"{self.name}: kind='replaced' needs a second file that matches, with "
                    f"different content, beside {file.path}"
                )
            visit.note(source=source.path)
            return source.read()
        if not content:
            visit.skip()
            return content
        place = self._place(content, file.path)
        visit.note(offset=place.offset, size=len(content), place=place.text)
        if self.kind == "cut":
            return content[: place.offset]
        change = {"bit_flip": flip, "zeroed_block": zero, "swapped_blocks": swap}[self.kind]
        return change(content, place.offset)

    def _place(self, content: bytes, path: str) -> Boundary:
        """Return the place of the damage."""
        size = len(content)
        if self.offset is not None:
            offset = int(size * self.offset) if isinstance(self.offset, float) else self.offset
            if offset > size or (offset == size and self.kind != "cut"):
                raise BadArgument(
                    f"{self.name}: offset must be at most the size of the file, got {offset} for "
                    f"{path} of {size} bytes"
                )
            return Boundary(offset, f"at byte {offset} of {size}")
        places = self._places(content, path)
        number = self.spot or 0
        if number >= len(places):
            raise PayloadMismatch(
                f"{self.name}: spot must be below {len(places)} for kind={self.kind!r} in {path}, "
                f"got {number}"
            )
        return places[number]


def _free_name(file: StoredFile) -> str:
    """Return a name for a copy, as tools name one: ``part-0 (1).csv``."""
    folder, slash, last = file.path.rpartition("/")
    stem, dot, suffix = last.partition(".")
    taken = {other.path for other in file.group}
    for number in itertools.count(1):
        name = f"{folder}{slash}{stem} ({number}){dot}{suffix}"
        if name not in taken:
            return name
    raise AssertionError  # count() does not end
