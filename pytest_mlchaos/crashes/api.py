"""``mlchaos.explore_crashes``: from what the user asks for to a report.

1. This file checks the terms. ``recording/location.py`` says how the work directory is read and put back; ``urls.py`` does so for a URL.
2. ``baseline.py`` makes the golden run, twice, and chooses a runner: in this process, or fresh ones (``runners.py``, ``run.py``).
   ``recording/`` follows the work directory, and ``runs/torch_trace.py`` the steps.
3. ``states.py`` makes the crash states from the recorded changes.
4. ``explore.py`` resumes from each of them, within ``time_limits.py``, and notes in ``progress.py`` what it is doing.
5. ``verdicts.py`` judges each end by the golden run's, with ``resumption.py``, ``saves.py`` and ``compare_files.py``;
   ``runs/diagnosis.py`` names the first difference. Examples of each verdict are run again in a fresh process.
6. ``report.py`` says it in words, and asserts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from ..core.clock import VirtualClock
from ..core.interrupts import uninterruptible
from ..core.records import Attempt, Record, tell
from ..core.settings import Settings
from ..core.sites import CRASH_STATE
from ..core.validation import index, parse_duration, shown
from ..engine import randomness
from ..engine.controller import Controller
from ..engine.counters import ScheduledFault
from ..engine.process_state import ProcessState
from ..engine.scopes import KEPT_COPIES, OURS, within
from ..engine.user_code import user_place
from ..engine.watchdog import no_time_limit
from ..errors import BadArgument, TrialTimeout
from ..runs.supervisor import Watch, check_subject, not_finite_of
from ..runs.torch_trace import traced
from ..runs.verdicts import Run
from .baseline import Begun, Hosts, begin, begin_beside
from .explore import Exploration, Plan, confirmed, explore, path_to, states_of
from .model import CrashState, Folder
from .progress import Progress
from .recording.content_store import Contents
from .recording.directory import Disk
from .recording.strace_process import check_strace
from .report import CrashReport
from .run import Subject, Terms, ends_the_test
from .runners import Fresh, InProcess, opened
from .states import completed_writes
from .urls import check_shared, prefix_of, remote_at
from .verdicts import CrashJudge

__all__ = ["CrashTerms", "Shown", "asked_state", "crashed_run", "explored"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

CALLER = "mlchaos.explore_crashes"

COMPARED = (
    "states were found by comparing the directory with what it was, as this system tells of no changes (no inotify, or its limit of "
    "instances or watches is reached): some may be missed"
)
DIFFERS = "at the end of the run without a crash, not what its system calls made of them (written through a mapping into memory, say)"
UNCHECKED = "not checked in a fresh process (what the subject keeps in this one may help it to resume)"
RECORDED = 5.0
"""How many times as long as another a run may take that is recorded."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """About the test: ``test`` is how it can be typed; ``keep``: where states that a report names are left; ``folder``: where it lies.

    ``began``: when the test's first exploration began, in a list; all of them share the budget.
    """

    test: str = ""
    keep: Path | None = None
    folder: Path | None = None
    began: list[float] = dataclasses.field(default_factory=list)

    def is_over(self, budget: float | None) -> Callable[[], bool]:
        """Return a function that returns True once the explorations of this test have taken this many seconds."""
        if not self.began:
            self.began.append(perf_counter())
        end = math.inf if budget is None else self.began[0] + budget
        return lambda: perf_counter() > end


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
    compare: str | Sequence[str] | None = None
    record: str = "auto"

    def __post_init__(self) -> None:
        choices_of = {"durability": ("process", "power"), "isolation": ("auto", "in-process", "process"), "record": ("auto", "syscalls")}
        for name, choices in choices_of.items():
            if getattr(self, name) not in choices:
                raise BadArgument(f"{CALLER}: expected {name} to be {' or '.join(map(repr, choices))} but got {shown(getattr(self, name))}")
        for name in ("jobs", "depth", *(["horizon"] if self.horizon is not None else [])):
            if not index(getattr(self, name)):
                raise BadArgument(f"{CALLER}: expected {name} to be 1 or more but got {shown(getattr(self, name))}")
        if self.jobs > 1 and self.isolation == "in-process":
            raise BadArgument(f"{CALLER}: jobs={self.jobs} needs processes, but isolation is 'in-process'")
        if self.record == "syscalls":
            if self.isolation == "in-process":
                raise BadArgument(f"{CALLER}: record='syscalls' needs fresh processes, but isolation is 'in-process'")
            check_strace(CALLER)
        if self.timeout is not None and not parse_duration(self.timeout, "timeout"):
            raise BadArgument(f"{CALLER}: expected timeout to be longer than nothing but got {shown(self.timeout)}")
        if self.timeout is not None:
            object.__setattr__(self, "timeout", parse_duration(self.timeout, "timeout"))

    def plan(self, only: str | None, is_over: Callable[[], bool]) -> Plan:
        """Return what is to be explored; a state that was asked for is tried however long that takes."""
        return Plan(
            torn_writes=self.torn_writes,
            power=self.durability == "power",
            horizon=self.horizon,
            depth=self.depth,
            only=only,
            is_over=is_over if only is None else lambda: False,
        )

    @property
    def patterns(self) -> list[str] | None:
        """Return the patterns of the files to be compared; None if nothing was said."""
        return [self.compare] if isinstance(self.compare, str) else None if self.compare is None else list(self.compare)

    @property
    def crew(self) -> int:
        """Return how many runs are made at a time: ``jobs``, and at most one for each processor."""
        return min(self.jobs, _processors())


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def explored(
    controller: Controller,
    subject: Callable[..., Any],
    workdir: Any,
    args: tuple[Any, ...],
    terms: CrashTerms,
    scratch: Path,
    shown: Shown,
    settings: Settings,
) -> CrashReport:
    """Explore, and report."""
    check_subject(subject, CALLER)
    is_over, progress = shown.is_over(settings.budget), Progress()
    start = perf_counter()
    asked = asked_state(controller)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_telling(progress))
        crew = _begun(stack, controller, subject, workdir, args, terms, scratch, _most(settings), progress)
        plan = dataclasses.replace(terms.plan(asked and asked[1], is_over), progress=progress)
        begun, found = confirmed(crew, explore(crew, plan), plan)
        begun.host.leave(begun.golden.end)
        left_out = _left_out(found, settings, progress)
        report = _report(found, begun, perf_counter() - start, "" if asked else shown.test, os.path.abspath(str(workdir)), left_out)
        if shown.keep is not None:
            for state in [found.states[0]] if asked else report.examples:
                report.notes.append(f"kept: {_kept(state, shown.keep, begun.host.contents)} ({state.id})")
    if asked is not None:
        controller.note(asked[0], state=asked[1])
    if left_out:
        warnings.warn(f"{CALLER}: {left_out}", stacklevel=4)
    return report


def _most(settings: Settings) -> float:
    """Return the seconds that a test which sets ``timeout`` allows one run. The default is not a decision of the user's."""
    return math.inf if settings.timeout in (None, Settings().timeout) else settings.timeout


