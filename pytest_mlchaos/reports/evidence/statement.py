"""Write the result of a session as an in-toto attestation of the type ``test-result``.

Its schema is https://in-toto.io/attestation/test-result/v0.1. The subject is the commit, if the
code was exactly that of the commit, and the journal, by its digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .session_facts import SessionFacts
from .verdicts import FAILED, PASSED, TestResult

__all__ = ["PREDICATE", "result_of", "statement_text"]

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"


def result_of(results: Sequence[TestResult], facts: SessionFacts, problems: Sequence[str]) -> str:
    """Return ``PASSED``, ``WARNED`` or ``FAILED``.

    A session without a test is ``FAILED``, because a gate must not accept it. It is at most
    ``WARNED`` if the code was not exactly that of a commit, or if the session is not complete.
    """
    verdicts = {one.verdict for one in results}
    if not verdicts or verdicts & set(FAILED):
        return "FAILED"
    is_complete = verdicts == {PASSED} and facts.is_exact and not problems
    return "PASSED" if is_complete else "WARNED"


def statement_text(
    results: Sequence[TestResult],
    facts: SessionFacts,
    digests: Mapping[str, str],
    problems: Sequence[str],
) -> str:
    """Return the statement as JSON.

    Args:
        results: The results of all tests.
        facts: What they ran with.
        digests: The SHA-256 of the journal, the configuration and the tables of clauses, by the
            names of their files in the folder. The journal is the first.
        problems: What of the session is missing.
    """
    journal, *others = digests
    subject: list[dict[str, Any]] = []
    if facts.is_exact:
        git = {"gitCommit": facts.commit, "gitTree": facts.tree}
        subject.append({"name": "source", "digest": git})
    subject.append({"name": journal, "digest": {"sha256": digests[journal]}})
    configuration = [
        *({"name": name, "digest": {"sha256": digests[name]}} for name in others),
        *({"name": name, "digest": {"sha256": digest}} for name, digest in facts.files.items()),
    ]
    predicate = {
        "result": result_of(results, facts, problems),
        "configuration": configuration,
        "passedTests": [one.nodeid for one in results if one.verdict == PASSED],
        "warnedTests": [one.nodeid for one in results if one.verdict not in (PASSED, *FAILED)],
        "failedTests": [one.nodeid for one in results if one.verdict in FAILED],
    }
    statement = {
        "_type": STATEMENT,
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": predicate,
    }
    return json.dumps(statement, indent=2) + "\n"
