"""``mlchaos.explore_crashes``: from what the user asks for to a report."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from ..core.clock import VirtualClock
from ..core.crashes import Ran
from ..core.values import index, parse_duration, shown
from ..engine import randomness
from ..engine.controller import Controller
from ..engine.crashes.contents import Contents
from ..engine.crashes.hosts import Fresh, Golden, Host, InProcess, opened
from ..engine.crashes.runs import Subject, Terms
from ..engine.scopes import OURS, within
from ..engine.supervise import check_subject
from ..engine.surroundings import Surroundings
from ..engine.watchdog import no_time_limit
from ..engine.workdirs import KEPT_COPIES
from ..errors import BadArgument, NonDeterministicSubject
from ..oracles.crash_report import CrashReport
from ..oracles.crash_verdicts import CrashJudge
from ..search.crashes import Exploration, Plan, explore, recorded_golden, second_run
from ..sites.torch_trace import traced
from .crash_urls import check_shared, prefix_of, remote_at

__all__ = ["CrashTerms", "explored"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

CALLER = "mlchaos.explore_crashes"
PATIENCE = 30.0
"""Seconds that a resumed run may take at least: some programs wait so long for a lock that a dead process has left."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrashTerms:
    """The keywords of ``mlchaos.explore_crashes``, checked.

    ``storage_options``: how the client of a URL is made; ``allow_remote``: that URL may be on another machine.
    """

    torn_writes: bool = True
    durability: str = "process"
    isolation: str = "auto"
    jobs: int = 1
    horizon: int | None = None
    cross_device: bool = False
    depth: int = 1
    timeout: Any = None
    rtol: float = 0.0
    atol: float = 0.0
    storage_options: Mapping[str, Any] | None = None
    allow_remote: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("durability", ("process", "power")), ("isolation", ("auto", "in-process", "process"))):
            if getattr(self, name) not in choices:
                raise BadArgument(f"{CALLER}: expected {name} to be {' or '.join(map(repr, choices))} but got {shown(getattr(self, name))}")
        for name in ("jobs", "depth", *(["horizon"] if self.horizon is not None else [])):
            if not index(getattr(self, name)):
                raise BadArgument(f"{CALLER}: expected {name} to be 1 or more but got {shown(getattr(self, name))}")
        if self.rtol < 0 or self.atol < 0:
            raise BadArgument(f"{CALLER}: expected rtol and atol of 0 or more but got {self.rtol!r} and {self.atol!r}")
        if self.jobs > 1 and self.isolation == "in-process":
            raise BadArgument(f"{CALLER}: jobs={self.jobs} needs processes, but isolation is 'in-process'")
        if self.timeout is not None and not parse_duration(self.timeout, "timeout"):
            raise BadArgument(f"{CALLER}: expected timeout to be longer than nothing but got {shown(self.timeout)}")
        if self.timeout is not None:
            object.__setattr__(self, "timeout", parse_duration(self.timeout, "timeout"))

    def plan(self, only: str | None) -> Plan:
        """What is to be explored."""
        return Plan(torn_writes=self.torn_writes, power=self.durability == "power", horizon=self.horizon, depth=self.depth, only=only)


def explored(
    controller: Controller, subject: Callable[..., Any], workdir: Any, args: tuple[Any, ...], terms: CrashTerms, scratch: Path
) -> CrashReport:
    """Explore, and report."""
    check_subject(subject, CALLER)
    start = perf_counter()
    prefix = prefix_of(workdir, terms.storage_options)
    with (
        controller.without_faults(),
        randomness.restored(),
        Surroundings(),
        no_time_limit(),
        remote_at(prefix, terms) as remote,
        _store(scratch) as store,
    ):
        root = _root(prefix if isinstance(prefix, Path) else workdir, scratch) if remote is None else scratch
        runs = Terms(root=root, traced=traced, cross_device=terms.cross_device, timeout=terms.timeout, elsewhere=remote)
        begun = _begun(Subject(subject, (workdir, *args)), runs, store, terms, isinstance(controller.clock, VirtualClock))
        found = explore(begun.host, begun.golden, begun.second, begun.judge, terms.plan(_asked(controller)))
        begun.host.leave(begun.golden.end)
    return _report(found, begun, perf_counter() - start)


@dataclasses.dataclass(frozen=True)
class _Begun:
    """The golden run and a second one, made where they agree; ``why``: why not in this process."""

    host: Host
    golden: Golden
    second: Ran
    judge: CrashJudge
    why: str = ""


