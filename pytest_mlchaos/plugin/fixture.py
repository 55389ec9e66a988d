"""The fixture ``mlchaos``: run a subject, and judge it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ..core.clock import Clock
from ..core.journal import Journal
from ..core.results import HandedResult, Result
from ..core.schedule import Schedule
from ..core.settings import Settings
from ..core.sites import Key
from ..core.validation import (
    CALLABLE,
    FLAG,
    ITERABLE,
    MAPPING,
    NAME,
    PATH,
    PATTERNS,
    TOLERANCE,
    WHOLE,
    check_arguments,
    format_value,
    optional,
    parse_duration,
)
from ..crashes.api import CrashOptions, TestInfo, asked_state, crashed_run, explore_crashes
from ..crashes.report import CrashReport
from ..engine.controller import Controller, current
from ..engine.user_code import take_subject
from ..errors import BadArgument, MlchaosError
from ..pipelines.api import call as call_pipeline
from ..pipelines.verdicts import PipelineRun
from ..ranks.api import World
from ..runs.api import supervise
from ..runs.scripts import script
from ..runs.verdicts import Run
from ..serving.api import Service
from ..serving.app_runner import AppRunner
from ..sites import calls, dataloader, torch_train, visits
from ..sites.storage import clients

__all__ = ["Mlchaos"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

MAX_RESTARTS = 8
T = TypeVar("T")
R = TypeVar("R", bound=Result)


class _Part:
    """A part of the test's body in which a method of the fixture runs the subject: what strikes meanwhile strikes the subject.

    ``outer``: the method whose subject makes the call, in which no fault strikes. That method's result is judged, not this one's.
    """

    def __init__(self, controller: Controller, what: str, *, each: bool = False, looked: bool = False, outer: str = "") -> None:
        self._controller = controller
        self._outer = outer
        self._strikes, self._visits = len(controller.journal), self._visited()
        self._what, self._each, self._looked = what, each, looked

    def hand_over(self, result: R) -> R:
        """Give a result to the test, which has to judge it."""
        controller = self._controller
        result._handed = HandedResult(
            self._what,
            self._each,
            quiet=controller.idle,
            struck=len(controller.journal) > self._strikes,
            looked=self._looked,
            passed=any(count > self._visits[key] for key, count in self._visited().items()),
        )
        if self._outer:
            result._handed.quiet = f"no fault strikes inside the subject of {self._outer}"
            result._handed.cure = "Call assert_finished() or assert_in_sync() there, or return what the ranks returned"
        else:
            controller.results.append(result._handed)
        return result

    def _visited(self) -> dict[Key, int]:
        """Return how often the sites of the declared faults were passed, in all processes."""
        controller = self._controller
        processes = [controller.passed(), *(tally.passed for tally in controller.elsewhere.values())]
        return {scheduled.fault.key: sum(passed.get(scheduled.fault.key, 0) for passed in processes) for scheduled in controller.scheduled}


class Mlchaos:
    """Runs a subject under the test's faults, and what code needs that no hook reaches.

    It works in the body of the test that asked for it; each trial has a fresh one. ``run``, ``explore_crashes``, ``pipeline`` and a world's
    ``run`` are called in the test itself, not inside each other's subjects; a subject may use everything else, ``serve`` too. There is one
    exception: the subject of ``explore_crashes`` may run a world, because no fault strikes there.
    """

    def __init__(
        self,
        scratch: Path,
        workdirs: Callable[[], Iterable[Path]] = tuple,
        settings: Callable[[], Settings] = Settings,
        test_info: TestInfo | None = None,
        refused: Callable[[], str] = str,
    ) -> None:
        self._scratch = scratch
        self._test_info = test_info or TestInfo()
        self._workdirs = workdirs
        self._settings = settings
        self._refused = refused

    @property
    def _controller(self) -> Controller:
        controller = current()
        if controller is None:
            raise MlchaosError("the fixture mlchaos works while the test's body runs; in a fixture or after the test there is no trial")
        return controller

    @contextlib.contextmanager
    def _running(self, what: str, subject: Callable[..., Any], **how: Any) -> Iterator[_Part]:
        """Run a subject inside, in no other subject of this test."""
        take_subject(subject)
        with self._controller.subject_of(what):
            yield _Part(self._controller, what, **how)

    @check_arguments("mlchaos.run", max_restarts=WHOLE)
    def run(self, subject: Callable[..., Any], *args: Any, max_restarts: int = MAX_RESTARTS, isolation: str | None = None) -> Run:
        """Run ``subject(*args)``; start it again when a fault ends it, as a scheduler would.

        A crash, and any injected error that the subject does not handle, ends the attempt; the next one finds the disk as it was
        left, fresh copies of the objects in ``args`` and other random numbers. An error of the subject's own is
        raised at once. Returns a ``Run``. Raises ``GaveUp`` after ``max_restarts`` restarts, saying why each
        attempt ended, and ``CrashSwallowed`` when the subject goes on after a crash.

        ``isolation``: ``"in-process"``, or ``"process"``: each attempt, and the golden run, is a fresh process, and a crash is a SIGKILL
        (the default is the setting of that name). No module's state outlives a crash there, and no ``finally`` block runs; processes that
        an attempt leaves behind are ended. Subject and arguments are sent there, and its value home, so they must be picklable (local
        functions with cloudpickle): ``BadArgument`` says what is not. A process that hangs is a ``TrialTimeout`` with the place;
        one that dies by itself raises ``ChildProcessError``.

        Fidelity: in process, a module's globals survive a crash. In fresh processes, modules are imported once for all, what a fixture
        has patched in the test's process is not patched there, and what the subject changes in its arguments the test does not see.
        Time is real there, the run's ``duration`` too, whatever the setting ``clock``.
        """
        if isolation not in (None, "in-process", "process"):
            raise BadArgument(f"mlchaos.run: expected isolation to be 'in-process' or 'process' but got {format_value(isolation)}")
        # A bound on the restarts is a judgement: GaveUp says that it was missed.
        with self._running("mlchaos.run", subject, looked=max_restarts != MAX_RESTARTS) as part:
            if (asked := asked_state(self._controller)) is not None:
                return part.hand_over(crashed_run(self._controller, subject, args, *asked, self._scratch, torch_train.trained_parameters))
            isolated = (isolation or self._settings().isolation) == "process"
            given = (self._controller, subject, args, self._scratch, self._workdirs())
            return part.hand_over(supervise(*given, max_restarts=max_restarts, isolated=isolated))

    @check_arguments(
        "mlchaos.explore_crashes",
        torn_writes=FLAG,
        cross_device=FLAG,
        allow_remote=FLAG,
        rtol=TOLERANCE,
        atol=TOLERANCE,
        storage_options=optional(MAPPING),
        compare=optional(PATTERNS),
    )
    def explore_crashes(
        self,
        subject: Callable[..., Any],
        workdir: Any,
        *args: Any,
        torn_writes: bool = True,
        durability: str = "process",
        isolation: str = "auto",
        jobs: int = 1,
        horizon: int | None = None,
        cross_device: bool = False,
        depth: int = 1,
        timeout: float | str | None = None,
        rtol: float = 0.0,
        atol: float = 0.0,
        storage_options: Mapping[str, Any] | None = None,
        allow_remote: bool = False,
        compare: str | Sequence[str] | None = None,
        record: str = "auto",
    ) -> CrashReport:
        """Resume ``subject(workdir, *args)`` from every state that a crash could leave ``workdir`` in; compare its end with that of the
        golden run, without a crash. ``workdir``: a directory below ``tmp_path``, an empty one, or a URL; it is emptied and refilled.

        - ``torn_writes``: also files cut where a kill can cut them without being seen: inside a write between pages, and between the
          writes of one call (estimated).
        - ``durability``: with ``"power"``, also without the data and names that no ``fsync`` has written back, or cut at any byte of them.
        - ``isolation``: ``"in-process"``; ``"process"``: each run in a fresh one, which is sent what it needs (pickle, or cloudpickle);
          ``"auto"``: in process, unless two runs without a crash differ there or leave something running, or a fresh process comes to
          another verdict on an example of each kind of state.
        - ``record``: ``"syscalls"`` has strace (Linux) tell of the golden run's system calls, so that each state inside a call of C++ and
          of child processes is seen; then each run is in a fresh process.
        - ``jobs``: states that are resumed at a time, in processes, at most one for each processor.
        - ``depth``: 2 crashes the runs that resume, too.
        - ``horizon``: end a resumed run as recovered once so many steps in a row were the golden run's.
        - ``cross_device``: a rename into ``workdir`` from outside fails, as from a temporary directory on another filesystem.
        - ``timeout``: of one run (seconds, ``"2m"``). Without it: the setting for the golden run, then 30 s and ten times as long as that
          (at most the setting, if you set it).
        - ``compare``: patterns of the files, relative to ``workdir``, that must be as in the golden run; ``[]`` for none. Without it: those
          that some run reads, and all where the returned value is None, a text or a whole number.
        - ``rtol``, ``atol``: returned values may differ by ``atol + rtol * abs(expected)``.
        - ``storage_options``: of fsspec's, for a URL. ``allow_remote``: it may be on another machine.

        Returns a ``CrashReport``; when the setting ``budget`` runs out first, it says which states were not tried.
        Raises ``BadArgument`` for wrong arguments, or a subject that writes nothing there, takes no step, or leaves something
        changed or running; ``GoldenRunFailed``; ``NonDeterministicSubject`` if two runs differ.

        Imitates: SIGKILL, the kernel's OOM killer, preempted and failing nodes; ``durability="power"``, a power loss.

        Fidelity: files outside of ``workdir`` are no part of a state. Steps are those of torch's optimizers, else its backward passes.
        In process, libraries keep their state. What another process writes is seen soon after, what ``mmap`` writes at steps, an
        ``fsync`` of C++ not at all. Source: ALICE (Pillai et al., OSDI 2014), CrashMonkey (Mohan et al., OSDI 2018).
        """
        options = CrashOptions(
            torn_writes=torn_writes,
            durability=durability,
            isolation=isolation,
            jobs=jobs,
            horizon=horizon,
            cross_device=cross_device,
            depth=depth,
            timeout=timeout,
            rtol=rtol,
            atol=atol,
            storage_options=storage_options,
            allow_remote=allow_remote,
            compare=compare,
            record=record,
        )
        if reason := self._refused():
            pytest.skip(f"mlchaos.explore_crashes: no crash state was tried: {reason}")
        with self._running("mlchaos.explore_crashes", subject, each=True) as part:
            return part.hand_over(
                explore_crashes(self._controller, subject, workdir, args, options, self._scratch, self._test_info, self._settings())
            )

    def pipeline(self, pipeline: Callable[..., Any], *args: Any) -> PipelineRun:
        """Call ``pipeline(*args)`` once, under the test's faults; what it returns, raises and writes is judged by the run's methods.

        It may return anything, an iterator too (it is read to its end), and write files below ``tmp_path``. It is not started
        again: an error, also one of its own, is an outcome (``run.error``), and so is a crash. ``run.again()`` calls it once more after the
        fault has cleared. Returns a ``PipelineRun``.
        """
        with self._running("mlchaos.pipeline", pipeline) as part:
            return part.hand_over(call_pipeline(self._controller, pipeline, args, self._scratch, self._workdirs()))

    @check_arguments("mlchaos.serve", app=CALLABLE, lifespan=FLAG)
    def serve(self, app: Callable[..., Any], *, lifespan: bool = True, timeout: float | str = 10.0) -> Service:
        """Start ``app`` and serve it in process: ``service.drive(requests)`` sends it requests.

        ``app``: an ASGI app (it takes ``(scope, receive, send)``; needs httpx), or a callable of one request, plain or async. An ASGI app
        starts up and shuts down by the lifespan protocol if it speaks it (``lifespan=False``: not at all), each within ``timeout``
        (seconds or ``"30s"``, on the trial's clock). One event loop serves it from start to end. The shut-down comes when the test's body
        ends, however it ends, or with ``service.close()``, or at the end of ``with mlchaos.serve(app) as service``. Faults strike in
        start-up and shut-down, too. Raises ``ServiceFailed`` when the app does not start. A crash inside ends the process, and the test
        with ``CrashNotRestarted``: put ``serve`` and ``drive`` into a function and run it under ``run`` to have it started again.
        """
        seconds = parse_duration(timeout, "timeout")
        if not seconds:
            raise BadArgument(f"mlchaos.serve: expected timeout to be longer than nothing but got {format_value(timeout)}")
        controller = self._controller
        take_subject(app)
        workdirs = self._workdirs()
        part = _Part(controller, "service.drive")
        served = AppRunner(controller, app, lifespan=lifespan, timeout=seconds, scratch=self._scratch, workdirs=workdirs)
        strict = lambda: not controller.drawn and bool(controller.journal)  # noqa: E731  # without any strike, NeverStruck says more
        return Service(served, strict, controller.judged, part.hand_over)

    def world(
        self, ranks: int = 2, backend: str = "gloo", restarts: int = 0, timeout: float | str = 30, *, grace: float | str = 5
    ) -> World:
        """Ranks that are real processes, as torchrun starts them: ``mlchaos.world(ranks=2).run(train, tmp_path)``.

        The subject finds ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT`` and torchrun's other variables in its environment,
        and calls ``init_process_group`` itself; ``backend`` is what that gets where it names none. The test's faults work in every rank,
        and each rank counts its own visits. Ranks live on the real clock: they are given ``timeout`` seconds in all, and ``grace`` seconds
        once one of them has failed. With ``restarts``, all are started again when one fails (the others get SIGTERM), so often at most.
        No process is left at the end, whatever happens. Ranks import the subject's module afresh: what a fixture has patched in
        the test's process is not patched there.
        """
        return World(
            lambda: self._controller,
            lambda outer: _Part(self._controller, "world.run", outer=outer).hand_over,
            self._scratch,
            self._workdirs,
            ranks=ranks,
            backend=backend,
            restarts=restarts,
            timeout=timeout,
            grace=grace,
        )

    @check_arguments("mlchaos.script", path=PATH)
    def script(self, path: str | os.PathLike[str], *args: Any) -> Callable[..., None]:
        """A script as a subject: ``mlchaos.run(mlchaos.script("train.py", "--out", tmp_path))``, and for all else that takes one.

        It runs as the main module, as ``python train.py --out ...`` would run it: ``sys.argv`` is ``args`` as text, its folder is first on
        ``sys.path``, and an exit code other than 0 is a ``SystemExit``. A relative ``path`` is looked for in the current directory, then in
        that of the test. What it is called with comes behind ``args``, unless one of them names it: a work directory need not be given
        twice. It returns nothing, so what it has trained and written is judged. Raises ``BadArgument`` where there is no such file.

        Fidelity: a function call in a process that lives on, unless ``isolation="process"``; modules that it imports are imported once.
        """
        return script(path, args, self._test_info.folder)

    @check_arguments("mlchaos.visit", site=NAME)
    def visit(self, site: str, payload: T = None, **attributes: object) -> T:  # type: ignore[assignment]  # None is a payload too
        """Pass a site of your own; gives back the payload, the same object unless a fault strikes there."""
        return visits.visit(site, payload, **attributes)

    @check_arguments("mlchaos.batches", iterable=ITERABLE)
    def batches(self, iterable: Iterable[T]) -> dataloader.Batches[T]:
        """The same items, each passing ``data.batch``: for loaders that are no torch DataLoader."""
        return dataloader.Batches(iterable)

    @check_arguments("mlchaos.call", function=CALLABLE, name=optional(NAME))
    def call(self, function: Callable[..., T], name: str | None = None) -> Callable[..., T]:
        """``function`` as a target of call faults, under ``name`` or its own ``"module:qualname"``: for what no import reaches."""
        wrapped: Callable[..., T] = calls.wrap_function(function, name)
        return wrapped

    def filesystem(self, fs: T) -> T:
        """``fs`` with its ``open``, ``cat``, ``put`` and their like passing the ``storage`` sites: for clients that no hook reaches.

        Those of fsspec are reached anyway, and given back as they are. The first argument of a method is the path (of ``put``, the second).
        """
        return clients.watch_filesystem(fs)

    @property
    def journal(self) -> Journal:
        """The faults that struck so far in this trial."""
        return self._controller.journal

    @property
    def schedule(self) -> Schedule:
        """The schedule of this trial."""
        return self._controller.schedule

    @property
    def clock(self) -> Clock:
        """The clock that injected delays run on."""
        return self._controller.clock
