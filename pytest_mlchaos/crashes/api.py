"""``mlchaos.explore_crashes``: from the user's call to a report.

1. ``options.py`` checks the keywords. ``recording/location.py`` reads and restores the work
   directory, and ``urls.py`` does so for a URL.
2. ``baseline.py`` makes the golden run, twice, and chooses a runner: in this process, or in fresh
   ones (``runners.py``, ``run.py``). ``recording/`` follows the work directory, and
   ``runs/torch_trace.py`` the steps.
3. ``states.py`` makes the crash states from the recorded changes.
4. ``explore.py`` resumes from the states, within ``time_limits.py``, and notes in ``progress.py``
   what it is doing. ``sweep.py`` chooses which states are run, by ``observations.py``, and which
   runs end early, by ``early_end.py``. ``budget.py`` says what was left out.
5. ``verdicts.py`` compares each result with the golden run, with ``resumption.py``, ``saves.py``
   and ``compare_files.py``. ``together.py`` compares the runs with each other.
   ``runs/diagnosis.py`` names the first difference. Examples of each verdict are run again in a
   fresh process.
6. ``report.py`` writes the report and has the assertions. A shard makes a part of the runs:
   ``sharding.py`` describes it, and ``parts.py`` joins the parts of all shards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from ..core.clock import VirtualClock
from ..core.records import Attempt, Record, tell
from ..core.settings import Settings
from ..core.shards import Shard
from ..core.sites import CRASH_STATE
from ..core.validation import format_value
from ..engine import randomness
from ..engine.controller import Controller
from ..engine.counters import ScheduledFault
from ..engine.process_state import ProcessState
from ..engine.scopes import INTERNAL_OPERATION, within
from ..engine.user_code import user_place
from ..engine.watchdog import no_time_limit
from ..errors import BadArgument, MlchaosError, TrialTimeout
from ..runs.supervisor import Watch, check_subject, not_finite_of
from ..runs.torch_trace import trace_steps
from ..runs.verdicts import Run
from .baseline import Baseline, RunnerChoice, establish_baseline, replicate_baseline
from .budget import LeftOut, describe_left_out
from .explore import (
    Exploration,
    confirm_in_subprocess,
    explore,
    partial_exploration,
    path_to,
    states_of,
)
from .model import CrashState, Folder
from .options import CALLER, CrashOptions
from .progress import Progress
from .recording.content_store import ContentStore
from .recording.directory import Disk
from .report import CrashReport
from .run import RunOptions, Subject, ends_the_test, freeze_heap
from .runners import InProcessRunner, Runner, SubprocessRunner, open_store
from .scratch import exploration_home
from .sharding import own_share, part_of
from .states import completed_writes
from .sweep import ExplorationOptions
from .tested import TestInfo, either_over
from .urls import check_shared, prefix_of, remote_at
from .verdicts import CrashJudge

__all__ = ["asked_state", "crashed_run", "explore_crashes"]

COMPARED = (
    "states were found by comparing the directory with its previous content, because inotify is "
    "not available (or its limit of "
    "instances or watches is reached): some states may be missing"
)
DIFFERS = (
    "not as the recorded system calls left them (for example, written through a memory mapping)"
)
OTHERS_WROTE = (
    "not as the ranks left them (written by a process that a rank has started, or through a memory "
    "mapping), so some states may be missing"
)
UNCHECKED = "not checked in a fresh process (state that the subject keeps in this process may help it to resume)"
RECORDING_SLOWDOWN = 5.0
"""A recorded run may take this many times as long as an unrecorded one."""


def explore_crashes(
    controller: Controller,
    subject: Callable[..., Any],
    workdir: object,
    args: tuple[Any, ...],
    options: CrashOptions,
    scratch: Path,
    test_info: TestInfo,
    settings: Settings,
) -> CrashReport:
    """Explore the crash states of a subject and return the report.

    Args:
        controller: The trial's controller. It may name a single crash state.
        subject: The function that trains and saves.
        workdir: Its first argument: a path, a URL, or an object with ``fs`` and ``path``.
        args: Its other arguments.
        options: The keywords of ``mlchaos.explore_crashes``.
        scratch: The test's temporary directory.
        test_info: The test, for the report.
        settings: The settings ``budget`` and ``timeout``.

    Raises:
        BadArgument: The work directory or the subject cannot be explored.
        GoldenRunFailed: The subject fails without a crash.
        NonDeterministicSubject: Two runs without a crash differ.
    """
    check_subject(subject, CALLER)
    options = dataclasses.replace(options.with_settings(settings), shard=test_info.shard)
    progress = Progress()
    start = perf_counter()
    is_over = either_over(test_info.is_over(settings.budget), start, options.budget)
    asked = asked_state(controller)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_telling(progress))
        stack.enter_context(freeze_heap())
        workers = _baselines(
            stack, controller, subject, workdir, args, options, scratch, _most(settings), progress
        )
        wanted = dataclasses.replace(
            options.exploration(asked and asked[1], is_over, settings.seed), progress=progress
        )
        try:
            baseline, found = confirm_in_subprocess(workers, explore(workers, wanted), wanted)
        except KeyboardInterrupt:
            _keep_partial(progress, perf_counter() - start, test_info, str(workdir))
            raise
        baseline.runner.leave(baseline.golden.end)
        shard = wanted.shard
        left_out = describe_left_out(
            found if shard is None else own_share(found),
            is_over=is_over(),
            budget=_budget(options, settings, test_info.limit()),
            tried=progress.tried,
            max_states=options.max_states,
        )
        report = _report(
            found,
            baseline,
            perf_counter() - start,
            "" if asked else test_info.test,
            os.path.abspath(str(workdir)),
            left_out,
            require_all=bool(options.require_all),
            shard=shard,
        )
        if test_info.keep is not None:
            for state in [found.states[0]] if asked else report.examples:
                report.notes.append(
                    f"kept: {_keep_state(state, test_info.keep, baseline.runner.contents)} "
                    f"({state.id})"
                )
        if test_info.bundle is not None and report.examples:
            shutil.rmtree(test_info.bundle, ignore_errors=True)
            _hold(report.examples[0], test_info.bundle, baseline.runner.contents)
    test_info.explored.append(report)
    if asked is not None:
        controller.note(asked[0], state=asked[1])
    if left_out:
        warnings.warn(f"{CALLER}: {left_out.text}", stacklevel=4)
    return report


def _keep_partial(progress: Progress, duration: float, test_info: TestInfo, root: str) -> None:
    """Keep the report of what an interrupted exploration has found."""
    try:
        found = partial_exploration(progress)
        if found is None or not found.outcomes:
            return
        assert progress.baseline is not None
        left = (
            f"interrupted: {len(found.untried)} of {len(found.states)} crash states have no verdict"
        )
        report = _report(
            found,
            progress.baseline,
            duration,
            test_info.test,
            os.path.abspath(root),
            LeftOut(left, ()),
            require_all=True,
        )
    except Exception:  # noqa: BLE001  # An error here must not replace the interruption.
        return
    test_info.explored.append(report)


def _most(settings: Settings) -> float:
    """Return the time limit for one run that a ``timeout`` setting implies.

    The default of ``timeout`` is not the user's decision, so it limits nothing.
    """
    return math.inf if settings.timeout in (None, Settings().timeout) else settings.timeout


def _budget(options: CrashOptions, settings: Settings, limit: str) -> str:
    """Return the time limit of this exploration in words."""
    if options.budget is not None and options.budget <= (settings.budget or math.inf):
        return f"budget={options.budget:g} (seconds)"
    return limit or f"the setting budget={settings.budget or 0:g} (seconds)"


@contextlib.contextmanager
def _telling(progress: Progress) -> Iterator[None]:
    """Add a note to a time limit or Ctrl-C: the phase of the exploration, and the user's line."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, (TrialTimeout, KeyboardInterrupt)) or ends_the_test(error):
            place = user_place(error)
            error.add_note(
                f"mlchaos: {CALLER} was {progress}{f'; the code was at {place}' if place else ''}"
            )
        raise


