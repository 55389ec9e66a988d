"""Write ``--mlchaos-sarif=FILE``: failures as SARIF 2.1.0, which code review tools show at a line.

The format is JSON of a fixed structure, so no library is needed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...core.help import DOCS
from ..journal_reader import SessionLog
from .findings import Finding, Rule, Spot, findings, spot_of_test
from .repository import Repository

__all__ = ["log", "write"]

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
ROOT = "%SRCROOT%"
"""The root of the repository. GitHub knows it by this name."""


def write(session: SessionLog, target: str | os.PathLike[str]) -> None:
    """Write the failures of a session."""
    text = json.dumps(log(session), indent=2, ensure_ascii=False)
    Path(target).write_text(f"{text}\n", encoding="utf-8")


def log(session: SessionLog) -> dict[str, Any]:
    """Return the log: one result for each test and cause."""
    found = findings(session)
    rules = list({one.rule.id: one.rule for one in found}.values())
    places = {rule.id: place for place, rule in enumerate(rules)}
    repository = Repository.of(session)
    version = importlib.metadata.version("pytest-mlchaos")
    ended = all(test.outcome not in ("running", "interrupted") for test in session.tests.values())
    run = {
        "tool": {
            "driver": {
                "name": "pytest-mlchaos",
                "version": version,
                "semanticVersion": version,
                "informationUri": f"{DOCS}/",
                "rules": [_rule(rule) for rule in rules],
            }
        },
        # The address of the directory depends on the machine, so it is left out.
        "originalUriBaseIds": {
            ROOT: {"description": {"text": "The root of the repository."}},
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": ended,
                "toolExecutionNotifications": [
                    {"level": "warning", "message": {"text": problem}}
                    for problem in session.problems
                ],
            }
        ],
        "results": [_result(one, places[one.rule.id], repository) for one in found],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    name = "".join(part[:1].upper() + part[1:] for part in rule.id.replace("_", "-").split("-"))
    return {
        "id": rule.id,
        "name": name,
        "shortDescription": {"text": rule.text},
        "fullDescription": {"text": rule.text},
        "help": {
            "text": f"{rule.text} See {rule.help}",
            "markdown": f"{rule.text} [What to do about it]({rule.help})",
        },
        "helpUri": rule.help,
        "defaultConfiguration": {"level": _level(rule)},
        "properties": {"tags": ["mlchaos", "reliability", rule.kind], "precision": "very-high"},
    }


def _level(rule: Rule) -> str:
    # Too little was seen to say yes or no.
    return "warning" if rule.id == "Inconclusive" else "error"


def _result(finding: Finding, place: int, repository: Repository) -> dict[str, Any]:
    test = spot_of_test(finding.test)
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": place,
        "level": _level(finding.rule),
        "message": {"text": _message(finding)},
        "locations": [
            {
                **_location(repository.spot(finding), repository),
                "logicalLocations": [
                    {"fullyQualifiedName": finding.test.nodeid, "kind": "function"}
                ],
            }
        ],
        "relatedLocations": [
            {"id": 1, **_location(test, repository), "message": {"text": "the test"}}
        ],
        # Without a line, so that it stays the same if lines move.
        "partialFingerprints": {"mlchaosCause/v1": finding.fingerprint},
        "properties": {"test": finding.test.nodeid, "faults": list(finding.faults)},
    }


def _message(finding: Finding) -> str:
    parts = [finding.text, f"Test: {finding.test.nodeid}"]
    return "\n".join([*parts, *finding.how_to_repeat()])


def _location(spot: Spot, repository: Repository) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(repository.path(spot)), "uriBaseId": ROOT},
            "region": {"startLine": spot.line},
        }
    }
