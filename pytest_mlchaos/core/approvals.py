"""Read, check and write approvals: who allowed which test with which faults, and until when.

An approval names the digest of the test's source and of its faults. Fixtures, and the code under
test, are not part of it.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import BadArgument
from .validation import did_you_mean, format_value

__all__ = ["Approval", "digest_of", "doubt", "parse_until", "read_approvals", "write_approvals"]

KEYS = ("test", "digest", "by", "until", "faults")
_HEAD = (
    "# Written by `python -m pytest_mlchaos approve`. An approval ends on its date, and when its\n"
    "# test or its faults change.\n"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One approval.

    Attributes:
        test: The node id of the test.
        digest: The digest of its source and of its faults, in hex.
        by: The name of the person who approved it.
        until: The last day.
        faults: The faults, for the reader.
    """

    test: str
    digest: str
    by: str
    until: datetime.date
    faults: tuple[str, ...] = ()


def digest_of(source: str, faults: Iterable[str]) -> str:
    """Return the SHA-256 digest of a test's source and its faults, in hex."""
    return hashlib.sha256(json.dumps([source, *faults]).encode()).hexdigest()


def parse_until(name: str, value: object) -> datetime.date:
    """Return the date of ``2027-01-31``."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        return datetime.date.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BadArgument(
            f"{name} must be a date such as 2027-01-31, got {format_value(value)}"
        ) from None


def read_approvals(file: Path) -> list[Approval]:
    """Return the approvals of a file. A file that does not exist has none."""
    if not file.exists():
        return []
    import tomllib  # sessions without a policy need not load it

    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8")).get("approval", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadArgument(f"{file.name} cannot be read: {error}") from None
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise BadArgument(f"{file.name}: approvals must be tables [[approval]]")
    return [
        _approval(f"{file.name} [[approval]] number {n}", one) for n, one in enumerate(entries, 1)
    ]


def _approval(place: str, table: dict[str, Any]) -> Approval:
    for name in table:
        if name not in KEYS:
            raise BadArgument(f"{place}: unknown key {name!r}{did_you_mean(name, KEYS)}")
    for name in ("test", "digest", "by"):
        value = table.get(name)
        if not isinstance(value, str) or not value.strip():
            raise BadArgument(f"{place} {name} must be a text, got {format_value(value)}")
    faults = table.get("faults", [])
    if not isinstance(faults, list) or not all(isinstance(one, str) for one in faults):
        raise BadArgument(f"{place} faults must be a list of texts, got {format_value(faults)}")
    return Approval(
        test=table["test"],
        digest=table["digest"],
        by=table["by"],
        until=parse_until(f"{place} until", table.get("until")),
        faults=tuple(faults),
    )


def doubt(
    approvals: Iterable[Approval], test: str, digest: str, today: datetime.date
) -> tuple[Approval | None, str]:
    """Return the approval of a test, or None and the reason why it has none that is valid."""
    own = [one for one in approvals if one.test == test]
    same = [one for one in own if one.digest == digest]
    for one in same:
        if today <= one.until:
            return one, ""
    if same:
        last = max(same, key=lambda one: one.until)
        return None, f"the approval by {last.by} expired on {last.until}"
    if own:
        return None, f"the test or its faults have changed since the approval by {own[-1].by}"
    return None, "it has none"


def write_approvals(file: Path, new: Iterable[Approval]) -> None:
    """Write approvals to a file. They replace those of the same tests."""
    added = list(new)
    tests = {one.test for one in added}
    kept = [one for one in read_approvals(file) if one.test not in tests]
    entries = sorted([*kept, *added], key=lambda one: one.test)
    text = "\n".join([_HEAD, *map(_entry, entries)])
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)


def _entry(one: Approval) -> str:
    return (
        "[[approval]]\n"
        f"test = {_text(one.test)}\n"
        f"by = {_text(one.by)}\n"
        f"until = {one.until.isoformat()}\n"
        f"faults = {_text(list(one.faults))}\n"
        f"digest = {_text(one.digest)}\n"
    )


def _text(value: object) -> str:
    # Texts of JSON are texts of TOML, but TOML has no pairs of surrogates.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
