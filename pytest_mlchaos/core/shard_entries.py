"""Define the entries by which shards are merged. Only journals of shards have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .entries import Entry, entry_kind

__all__ = ["COV_FAIL_UNDER", "REQUIRE_POINTS", "Part", "PartState", "Searched", "ShardEntry"]

# These options are judged when the shards are merged.
COV_FAIL_UNDER = "cov_fail_under"
REQUIRE_POINTS = "require_points"


@entry_kind("shard")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry(Entry):
    """A session of one shard ended. It is the last line of its journal, and belongs to no test.

    Attributes:
        shard: The shard, as ``3/100``.
        lines: The number of the other lines. Without it, the session did not end.
        ended: ``interrupted`` if it did not end by itself.
        commit: The commit of the tests. Empty if it is not known.
        options: The settings, the replayed schedule and the like, which must be equal in all shards.
        environment: The versions of Python and packages, which must be equal, too.
        tests: The number of tests that were collected, before they were divided.
        digest: A digest of their names.
        shared: The tests that each shard runs, for its part of their states or schedules.
        plain: The number of tests without faults by outcome. They have no other entries.
        failed: Those of them that failed.
    """

    shard: str
    lines: int | None = None
    ended: str = ""
    commit: str = ""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tests: int = 0
    digest: str = ""
    shared: tuple[str, ...] = ()
    plain: Mapping[str, int] = dataclasses.field(default_factory=dict)
    failed: tuple[str, ...] = ()


@entry_kind("part")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part(Entry):
    """A shard tried its part of the crash states of an exploration.

    Attributes:
        number: The number of its result in the trial.
        shard: The shard, as ``3/100``.
        states: The names of all states that one crash leaves, in order. All shards have the same.
        deeper: The names of the states that a second crash leaves, after states of this shard.
        untried: The states of this shard that it did not try.
        untried_kinds: Their kinds in words.
        tried_kinds: The kinds of the states that it tried.
        limit: The reason why it did not try them.
        require_all: True if all states must be tried.
        fresh: The reason why it made its runs in fresh processes, if a verdict differed there.
        doubts: The reasons why it ran states that would have followed from others.
        unseen: The changes that were not seen, one number for each call that made several.
        saved: The files from which a later run could resume.
        completed: For each file that the golden run completed, the number of the first equal one.
        compared: The files that the test compares by name. Null if it names none.
        compares_all: True if all files are compared.
        texts: The files that are compared if a run reads them. Null if all are.
        grown: The files that were only appended to.
        is_final: True if one shard tries all states, so that their verdicts are final.
    """

    number: int
    shard: str
    states: tuple[str, ...]
    deeper: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()
    untried_kinds: tuple[str, ...] = ()
    tried_kinds: tuple[str, ...] = ()
    limit: str = ""
    require_all: bool = False
    fresh: str = ""
    doubts: tuple[str, ...] = ()
    unseen: tuple[int, ...] = ()
    saved: tuple[str, ...] = ()
    completed: tuple[int, ...] = ()
    compared: tuple[str, ...] | None = None
    compares_all: bool = False
    texts: tuple[str, ...] | None = None
    grown: tuple[str, ...] = ()
    is_final: bool = False


@entry_kind("part_state")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PartState(Entry):
    """Hold what one run of a shard shows by itself, before runs are compared with each other.

    Attributes:
        exploration: The number of the exploration's result in the trial.
        state: The name of the state, as in ``state``.
        verdict: ``recovered``, ``diverged``, ``failed`` or ``hung``.
        path: As in ``state``.
        what: As in ``state``.
        step: As in ``state``.
        until: As in ``state``.
        torn: As in ``state``.
        parent: The state from which the run resumed that was crashed again.
        cut: With several ranks, the number of events of each that had happened.
        content: A digest of the directory, to find equal states of different shards.
        error: The type of the error that it raised.
        cause: Its message.
        detail: Further facts in words.
        divergence_step: The first step that differs.
        component: The component that differs there.
        difference: The difference in words.
        place: The user's line that raised the error.
        resumed_at: The step from which the run resumed.
        lost_steps: The steps that it took again.
        markers: Entries of the returned value that may show the progress, by digests of their names.
        read: The files that it read. Null if this cannot be seen.
        completed: The files that it completed as the golden run did, by their numbers.
        wrote: True if it completed any file.
        differences: The files that differ at the end, each with its words and two notes.
        had_save: True if there was a file to resume from.
        has_resumed: True if the run used such a file, or may have.
        mixed: The files of different saves, in words.
        finished: True if the job had finished.
        tolerated: True if the difference is within the tolerance of the assertion.
        from_scratch: True if all runs began from scratch.
        follows: The state whose run decided this verdict.
        ended_early: True if the run was ended early.
        rank: With several ranks, the one that went wrong first.
    """

    exploration: int
    state: str
    verdict: str
    path: str = ""
    what: str = ""
    step: int = 0
    until: int = 0
    torn: bool = False
    parent: str | None = None
    cut: tuple[int, ...] = ()
    content: str = ""
    error: str = ""
    cause: str = ""
    detail: str = ""
    divergence_step: int | None = None
    component: str = ""
    difference: str = ""
    place: str = ""
    resumed_at: int | None = None
    lost_steps: int | None = None
    markers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    read: tuple[str, ...] | None = None
    completed: tuple[int, ...] = ()
    wrote: bool = False
    differences: tuple[tuple[str, str, str, str], ...] = ()
    had_save: bool = False
    has_resumed: bool = False
    mixed: str = ""
    finished: bool = False
    tolerated: bool = False
    from_scratch: bool = False
    follows: str = ""
    ended_early: bool = False
    rank: int | None = None


@entry_kind("searched")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Searched(Entry):
    """A shard tried its part of the schedules of a search, and none of them failed.

    What is said here is a failure only if all shards say it.

    Attributes:
        silent: The declared faults that never struck, each with its number in the test.
        idle: The assertions that had nothing to judge.
        judged: The assertions that judged something.
        unstruck: The reason why no strike hit what the test judges.
        struck: True if one did.
        void: The reason why no trial ended. Empty if one did.
        skipped: True if all trials were skipped.
    """

    silent: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    unstruck: str = ""
    struck: bool = False
    void: str = ""
    skipped: bool = False
