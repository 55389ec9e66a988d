"""Define the entries of the journal about policies. ``entries.py`` has the others."""

from __future__ import annotations

import dataclasses

from .entries import Entry, entry_kind

__all__ = ["Abort", "PolicyDecision"]


@entry_kind("policy")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDecision(Entry):
    """The policy in ``pyproject.toml`` decided about a test.

    Attributes:
        decision: ``allowed`` or ``refused``.
        digest: The SHA-256 digest of the policy. The test's entry is without one if no policy
            exists.
        files: The files of the policy, relative to the root directory of pytest.
        refusals: The reasons, a line each: the rule, the fault, and what to do.
        owner: The owner that the test names.
        approved_by: The name in the approval of the test, if the policy asks for one.
        approved_until: The last day of that approval.
        approval_digest: The digest of the test's source and its faults, if an approval was needed.
    """

    decision: str
    digest: str
    files: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    owner: str = ""
    approved_by: str = ""
    approved_until: str = ""
    approval_digest: str = ""


@entry_kind("abort")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Abort(Entry):
    """A condition ended the session, before or during a test. This is not a verdict on the test.

    Attributes:
        condition: The condition, as ``min_free_memory``.
        reason: What it says. Empty for a function of the user, because it may hold data.
    """

    condition: str
    reason: str = ""