def _baselines(
    stack: contextlib.ExitStack,
    controller: Controller,
    subject: Callable[..., Any],
    workdir: Any,
    args: tuple[Any, ...],
    options: CrashOptions,
    scratch: Path,
    most: float = math.inf,
    progress: Progress | None = None,
) -> list[Baseline]:
    """Make one golden run per worker, each in its own directory.

    No fault strikes, and the trial's clock stands still, until the stack closes. This is not a
    context manager of contextlib, because its frames would appear in the traceback of an error of a
    golden run.
    """
    prefix = prefix_of(workdir, options.storage_options)
    stack.enter_context(controller.without_faults())
    stack.enter_context(randomness.preserve_state())
    stack.enter_context(ProcessState())
    left = stack.enter_context(no_time_limit())
    remote = stack.enter_context(remote_at(prefix, options))
    home = stack.enter_context(exploration_home(scratch))
    root = (
        _root(prefix if isinstance(prefix, Path) else workdir, scratch)
        if remote is None
        else scratch
    )
    runs = RunOptions(
        root=root,
        traced=trace_steps,
        cross_device=options.cross_device,
        timeout=options.timeout * RECORDING_SLOWDOWN if options.timeout else left,
        elsewhere=remote,
    )
    virtual = isinstance(controller.clock, VirtualClock)

    def choice(job: int, folder: Path) -> RunnerChoice:
        contents = stack.enter_context(open_store(home / f"contents-{job}"))
        given = Subject(subject, (workdir if not job else type(workdir)(folder), *args))
        made = _runner_choice(
            given, dataclasses.replace(runs, root=folder), contents, options, virtual, most
        )
        return made if progress is None else dataclasses.replace(made, progress=progress)

    first = establish_baseline(choice(0, root))
    if remote is not None:  # all runs share the URL
        return [first]
    first = _for_parallel_runs(first, options)
    count = options.workers(first)
    others = [_beside(home / str(job) / root.name) for job in range(1, count)]
    more = [replicate_baseline(first, choice(job, folder)) for job, folder in enumerate(others, 1)]
    return [first, *(one for one in more if _leaves_the_same(first, one))]


