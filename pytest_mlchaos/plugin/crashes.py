"""``mlchaos.explore_crashes``: from what the user asks for to a report."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from ..core.crashes import CrashOutcome
from ..core.values import index, parse_duration, shown
from ..engine.controller import Controller
from ..engine.crashes.hosts import Golden, InProcess
from ..engine.crashes.runs import Subject, Terms
from ..engine.supervise import check_subject
from ..engine.workdirs import KEPT_COPIES
from ..errors import BadArgument, NonDeterministicSubject
from ..oracles.crash_report import CrashReport
from ..oracles.crash_verdicts import CrashJudge
from ..search.crashes import Exploration, Plan, explore, recorded_golden, second_run
from ..sites.torch_trace import traced

__all__ = ["CrashTerms", "explored"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

CALLER = "mlchaos.explore_crashes"
PATIENCE = 30.0
"""Seconds that a resumed run may take at least: some programs wait so long for a lock that a dead process has left."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrashTerms:
    """The keywords of ``mlchaos.explore_crashes``, checked."""

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
        if self.timeout is not None:
            object.__setattr__(self, "timeout", parse_duration(self.timeout, "timeout"))


def explored(
    controller: Controller, subject: Callable[..., Any], workdir: Any, args: tuple[Any, ...], terms: CrashTerms, scratch: Path
) -> CrashReport:
    """Explore, and report."""
    check_subject(subject, CALLER)
    root = _root(workdir, scratch, subject)
    start = perf_counter()
    runs = Terms(root=root, traced=traced, cross_device=terms.cross_device, timeout=terms.timeout)
    plan = Plan(
        torn_writes=terms.torn_writes, power=terms.durability == "power", horizon=terms.horizon, depth=terms.depth, only=_asked(controller)
    )
    with _store(scratch) as store, InProcess.opened(controller, Subject(subject, (workdir, *args)), runs, store) as host:
        golden = recorded_golden(host)
        _check_written(golden, workdir)
        host.limit(terms.timeout or PATIENCE + 10 * golden.ran.duration)
        judge = CrashJudge(golden.ran, rtol=terms.rtol, atol=terms.atol)
        second = second_run(host, golden)
        divergence = judge.differs(second)
        if divergence is not None:
            raise NonDeterministicSubject(_not_deterministic(divergence), divergence)
        found = explore(host, golden, second, judge, plan)
        host.leave(golden.end)
    return _report(found, judge, perf_counter() - start)


def _asked(controller: Controller) -> str | None:
    """The one state that the schedule names, if it does."""
    return None


def _root(workdir: Any, scratch: Path, subject: Any) -> Path:
    if not isinstance(workdir, (str, os.PathLike)) or isinstance(os.fspath(workdir), bytes):
        raise BadArgument(f"{CALLER}: expected workdir, the subject's first argument, to be a path or a URL but got {shown(workdir)}")
    root = Path(os.path.abspath(os.fspath(workdir)))
    below = scratch in root.parents or scratch.resolve() in root.resolve().parents
    if root.exists() and not root.is_dir():
        raise BadArgument(f"{CALLER}: expected workdir to be a directory but {shown(str(workdir))} is a file")
    if not below and (not root.exists() or any(root.iterdir())):
        raise BadArgument(
            f"{CALLER}: {shown(str(workdir))} is not below the test's temporary directory, and it is emptied and filled many times: pass tmp_path"
        )
    root.mkdir(parents=True, exist_ok=True)
    return root


@contextlib.contextmanager
def _store(scratch: Path) -> Iterator[Path]:
    home = scratch / f"{KEPT_COPIES}{secrets.token_hex(8)}"
    home.mkdir(mode=0o700)
    try:
        yield home / "contents"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _check_written(golden: Golden, workdir: Any) -> None:
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


def _report(found: Exploration, judge: CrashJudge, duration: float) -> CrashReport:
    completed = sum(change.kind in ("closed", "moved", "arrived") for change in found.golden.changes)
    outcomes: list[CrashOutcome] = list(found.outcomes)
    return CrashReport(steps=judge.steps, writes=completed, states=found.states, outcomes=outcomes, duration=duration)