@contextlib.contextmanager
def _telling(progress: Progress) -> Iterator[None]:
    """Note on what ends an exploration from outside (a time limit, Ctrl-C) which phase it was in, and where the subject's code was."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, (TrialTimeout, KeyboardInterrupt)) or ends_the_test(error):
            place = user_place(error)
            error.add_note(f"mlchaos: {CALLER} was {progress}{f'; the code was at {place}' if place else ''}")
        raise


def _left_out(found: Exploration, settings: Settings, progress: Progress) -> str:
    """Return what the budget left out, in words."""
    parts = [
        *([f"{len(found.untried)} of {len(found.states)} crash states were not tried"] if found.untried else []),
        *([f"no second crash was tried behind {found.unlisted} of them"] if found.unlisted else []),
    ]
    return f"{', and '.join(parts)}: the setting budget={settings.budget:g} (seconds) ran out; raise it ({progress.tried})" if parts else ""


def _begun(
    stack: contextlib.ExitStack,
    controller: Controller,
    subject: Callable[..., Any],
    workdir: Any,
    args: tuple[Any, ...],
    terms: CrashTerms,
    scratch: Path,
    most: float = math.inf,
    progress: Progress | None = None,
) -> list[Begun]:
    """Golden runs: one for each job, in a directory of its own. No fault strikes, and no time of the trial's passes, until the stack ends.

    (A context manager of contextlib's would show its own code behind what a golden run raises.)
    """
    prefix = prefix_of(workdir, terms.storage_options)
    stack.enter_context(controller.without_faults())
    stack.enter_context(randomness.restored())
    stack.enter_context(ProcessState())
    left = stack.enter_context(no_time_limit())
    remote = stack.enter_context(remote_at(prefix, terms))
    home = stack.enter_context(_home(scratch))
    root = _root(prefix if isinstance(prefix, Path) else workdir, scratch) if remote is None else scratch
    runs = Terms(
        root=root,
        traced=traced,
        cross_device=terms.cross_device,
        timeout=terms.timeout * RECORDED if terms.timeout else left,
        elsewhere=remote,
    )
    virtual = isinstance(controller.clock, VirtualClock)

    def hosts(job: int, place: Path) -> Hosts:
        contents = stack.enter_context(opened(home / f"contents-{job}"))
        given = Subject(subject, (workdir if not job else type(workdir)(place), *args))
        made = _hosts(given, dataclasses.replace(runs, root=place), contents, terms, virtual, most)
        return made if progress is None else dataclasses.replace(made, progress=progress)

    first = begin(hosts(0, root))
    others = [_beside(home / str(job) / root.name) for job in range(1, terms.crew)]
    return [first, *(begin_beside(first, hosts(job, place)) for job, place in enumerate(others, 1))]


def _hosts(subject: Subject, runs: Terms, contents: Contents, terms: CrashTerms, virtual: bool, most: float) -> Hosts:
    """Where runs may be made."""

    def fresh() -> Fresh:
        check_shared(runs.place)
        return Fresh(subject, dataclasses.replace(runs, virtual=virtual), contents, syscalls=terms.record == "syscalls")

    is_here = terms.isolation != "process" and terms.jobs == 1 and terms.record == "auto"
    return Hosts(
        here=functools.partial(InProcess, subject, runs, contents) if is_here else None,
        fresh=fresh if terms.isolation != "in-process" else None,
        judge=functools.partial(CrashJudge, rtol=terms.rtol, atol=terms.atol, compare=terms.patterns),
        root=str(runs.place),
        timeout=terms.timeout,
        most=most,
    )


def _beside(place: Path) -> Path:
    with within(OURS):
        place.mkdir(parents=True)
    return place


def asked_state(controller: Controller) -> tuple[ScheduledFault, str] | None:
    """The crash state that the schedule names, if it does, and the fault that does."""
    for scheduled in controller.scheduled:
        key = scheduled.fault.key
        if isinstance(key, tuple) and key[0] == CRASH_STATE:
            return scheduled, key[1]
    return None


def crashed_run(
    controller: Controller,
    subject: Callable[..., Any],
    args: tuple[Any, ...],
    scheduled: ScheduledFault,
    name: str,
    scratch: Path,
    watch: Watch,
) -> Run:
    """The run that dies so that it leaves the crash state of that name, and is started again."""
    check_subject(subject, "mlchaos.run")
    if not args or not isinstance(args[0], (str, os.PathLike)):
        raise BadArgument(
            f"crash(state={name!r}): mlchaos.run needs the work directory as the subject's first argument, as in run(train, tmp_path)"
        )
    started, strikes = controller.clock.now(), len(controller.journal)
    with contextlib.ExitStack() as stack:
        (begun,) = _begun(stack, controller, _Trained(subject, watch), args[0], args[1:], CrashTerms(isolation="in-process"), scratch)
        (state,) = explore_to(begun, name)
        ran = begun.host.resume(state.tree, 2, None)
    controller.note(scheduled, state=name)
    first = Attempt(f"the process died and left {state.what} (injected by mlchaos)", state.step)
    if ran.error is not None:
        ran.error.add_note(f"mlchaos: the subject's own error, in attempt 2 of mlchaos.run\n{tell([first])}")
        raise ran.error
    if ran.hung is not None:
        raise TrialTimeout(f"the run that was started again did not end; it stood {ran.hung}", ran.hung)
    value, parameters, broken = ran.value
    attempts = (first, Attempt("returned", len(ran.trace.steps)))
    passed = controller.clock.now() - started
    record = Record(value, attempts, controller.journal[strikes:], passed, parameters, value, not_finite=broken)
    whole, trained, broken = begun.golden.ran.value
    first = Attempt("returned", begun.judge.steps)
    golden = Record(whole, (first,), (), begun.golden.ran.duration, trained, whole, not_finite=broken)
    return Run(record, lambda: Run(golden))


@dataclasses.dataclass(frozen=True)
class _Trained:
    """A subject that also returns the parameters that it has trained, and what is not finite in its models."""

    subject: Callable[..., Any]
    watch: Watch

    def __call__(self, *args: Any) -> tuple[Any, Any, Any]:
        with self.watch() as trained:
            value = self.subject(*args)
            return value, trained(), not_finite_of(trained)


def explore_to(begun: Begun, name: str) -> list[CrashState]:
    """The state of that name, in a list; torn ones and those of a power loss are looked for too."""
    for plan in (Plan(), Plan(power=True)):
        found = [state for state in states_of(begun, plan) if state.id == name]
        if found:
            return found
    return path_to(states_of(begun, Plan()), name)  # which says what there is


def _kept(state: CrashState, folder: Path, contents: Contents) -> Path:
    """The state's directory, for the user to look at."""
    name = re.sub(r"[^\w.@#-]+", "_", state.id)
    place = next(path for number in itertools.count(1) if not (path := folder / (name if number == 1 else f"{name}-{number}")).exists())
    with within(OURS):
        folder.mkdir(parents=True, exist_ok=True)
        Disk(place, contents).hold({"": Folder(), **state.tree})
    return place


def _root(workdir: Any, scratch: Path) -> Path:
    if not isinstance(workdir, (str, os.PathLike)) or isinstance(os.fspath(workdir), bytes):
        raise BadArgument(f"{CALLER}: expected workdir, the subject's first argument, to be a path or a URL but got {shown(workdir)}")
    root = Path(os.path.abspath(str(workdir)))
    below = scratch in root.parents or scratch.resolve() in root.resolve().parents
    if root.exists() and not root.is_dir():
        raise BadArgument(f"{CALLER}: expected workdir to be a directory but {shown(str(workdir))} is a file")
    if not below and (not root.exists() or any(root.iterdir())):
        raise BadArgument(
            f"{CALLER}: {shown(str(workdir))} is not below the test's temporary directory, and it is emptied many times: pass tmp_path"
        )
    root.mkdir(parents=True, exist_ok=True)
    return root


@uninterruptible
def _home(scratch: Path) -> Iterator[Path]:
    home = scratch / f"{KEPT_COPIES}{secrets.token_hex(8)}"
    with within(OURS):
        home.mkdir(mode=0o700)
    try:
        yield home
    finally:
        with within(OURS):
            shutil.rmtree(home, ignore_errors=True)


def _report(found: Exploration, begun: Begun, duration: float, test: str, root: str, left_out: str) -> CrashReport:
    completed = completed_writes(begun.golden.changes)
    notes = [f"each run in a fresh process: {begun.why}"] if begun.why else []
    if begun.golden.changed and not begun.host.is_fresh:
        notes.append(f"put back before each run, as a new process would find it: {', '.join(begun.golden.changed[:3])}")
    if begun.golden.kept and not begun.host.is_fresh:
        notes.append(f"left in this process, where a later run finds it: {', '.join(begun.golden.kept[:3])}")
    notes += begun.judge.notes
    if found.unchecked:
        notes.append(f"{UNCHECKED}: {found.unchecked}")
    if begun.golden.compared:
        notes.append(COMPARED)
    if begun.golden.differs:
        notes.append(f"{DIFFERS}: {', '.join(begun.golden.differs[:3])}{' ...' if len(begun.golden.differs) > 3 else ''}")
    return CrashReport(
        steps=begun.judge.steps,
        writes=completed,
        states=found.states,
        outcomes=found.outcomes,
        duration=duration,
        notes=notes,
        rejudged=begun.judge.again,
        test=test,
        root=root,
        untried=found.untried,
        left_out=left_out,
        unseen=found.unseen,
        traced=begun.golden.traced,
    )