def _leaves_the_same(first: Baseline, other: Baseline) -> bool:
    """Return True if a run in a different directory leaves the same files.

    Files that name their directory differ, and could not be compared with those of the first.
    """
    mine, theirs, again = first.golden.ran.files, other.golden.ran.files, first.second.files
    return all(
        theirs.get(path) == digest for path, digest in mine.items() if again.get(path) == digest
    )


def _for_parallel_runs(first: Baseline, options: CrashOptions) -> Baseline:
    """Return a baseline in fresh processes if runs at a time gain time, else the given one."""
    if first.runner.is_fresh or first.rerun_in_subprocess is None or not options.gains(first):
        return first
    try:
        fresh = first.rerun_in_subprocess()
        if first.judge.agrees(fresh.golden.ran):
            return dataclasses.replace(
                fresh, why="several runs at a time take less time (jobs='auto')"
            )
    except MlchaosError:  # for example, the subject cannot be pickled
        pass
    return first


def _runner_choice(
    subject: Subject,
    runs: RunOptions,
    contents: ContentStore,
    options: CrashOptions,
    virtual: bool,
    most: float,
) -> RunnerChoice:
    def fresh() -> SubprocessRunner:
        check_shared(runs.location)
        return SubprocessRunner(
            subject,
            dataclasses.replace(runs, virtual=virtual),
            contents,
            syscalls=options.record == "syscalls",
        )

    if options.runner is not None:
        check_shared(runs.location)
        in_world: Callable[[], Runner] = functools.partial(options.runner, subject, runs, contents)
    is_here = options.isolation != "process" and options.parallel == 1 and options.record == "auto"
    return RunnerChoice(
        in_process=functools.partial(InProcessRunner, subject, runs, contents) if is_here else None,
        in_subprocess=in_world
        if options.runner is not None
        else fresh
        if options.isolation != "in-process"
        else None,
        judge=functools.partial(
            options.judge or CrashJudge,
            rtol=options.rtol,
            atol=options.atol,
            compare=options.patterns,
        ),
        root=str(runs.location),
        timeout=options.timeout,
        most=most,
    )


