"""Write what GitHub Actions shows: a summary of the step, and annotations at the user's lines.

It is on if ``GITHUB_ACTIONS`` is ``true`` or ``GITHUB_STEP_SUMMARY`` is set, and the session has a
chaos test.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...core.validation import count_text
from ...errors import BadArgument
from ..journal_reader import SessionLog, TestLog
from ..outputs import check_writable
from ..rows import rows_of
from .findings import Finding, findings, name_of
from .repository import Repository

__all__ = ["check", "lines", "summary", "write"]

OPTION = "--mlchaos-github"
VARIABLE = "GITHUB_STEP_SUMMARY"
MAX_ANNOTATIONS = 10
"""GitHub shows this many errors of a step, and drops the rest without a word."""
MAX_BYTES = 1_000_000
"""GitHub rejects the summary of a step if it is longer than 1 MiB. Other tools may add to it."""
MAX_TEXT = 4_000
"""The most characters of a message. Then one failure does not take the space of all others."""
_ICONS = {"passed": "✅", "failed": "❌", "skipped": "⏭️"}


def check(target: str) -> None:
    """Raise ``BadArgument`` unless the summary can be written."""
    if target != VARIABLE:
        check_writable(OPTION, target, "a file")
    elif not os.environ.get(VARIABLE):
        raise BadArgument(
            f"{OPTION} needs a file, because ${VARIABLE} is not set. Write {OPTION}=summary.md"
        )


def write(session: SessionLog, target: str) -> None:
    """Append the summary to a file. ``GITHUB_STEP_SUMMARY`` stands for the file that it names."""
    path = os.environ.get(VARIABLE, "") if target == VARIABLE else target
    if path and session.tests:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(summary(session))


def lines(session: SessionLog, target: str = "") -> Iterator[str]:
    """Yield the lines for the log of the step, which GitHub turns into annotations."""
    found = findings(session)
    repository = Repository.of(session)
    yield from (_annotation(one, repository) for one in found[:MAX_ANNOTATIONS])
    if len(found) > MAX_ANNOTATIONS:
        rest = count_text(len(found) - MAX_ANNOTATIONS, "more failure")
        yield (
            f"mlchaos: GitHub shows {MAX_ANNOTATIONS} annotations of a step. The summary of the "
            f"step has {rest}."
        )


def _annotation(finding: Finding, repository: Repository) -> str:
    """Return the command of an annotation. GitHub decodes what is encoded here."""
    spot = repository.spot(finding)
    properties = {
        "file": repository.path(spot),
        "line": str(spot.line),
        "title": f"{name_of(finding.test)}: {finding.rule.id}",
    }
    text = "\n".join([_cut(finding.text), *finding.how_to_repeat()])
    told = ",".join(f"{name}={_encode_property(value)}" for name, value in properties.items())
    return f"::error {told}::{_encode(text)}"


def _encode(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _encode_property(text: str) -> str:
    return _encode(text).replace(":", "%3A").replace(",", "%2C")


# -- the summary -----------------------------------------------------------------------------------


def summary(session: SessionLog) -> str:
    """Return the summary as Markdown: one row for each test, and the failures with their texts."""
    found = findings(session)
    tests = session.tests.values()
    counts = {
        outcome: sum(test.outcome == outcome for test in tests)
        for outcome in sorted({test.outcome for test in tests}, key=_rank)
    }
    told = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    parts = [
        f"## Chaos tests: {told}\n",
        "| | test | tried | verdict | lost work | restart | time |\n|---|---|---|---|---|---|---|",
        *(_row(test, row) for test in tests for row in rows_of(test)),
        "",
    ]
    details = [_details(one) for one in found]
    problems = [f"⚠️ {_code(problem)}\n" for problem in session.problems]
    return _fitted([*parts, *problems], details)


def _rank(outcome: str) -> tuple[int, str]:
    return list(_ICONS).index(outcome) if outcome in _ICONS else len(_ICONS), outcome


def _row(test: TestLog, row: Sequence[str]) -> str:
    tried, verdict, lost, restart, seconds, left_out = row
    name = name_of(test)
    cells = [
        _ICONS.get(test.outcome, "⚠️"),
        _code(name),
        tried,
        f"{_plain(verdict)}<br>{_plain(left_out)}" if left_out else _plain(verdict),
        lost.removeprefix("loses "),
        restart.removeprefix("restart "),
        seconds,
    ]
    return f"| {' | '.join(cells)} |"


def _details(finding: Finding) -> str:
    """Return a failure that opens by a click. ``<pre>`` keeps Markdown from reading the text."""
    text = "\n".join([_cut(finding.text), *finding.how_to_repeat()])
    name = name_of(finding.test)
    return (
        f"<details><summary>{_code(name)}: {html.escape(_cut(finding.title, 200))}</summary>\n\n"
        f"{_code(str(finding.spot))} · "
        f'<a href="{finding.rule.help}">{html.escape(finding.rule.id)}</a>\n\n'
        f"<pre>{html.escape(text, quote=False)}</pre>\n</details>\n"
    )


def _code(text: str) -> str:
    return f"<code>{_plain(text)}</code>"


def _plain(text: str) -> str:
    """Return a text that neither HTML nor Markdown takes for markup."""
    return re.sub(r"[*_`\[\]|~\\#:@$]", lambda mark: f"&#{ord(mark[0])};", html.escape(text))


def _cut(text: str, length: int = MAX_TEXT) -> str:
    return text if len(text) <= length else f"{text[: length - 2]} …"


def _fitted(parts: Sequence[str], details: Sequence[str]) -> str:
    """Return the text. What exceeds GitHub's limit is left out."""
    kept: list[str] = []
    size = 0
    for part in (*parts, *details):
        size += len(part.encode()) + 1
        if size > MAX_BYTES:
            rest = count_text(len(parts) + len(details) - len(kept), "more entry", "more entries")
            kept.append(f"\nThe limit of GitHub left out {rest}.")
            break
        kept.append(part)
    return "\n".join(kept) + "\n\n"
