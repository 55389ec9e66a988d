"""Run one shard of a session (``--mlchaos-shard=K/N``).

Explorations of crash states and searches run in each shard, which takes its part of them. Each
other test belongs to one shard.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ..core.entries import Line
from ..core.shard_entries import COV_FAIL_UNDER, REQUIRE_POINTS, ShardEntry
from ..core.shards import AUTO, Shard
from ..errors import BadArgument, MlchaosError
from ..reports.collector import Collector
from .launched import rank_of_session, ranks_are_shards

__all__ = ["begin_shard", "note_shard", "shard_of_search", "shard_of_states"]

_shard: pytest.StashKey[Shard | None] = pytest.StashKey()
_sharing: pytest.StashKey[str] = pytest.StashKey()
STATES, SCHEDULES = "states", "schedules"
EXPLORING = "explore_crashes"
SPLITTER = "pytestsplitplugin"
"""The name under which pytest-split registers. It divides the tests itself."""
WORKER_OUTPUT = "mlchaos_shard"
SHARDED = "mlchaos-shard"


def read_shard(config: pytest.Config) -> Shard | None:
    """Read the option once. A wrong one ends the session."""
    given = config.getoption("mlchaos_shard")
    try:
        config.stash[_shard] = None if given is None else Shard.parse(given)
    except BadArgument as error:
        raise pytest.UsageError(str(error)) from None
    return config.stash[_shard]


def shard_of(config: pytest.Config) -> Shard | None:
    """Return the shard that this session runs, or None if it runs everything."""
    return config.stash.get(_shard, None)


def shard_of_states(item: pytest.Item) -> Shard | None:
    """Return the shard if this test tries a part of its crash states, or None for all of them."""
    return shard_of(item.config) if item.stash.get(_sharing, "") == STATES else None


def shard_of_search(item: pytest.Item) -> Shard | None:
    """Return the shard if this test tries a part of its schedules, or None for all of them."""
    return shard_of(item.config) if item.stash.get(_sharing, "") == SCHEDULES else None


def what_is_shared(item: pytest.Item) -> str:
    """Return what of a test the shards divide: its states, its schedules, or nothing.

    A test that explores and is not recognised runs in one shard, with all of its states. So a
    wrong guess costs time, and never leaves out a state.
    """
    if not isinstance(item, pytest.Function):
        return ""
    config = item.config
    if config.getoption("mlchaos_off") or config.getoption("mlchaos_replay") is not None:
        return ""
    from .counted_calls import named_assertions
    from .marks import declared_by

    if item.get_closest_marker("mlchaos") is not None:
        try:
            if not all(one.fault.is_pinned for one in declared_by(item)):
                return SCHEDULES
        except MlchaosError:
            return ""  # the test reports it
    if "mlchaos" not in item.fixturenames:
        return ""
    known = item._fixtureinfo.name2fixturedefs.values()
    functions = [item.function, *(one.func for several in known for one in several)]
    explores = any(named_assertions(function, [EXPLORING]) for function in functions)
    return STATES if explores else ""


class ShardedSession:
    """Divide the tests of a session, and say at its end which part of the whole it was.

    Args:
        config: The configuration of the session.
        shard: The shard.
    """

    def __init__(self, config: pytest.Config, shard: Shard) -> None:
        self._config = config
        self._shard = shard
        self._collected: dict[str, Any] = {"tests": 0, "digest": "", "shared": []}
        self._left = 0
        self._hidden: list[pytest.Item] = []
        self._plain: dict[str, str] = {}
        self._failed: list[str] = []
        self._ended = ""

    # -- the tests ---------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)  # after ``-m`` and ``-k``, and before pytest-split
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep the tests that are shared, and those that belong to this shard."""
        names = sorted(item.nodeid for item in items)
        shared = {item.nodeid: what for item in items if (what := what_is_shared(item))}
        for item in items:
            item.stash[_sharing] = shared.get(item.nodeid, "")
        self._collected = {
            "tests": len(names),
            "digest": hashlib.blake2b("\n".join(names).encode(), digest_size=12).hexdigest(),
            "shared": sorted(shared),
        }
        if config.pluginmanager.has_plugin(SPLITTER):
            # It has divided the other tests, or is about to. Each shard needs the shared ones.
            self._hidden = [item for item in items if item.nodeid in shared]
            items[:] = [item for item in items if item.nodeid not in shared]
            return
        others = [
            item
            for item in items
            if item.nodeid not in shared and not self._shard.owns(item.nodeid)
        ]
        self._left = len(others)
        if others:
            gone = set(map(id, others))
            items[:] = [item for item in items if id(item) not in gone]
            config.hook.pytest_deselected(items=others)

    @pytest.hookimpl(tryfirst=True)  # before xdist sends the names
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Put back the shared tests that were kept from pytest-split."""
        if self._hidden:
            session.items += self._hidden
            session.testscollected = len(session.items)

    # -- the results -------------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcomes of tests that have no entries in the journal."""
        if hasattr(report, "mlchaos_lines"):
            self._plain.pop(report.nodeid, None)
            return
        if report.when == "call" and hasattr(report, "mlchaos"):
            return
        if report.failed:
            self._failed.append(report.nodeid)
            self._plain[report.nodeid] = "failed"
        elif report.when == "call" or (report.when == "setup" and report.skipped):
            self._plain.setdefault(report.nodeid, report.outcome)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take over what a worker of xdist has collected."""
        found = getattr(node, "workeroutput", {}).get(WORKER_OUTPUT)
        if found:
            self._collected, self._left = found["collected"], found["left"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Finish. A shard to which no test belongs has passed as far as it went."""
        if hasattr(self._config, "workeroutput"):
            found = {"collected": self._collected, "left": self._left}
            self._config.workeroutput[WORKER_OUTPUT] = found
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self._left:
            session.exitstatus = pytest.ExitCode.OK
        if exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR):
            self._ended = "interrupted"
        elif session.shouldstop or session.shouldfail:
            self._ended = "interrupted"  # for example by -x: tests are missing

    def head(self) -> Line:
        """Return the first line of the growing journal: the session has not ended."""
        return Line("", 0, ShardEntry(shard=str(self._shard)))

    def tail(self, lines: int) -> Line:
        """Return the last line of the journal, which has that many others."""
        from .marks import settings_of
        from .provenance import SOURCE, note_source
        from .test_entry import environment

        note_source(self._config)
        source = self._config.stash[SOURCE]
        settings = settings_of(self._config)
        options = {
            name: str(value)
            for name in ("seed", "max_trials", "max_faults", "max_states", "clock", "isolation")
            if (value := getattr(settings, name)) is not None
        }
        for name in ("require_all", "allow_quiet"):
            options[name] = str(getattr(settings, name))
        for name in ("mlchaos_replay", "mlchaos_off"):
            if given := self._config.getoption(name):
                options[name.removeprefix("mlchaos_")] = str(given)
        for name in (COV_FAIL_UNDER, REQUIRE_POINTS):
            # Merging judges these.
            given = self._config.getoption(f"mlchaos_{name}")
            if given := given if given is not None else self._config.getini(f"mlchaos_{name}"):
                options[name] = str(given)
        options |= {f"file {name}": digest[:12] for name, digest in source.files.items()}
        return Line(
            "",
            0,
            ShardEntry(
                shard=str(self._shard),
                lines=lines,
                ended=self._ended,
                commit=source.commit,
                options=options,
                environment=environment(),
                tests=self._collected["tests"],
                digest=self._collected["digest"],
                shared=tuple(self._collected["shared"]),
                plain=dict(sorted(Counter(self._plain.values()).items())),
                failed=tuple(sorted(set(self._failed))),
            ),
        )

    def pytest_report_header(self) -> str:
        """Return the shard."""
        return f"mlchaos: {self._shard.words}"

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say that a shard alone proves nothing."""
        if terminalreporter.verbosity >= -1:
            for line in self._summary():
                terminalreporter.write_line(line)

    def _summary(self) -> Iterator[str]:
        yield f"mlchaos: {self._shard.words}: no verdict by itself"
        if self._config.getoption("mlchaos_journal") is None:
            yield "mlchaos: without --mlchaos-journal=FILE.jsonl there is nothing to merge"
        else:
            yield (
                "mlchaos: `python -m pytest_mlchaos merge` gives the verdict, from the journals of "
                f"all {self._shard.count} shards"
            )


def begin_shard(config: pytest.Config) -> None:
    """Register the plugin that divides the session."""
    shard = read_shard(config)
    if shard is None:
        return
    config.pluginmanager.register(ShardedSession(config, shard), SHARDED)
    if config.getoption("mlchaos_shard").strip() == AUTO and rank_of_session() == (
        shard.index - 1,
        shard.count,
    ):
        config.add_cleanup(ranks_are_shards())


def note_shard(config: pytest.Config, collector: Collector) -> None:
    """Let the journal say which shard it is of."""
    sharded = config.pluginmanager.get_plugin(SHARDED)
    if isinstance(sharded, ShardedSession):
        collector.of_shard(sharded.head(), sharded.tail)