def _beside(folder: Path) -> Path:
    with within(INTERNAL_OPERATION):
        folder.mkdir(parents=True)
    return folder


def asked_state(controller: Controller) -> tuple[ScheduledFault, str] | None:
    """Return the crash state that the schedule names, with its fault, or None."""
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
    """Run the subject, kill it so that it leaves the named state, and restart it.

    Args:
        controller: The trial's controller.
        subject: The function that trains and saves.
        args: Its arguments. The first is the work directory.
        scheduled: The fault that names the state.
        name: The state's id.
        scratch: The test's temporary directory.
        watch: A context manager that collects the trained parameters.

    Raises:
        BadArgument: The first argument is not a path, or the state does not exist.
        TrialTimeout: The restarted run did not end.
    """
    check_subject(subject, "mlchaos.run")
    if not args or not isinstance(args[0], (str, os.PathLike)):
        raise BadArgument(
            f"crash(state={name!r}): mlchaos.run needs the work directory as the subject's first "
            f"argument, as in run(train, tmp_path)"
        )
    started, strikes = controller.clock.now(), len(controller.journal)
    with contextlib.ExitStack() as stack:
        (baseline,) = _baselines(
            stack,
            controller,
            _Trained(subject, watch),
            args[0],
            args[1:],
            CrashOptions(isolation="in-process"),
            scratch,
        )
        (state,) = explore_to(baseline, name)
        ran = baseline.runner.resume(state.tree, 2, None)
    controller.note(scheduled, state=name)
    first = Attempt(f"the process died and left {state.what} (injected by mlchaos)", state.step)
    if ran.error is not None:
        ran.error.add_note(
            f"mlchaos: the subject's own error, in attempt 2 of mlchaos.run\n{tell([first])}"
        )
        raise ran.error
    if ran.hung is not None:
        raise TrialTimeout(f"the restarted run did not end: it was {ran.hung}", ran.hung)
    value, parameters, broken = ran.value
    attempts = (first, Attempt("returned", len(ran.trace.steps)))
    passed = controller.clock.now() - started
    record = Record(
        value, attempts, controller.journal[strikes:], passed, parameters, value, not_finite=broken
    )
    whole, trained, broken = baseline.golden.ran.value
    first = Attempt("returned", baseline.judge.steps)
    golden = Record(
        whole, (first,), (), baseline.golden.ran.duration, trained, whole, not_finite=broken
    )
    return Run(record, lambda: Run(golden))


@dataclasses.dataclass(frozen=True)
class _Trained:
    """Wrap a subject so that it also returns what ``Run`` asserts on.

    These are its trained parameters, and the parts of its models that are not finite.
    """

    subject: Callable[..., Any]
    watch: Watch

    def __call__(self, *args: object) -> tuple[Any, Any, Any]:
        with self.watch() as trained:
            value = self.subject(*args)
            return value, trained(), not_finite_of(trained)


def explore_to(baseline: Baseline, name: str) -> list[CrashState]:
    """Return the state of that name in a list.

    Torn states and states after a power loss are searched, too.
    """
    for wanted in (ExplorationOptions(), ExplorationOptions(power=True)):
        found = [state for state in states_of(baseline, wanted) if state.id == name]
        if found:
            return found
    # Raises an error that lists close names.
    return path_to(states_of(baseline, ExplorationOptions()), name)


