"""Gather what all tests of a session ran with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from ...core.policy_entries import PolicyDecision
from ...core.validation import count_text
from ...errors import BadArgument
from ..journal_reader import SessionLog

__all__ = ["SessionFacts", "facts_of", "problems_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class SessionFacts:
    """The code and the configuration that the tests of a session ran with.

    Attributes:
        commit: The Git commit, or "" if it is not known.
        tree: Its tree.
        changed: The number of files that differed from it.
        files: The SHA-256 of configuration and lock files, by name.
        versions: The versions of Python and of libraries.
        settings: The settings that differ from their defaults, by test.
        policies: The SHA-256 of the policy that decided about the tests, with its files.
        fidelity: What each fault does not simulate, or "" if its docstring does not say it.
        unknown: The number of tests that ran, and of which the journal does not say these things.
    """

    commit: str
    tree: str
    changed: int
    files: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    policies: Mapping[str, str]
    fidelity: Mapping[str, str]
    unknown: int

    @property
    def is_exact(self) -> bool:
        """Return True if all tests ran the code of one commit, without a change."""
        return bool(self.commit) and not self.changed and not self.unknown

    @property
    def source(self) -> str:
        """Return the code in words."""
        if not self.commit:
            return "unknown: no Git commit was found"
        changed = f", and {count_text(self.changed, 'changed file')}"
        unknown = f", and unknown code for {self.unknown} tests" if self.unknown else ""
        return f"commit {self.commit}{changed if self.changed else ''}{unknown}"

    def text(self) -> str:
        """Return all facts as JSON, but the texts on faults."""
        facts = dataclasses.asdict(self)
        del facts["fidelity"]
        return json.dumps(facts, indent=1) + "\n"


def problems_of(session: SessionLog) -> list[str]:
    """Return what of the session is missing. With any of it, no clause is shown."""
    shards = [
        f"shard {one.shard} by itself gives no verdict. Merge the journals of all shards"
        for one in session.shards
    ]
    return [*session.problems, *shards]


def facts_of(session: SessionLog) -> SessionFacts:
    """Return what the tests ran with.

    Raises:
        BadArgument: The tests ran the code of different commits.
    """
    known = [test.provenance for test in session.tests.values() if test.provenance is not None]
    commits = sorted({one.commit for one in known})
    if len(commits) > 1:
        names = " and ".join(commit[:12] or "no commit" for commit in commits)
        raise BadArgument(f"the tests are of different commits ({names}). Write evidence for each")
    files: dict[str, str] = {}
    fidelity: dict[str, str] = {}
    for one in known:
        for name, digest in one.files.items():
            if files.setdefault(name, digest) != digest:
                raise BadArgument(
                    f"the tests had different content of {name}. Write evidence for each"
                )
        fidelity |= one.fidelity
    versions: dict[str, set[str]] = {}
    for test in session.tests.values():
        for name, version in (test.end.environment if test.end is not None else {}).items():
            versions.setdefault(name, set()).add(version)
    return SessionFacts(
        commits[0] if commits else "",
        known[0].tree if known else "",
        max((one.changed for one in known), default=0),
        dict(sorted(files.items())),
        {name: ", ".join(sorted(found)) for name, found in sorted(versions.items())},
        {
            nodeid: test.provenance.settings
            for nodeid, test in session.tests.items()
            if test.provenance is not None and test.provenance.settings
        },
        {
            ", ".join(one.files): one.digest
            for test in session.tests.values()
            for one in test.all(PolicyDecision)
            if one.digest
        },
        dict(sorted(fidelity.items())),
        sum(
            test.provenance is None and test.outcome != "skipped" for test in session.tests.values()
        ),
    )
