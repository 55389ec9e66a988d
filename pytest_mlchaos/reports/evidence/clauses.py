"""Read which tests are evidence for which clause, from a TOML file that the user edits."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import BadArgument
from .verdicts import IN_PART, PASSED, TestResult

__all__ = [
    "Clause",
    "ClauseResult",
    "ClauseTable",
    "judge",
    "mapping_files",
    "read_table",
    "template",
]

SHOWN, SHOWN_IN_PART, NOT_SHOWN = "shown", "shown in part", "not shown"
PROJECT = "pyproject.toml"
_TABLE = ("title", "note", "clause")
_CLAUSE = ("id", "text", "tests", "marks", "limits")


@dataclasses.dataclass(frozen=True, slots=True)
class Clause:
    """A clause, and the tests that are evidence for it.

    Attributes:
        id: Its number, as ``Art. 15(4)``.
        text: What it asks for, in the user's words.
        tests: Node ids, with ``*`` and ``?`` as wildcards.
        marks: Names of marks.
        limits: What these tests cannot show, in the user's words.
    """

    id: str
    text: str = ""
    tests: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    limits: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ClauseTable:
    """The clauses of one file.

    Attributes:
        title: The title of the table.
        note: A text below it.
        clauses: The clauses, in the order of the file.
    """

    title: str
    note: str
    clauses: Sequence[Clause]


@dataclasses.dataclass(frozen=True, slots=True)
class ClauseResult:
    """The status of a clause, as the tests of a session have shown it.

    Attributes:
        clause: The clause.
        status: ``shown``, ``shown in part`` or ``not shown``.
        reasons: Why it is not ``shown``, one sentence each.
        tests: The tests that it names.
    """

    clause: Clause
    status: str
    reasons: Sequence[str]
    tests: Sequence[TestResult]


def judge(
    clause: Clause, results: Sequence[TestResult], problems: Sequence[str] = ()
) -> ClauseResult:
    """Return what the tests of a session have shown for a clause.

    It is shown if each of its patterns and marks names a test, all of these passed, and the whole
    journal was read.

    Args:
        clause: The clause.
        results: The results of all tests.
        problems: What of the session is missing.
    """
    found: dict[str, TestResult] = {}
    reasons = ["the session is not complete: see the limits of this evidence"] * bool(problems)
    for what, wanted in _selections(clause):
        chosen = [one for one in results if wanted(one)]
        found |= {one.nodeid: one for one in chosen}
        if not chosen:
            reasons.append(f"no test of this session has {what}")
    if not clause.tests and not clause.marks:
        reasons.append("no test is named for it")
    tests = [found[nodeid] for nodeid in sorted(found)]
    bad = [one for one in tests if one.verdict not in (PASSED, IN_PART)]
    reasons += [f"{one.nodeid}: {one}" for one in bad]
    partly = [one for one in tests if one.verdict == IN_PART]
    status = NOT_SHOWN if reasons else SHOWN_IN_PART if partly else SHOWN
    reasons += [f"{one.nodeid}: {one}" for one in partly]
    return ClauseResult(clause, status, reasons, tests)


def _selections(clause: Clause) -> Iterator[tuple[str, Any]]:
    for pattern in clause.tests:
        matches = _pattern(pattern).fullmatch
        yield f"the id {pattern}", lambda one, m=matches: m(one.nodeid) is not None
    for mark in clause.marks:
        yield f"the mark {mark}", lambda one, m=mark: m in one.marks


def _pattern(text: str) -> re.Pattern[str]:
    """Return a pattern in which only ``*`` and ``?`` are special: node ids have brackets."""
    parts = re.split(r"([*?])", text)
    return re.compile("".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts))


# -- files -----------------------------------------------------------------------------------------


def mapping_files(folder: Path) -> list[Path]:
    """Return the files of clauses that the project names in ``[tool.mlchaos.evidence]``.

    The project is that of the nearest ``pyproject.toml`` with this table, in ``folder`` or above.

    Raises:
        BadArgument: The table is wrong.
    """
    for one in (folder, *folder.parents):
        path = one / PROJECT
        if not path.is_file():
            continue
        table = _load(path)
        for key in ("tool", "mlchaos", "evidence"):
            table = table.get(key, {}) if isinstance(table, dict) else {}
        if not table:
            continue
        where = f"{path}: [tool.mlchaos.evidence]"
        if not isinstance(table, dict):
            raise BadArgument(f"{where} must be a table")
        _known(table, ("clauses",), where)
        names = _texts(table.get("clauses", ()), "clauses", where)
        return [one / name for name in names]
    return []


def read_table(path: Path) -> ClauseTable:
    """Return the clauses of a file.

    Raises:
        BadArgument: The file is missing or wrong. The message names the clause.
    """
    data = _load(path)
    _known(data, _TABLE, str(path))
    given = data.get("clause", [])
    if not isinstance(given, list) or not given or not all(isinstance(one, dict) for one in given):
        raise BadArgument(f"{path}: it needs at least one [[clause]]")
    clauses: list[Clause] = []
    for number, one in enumerate(given, 1):
        name = _text(one.get("id", ""), "id", f"{path}: [[clause]] {number}")
        where = f"{path}: [[clause]] {name or number}"
        _known(one, _CLAUSE, where)
        if not name:
            raise BadArgument(f"{where}: it needs an id")
        if name in {clause.id for clause in clauses}:
            raise BadArgument(f"{where}: two clauses have this id")
        clauses.append(
            Clause(
                name,
                _text(one.get("text", ""), "text", where),
                _texts(one.get("tests", ()), "tests", where),
                _texts(one.get("marks", ()), "marks", where),
                _text(one.get("limits", ""), "limits", where),
            )
        )
    title = _text(data.get("title", path.stem), "title", str(path))
    return ClauseTable(title, _text(data.get("note", ""), "note", str(path)), clauses)


def template() -> str:
    """Return the worked example, to be edited."""
    return (Path(__file__).parent / "eu_ai_act_article_15.toml").read_text(encoding="utf-8")


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise BadArgument(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise BadArgument(f"{path} is not valid TOML: {error}") from None


def _known(table: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in table:
        if name not in names:
            raise BadArgument(f"{where}: unknown key {name!r}. The keys are {', '.join(names)}")


def _text(value: object, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise BadArgument(f"{where}: {key} must be a text, got {type(value).__name__}")
    return " ".join(value.split())


def _texts(value: object, key: str, where: str) -> tuple[str, ...]:
    texts: Iterable[object] = value if isinstance(value, list | tuple) else (None,)
    found = [one for one in texts if isinstance(one, str) and one.strip()]
    if len(found) != len(list(texts)):
        raise BadArgument(f"{where}: {key} must be a list of texts")
    return tuple(found)