def _begun(subject: Subject, runs: Terms, store: Contents, terms: CrashTerms, virtual: bool) -> _Begun:
    """Where the subject is deterministic: in this process if it may be, else in fresh ones."""

    def there() -> Host:
        check_shared(runs.place)
        return Fresh(subject, dataclasses.replace(runs, virtual=virtual), store)

    if terms.isolation == "process":
        return _twice(there(), runs.place, terms)
    here = InProcess(subject, runs, store)
    try:
        begun = _twice(here, runs.place, terms)
        if not begun.golden.running:
            return begun
        why, failure = f"a run leaves {begun.golden.running[0]} running", None
        if terms.isolation == "in-process":
            raise BadArgument(f"{CALLER}: {why}: end it before the subject returns, or give isolation='process'")
    except NonDeterministicSubject as error:
        why, failure = f"in one process a second run differs, at {error.divergence}", error
        if terms.isolation == "in-process":
            raise
    try:
        here.leave({})
        return dataclasses.replace(_twice(there(), runs.place, terms), why=why)
    except BadArgument as error:
        if failure is None:
            raise
        failure.add_note(f"mlchaos: fresh processes might show whether it keeps state in its process, but there it cannot run: {error}")
        raise failure from None


def _twice(host: Host, place: object, terms: CrashTerms) -> _Begun:
    golden = recorded_golden(host)
    _check_written(golden, place)
    host.limit(terms.timeout or PATIENCE + 10 * golden.ran.duration)
    judge = CrashJudge(golden.ran, rtol=terms.rtol, atol=terms.atol)
    second = second_run(host, golden)
    divergence = judge.differs(second)
    if divergence is not None:
        raise NonDeterministicSubject(_not_deterministic(divergence), divergence)
    return _Begun(host, golden, second, judge)


def _asked(controller: Controller) -> str | None:
    """The one state that the schedule names, if it does."""
    return None


def _root(workdir: Any, scratch: Path) -> Path:
    if not isinstance(workdir, (str, os.PathLike)) or isinstance(os.fspath(workdir), bytes):
        raise BadArgument(f"{CALLER}: expected workdir, the subject's first argument, to be a path or a URL but got {shown(workdir)}")
    root = Path(os.path.abspath(os.fspath(workdir)))
    below = scratch in root.parents or scratch.resolve() in root.resolve().parents
    if root.exists() and not root.is_dir():
        raise BadArgument(f"{CALLER}: expected workdir to be a directory but {shown(str(workdir))} is a file")
    if not below and (not root.exists() or any(root.iterdir())):
        raise BadArgument(
            f"{CALLER}: {shown(str(workdir))} is not below the test's temporary directory, and it is emptied many times: pass tmp_path"
        )
    root.mkdir(parents=True, exist_ok=True)
    return root


@contextlib.contextmanager
def _store(scratch: Path) -> Iterator[Contents]:
    home = scratch / f"{KEPT_COPIES}{secrets.token_hex(8)}"
    with within(OURS):
        home.mkdir(mode=0o700)
    try:
        with opened(home / "contents") as contents:
            yield contents
    finally:
        with within(OURS):
            shutil.rmtree(home, ignore_errors=True)


def _check_written(golden: Golden, workdir: object) -> None:
    if not any(change.kind not in ("synced", "folder") for change in golden.changes):
        raise BadArgument(
            f"{CALLER}: the subject wrote nothing below its work directory ({shown(str(workdir))}), so a crash could leave nothing "
            "there: does it save its checkpoints elsewhere? It is called as subject(workdir, *args)"
        )


def _not_deterministic(divergence: Any) -> str:
    return (
        f"two runs of the subject differ though nothing crashed; first at {divergence}. Seed what is random (python, NumPy, torch), and "
        "keep times and ids out of what is returned; or allow the difference: explore_crashes(..., rtol=..., atol=...)"
    )


def _report(found: Exploration, begun: _Begun, duration: float) -> CrashReport:
    completed = sum(change.kind in ("closed", "moved", "arrived") for change in found.golden.changes)
    notes = [f"in fresh processes: {begun.why}"] if begun.why else []
    if begun.golden.changed and not begun.why:
        notes.append(f"put back before each run, as a new process would find it: {', '.join(begun.golden.changed[:3])}")
    return CrashReport(
        steps=begun.judge.steps,
        writes=completed,
        states=found.states,
        outcomes=found.outcomes,
        duration=duration,
        notes=notes,
        rejudged=begun.judge.again,
    )