def _keep_state(state: CrashState, folder: Path, contents: ContentStore) -> Path:
    """Write the state's directory into the folder, so that the user can look at it."""
    name = re.sub(r"[^\w.@#-]+", "_", state.id)
    target = next(
        path
        for number in itertools.count(1)
        if not (path := folder / (name if number == 1 else f"{name}-{number}")).exists()
    )
    _hold(state, target, contents)
    return target


def _hold(state: CrashState, target: Path, contents: ContentStore) -> None:
    """Make a directory as the crash left it."""
    with within(INTERNAL_OPERATION):
        target.parent.mkdir(parents=True, exist_ok=True)
        Disk(target, contents).hold({"": Folder(), **state.tree})


def _root(workdir: object, scratch: Path) -> Path:
    if not isinstance(workdir, (str, os.PathLike)) or isinstance(os.fspath(workdir), bytes):
        raise BadArgument(
            f"{CALLER}: workdir (the subject's first argument) must be a path or a URL, got "
            f"{format_value(workdir)}"
        )
    root = Path(os.path.abspath(str(workdir)))
    below = scratch in root.parents or scratch.resolve() in root.resolve().parents
    if root.exists() and not root.is_dir():
        raise BadArgument(
            f"{CALLER}: workdir must be a directory, but {format_value(str(workdir))} is a file"
        )
    if not below and (not root.exists() or any(root.iterdir())):
        raise BadArgument(
            f"{CALLER}: {format_value(str(workdir))} is not below the test's temporary directory. "
            f"The work directory is emptied "
            "before each run: pass tmp_path"
        )
    root.mkdir(parents=True, exist_ok=True)
    return root


def _report(
    found: Exploration,
    baseline: Baseline,
    duration: float,
    test: str,
    root: str,
    left_out: LeftOut | None,
    *,
    require_all: bool,
    shard: Shard | None = None,
) -> CrashReport:
    part, limit = None, left_out.text if left_out else ""
    inconclusive = left_out.why_inconclusive(require_all) if left_out else ""
    if shard is not None:
        part = part_of(found, baseline, shard, left_out, root, require_all=require_all)
        own = f"{shard.words}: {len(found.part)} of {len(found.states)} crash states, no verdict by itself"
        # Whether enough states were tried is judged when the shards are merged.
        limit, inconclusive = "; ".join([own, *([limit] if limit else [])]), ""
    completed = completed_writes(baseline.golden.changes)
    notes = [f"each run in a fresh process: {baseline.why}"] if baseline.why else []
    if baseline.golden.changed and not baseline.runner.is_fresh:
        notes.append(
            f"restored before each run, as a new process would find it: "
            f"{', '.join(baseline.golden.changed[:3])}"
        )
    if baseline.golden.kept and not baseline.runner.is_fresh:
        notes.append(
            f"kept in this process, where a later run finds it: "
            f"{', '.join(baseline.golden.kept[:3])}"
        )
    notes += baseline.golden.notes
    notes += baseline.judge.notes
    notes += found.doubts
    if found.unchecked:
        notes.append(f"{UNCHECKED}: {found.unchecked}")
    if baseline.golden.compared:
        notes.append(COMPARED)
    differs = baseline.golden.differs
    if differs:
        why = OTHERS_WROTE if baseline.golden.orders else DIFFERS
        notes.append(f"{why}: {', '.join(differs[:3])}{' ...' if len(differs) > 3 else ''}")
    return CrashReport(
        steps=baseline.judge.steps,
        writes=len(completed),
        states=found.states,
        outcomes=found.outcomes,
        duration=duration,
        notes=notes,
        rejudged=baseline.judge.again,
        test=test,
        root=root,
        untried=found.untried,
        left_out=limit,
        inconclusive=inconclusive,
        part=part,
        unseen=found.unseen,
        saves=[(change.step, change.path) for change in completed],
        traced=baseline.golden.traced,
    )
