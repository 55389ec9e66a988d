"""Write the report of the evidence: clause, tests, results, limits. In Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ...core.validation import count_text
from .clauses import SHOWN, SHOWN_IN_PART, ClauseResult, ClauseTable
from .session_facts import SessionFacts
from .statement import result_of
from .verdicts import FAILED, IN_PART, PASSED, TestResult

__all__ = ["clause_counts", "counts_of", "report_text"]

NO_FIDELITY = "The docstring of this fault does not say it: it has no `Fidelity:` section."
NO_CLAUSES = (
    "No clauses are mapped to tests. `python -m pytest_mlchaos clauses -o clauses.toml` writes a "
    "worked example. Name your file in `pyproject.toml`: `[tool.mlchaos.evidence]`, `clauses = "
    '["clauses.toml"]`.'
)
HEAD = (
    "This folder says which faults were injected into the code, and what its tests have shown "
    "under them.",
    "It is evidence for the clauses below. It does not state that any law or standard is met: that "
    "needs further evidence, and a person who judges it.",
)


def report_text(
    results: Sequence[TestResult],
    facts: SessionFacts,
    clauses: Sequence[tuple[ClauseTable, Sequence[ClauseResult]]],
    problems: Sequence[str],
) -> str:
    """Return the report.

    Args:
        results: The results of all tests.
        facts: What they ran with.
        clauses: The tables of clauses, with their results.
        problems: What of the session is missing.
    """
    return "\n".join(
        [
            *_head(results, facts, clauses, problems),
            *_clauses(clauses),
            *_tests(results),
            *_fidelity(results, facts),
            *_limits(results, facts, problems),
            "",
        ]
    )


def counts_of(results: Sequence[TestResult]) -> str:
    """Return the number of tests by verdict: ``3 tests: 2 passed, 1 failed``."""
    order = (PASSED, IN_PART, "nothing struck", "skipped", *FAILED)
    counts = [(sum(one.verdict == verdict for one in results), verdict) for verdict in order]
    told = ", ".join(f"{count} {verdict}" for count, verdict in counts if count)
    return f"{count_text(len(results), 'chaos test')}{f': {told}' if told else ''}"


def clause_counts(clauses: Iterable[tuple[ClauseTable, Sequence[ClauseResult]]]) -> str:
    """Return the number of clauses by status: ``4 clauses: 1 shown, 3 not shown``."""
    found = [one.status for _, results in clauses for one in results]
    told = ", ".join(f"{found.count(status)} {status}" for status in dict.fromkeys(sorted(found)))
    return f"{count_text(len(found), 'clause')}{f': {told}' if told else ''}"


def _head(
    results: Sequence[TestResult],
    facts: SessionFacts,
    clauses: Sequence[tuple[ClauseTable, Sequence[ClauseResult]]],
    problems: Sequence[str],
) -> Iterator[str]:
    yield from ("# Evidence of chaos tests", "", *HEAD, "")
    rows = {
        "result": result_of(results, facts, problems),
        "tests": counts_of(results),
        "clauses": clause_counts(clauses),
        "code": facts.source,
        **{f"version of {name}": version for name, version in facts.versions.items()},
        **{f"SHA-256 of {name}": digest for name, digest in facts.files.items()},
    }
    yield from _table(("", ""), rows.items())


def _clauses(
    clauses: Sequence[tuple[ClauseTable, Sequence[ClauseResult]]],
) -> Iterator[str]:
    yield from ("", "## Clauses", "")
    if not clauses:
        yield NO_CLAUSES
    for table, results in clauses:
        yield from (f"### {_line(table.title)}", "")
        if table.note:
            yield from (_line(table.note), "")
        for one in results:
            yield from _clause(one)


def _clause(one: ClauseResult) -> Iterator[str]:
    clause = one.clause
    yield from (f"#### {_line(clause.id)}", "")
    if clause.text:
        yield from (f"> {_line(clause.text)}", "")
    marks = {SHOWN: "Shown", SHOWN_IN_PART: "Shown in part"}
    ending = ", as far as its tests and their limits go." if one.status == SHOWN else "."
    yield f"**{marks.get(one.status, 'Not shown')}**{ending}"
    yield ""
    if one.reasons:
        yield from (*(f"- {_line(reason)}" for reason in one.reasons), "")
    if one.tests:
        yield from _table(
            ("test", "result", "injected", "judged by", "limits"), map(_row, one.tests)
        )
        yield ""
    if clause.limits:
        yield from (f"Limits: {_line(clause.limits)}", "")


def _row(one: TestResult) -> tuple[str, ...]:
    limits = [
        *one.limits,
        *([f"not simulated: see {', '.join(one.faults)} below"] * bool(one.faults)),
    ]
    judged = ", ".join(one.oracles) or "the test's own checks"
    return f"`{one.nodeid}`", str(one), one.injected, judged, ". ".join(limits)


def _tests(results: Sequence[TestResult]) -> Iterator[str]:
    yield from ("", "## All tests", "")
    if not results:
        yield "No chaos test ran, so nothing is shown."
        return
    has_policy = any(one.allowed for one in results)
    yield from _table(
        ("test", "result", "injected", *["allowed by the policy"] * has_policy),
        (
            (f"`{one.nodeid}`", str(one), one.injected, *[one.allowed] * has_policy)
            for one in results
        ),
    )


def _fidelity(results: Sequence[TestResult], facts: SessionFacts) -> Iterator[str]:
    yield from ("", "## What was not simulated", "")
    struck = {name for one in results for name in one.faults}
    if not facts.fidelity and not struck:
        yield "No fault was used."
        return
    yield "Each fault imitates a failure in part. These are the limits of the faults of this session."
    yield ""
    for name in sorted({*facts.fidelity, *struck}):
        text = facts.fidelity.get(name)
        missing = NO_FIDELITY if text is not None else "The journal does not say it."
        quiet = "" if name in struck else " It never struck."
        yield f"- `{name}`: {_line(text or missing)}{quiet}"


def _limits(
    results: Sequence[TestResult], facts: SessionFacts, problems: Sequence[str]
) -> Iterator[str]:
    yield from ("", "## Limits of this evidence", "")
    yield "- It covers the tests above and no others. A test that was not selected is not here."
    if not facts.commit:
        yield "- It is not known which code ran: there was no Git commit, or the journal lacks it."
    elif facts.changed:
        yield (
            f"- The code differed from the commit in {count_text(facts.changed, 'file')}, so the "
            f"commit alone does not say what ran."
        )
    if facts.unknown:
        yield f"- The journal does not say which code {count_text(facts.unknown, 'test')} ran."
    quiet = [one.nodeid for one in results if one.verdict == "nothing struck"]
    if quiet:
        yield f"- In {count_text(len(quiet), 'test')} no fault struck, so they have shown nothing."
    yield from (f"- The session is not complete: {_line(problem)}" for problem in problems)
    yield (
        "- `python -m pytest_mlchaos verify` finds changes that were made to this folder alone. "
        "A person who can write to it can seal it again. Only a signature, or a copy of its head "
        "that was kept elsewhere, shows that."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    """Return a text as one line of Markdown. Docstrings have two backticks where it has one."""
    return re.sub(r"(?<!`)``(?!`)", "`", " ".join(text.split()))
