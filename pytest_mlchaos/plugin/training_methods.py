"""Define the methods of the fixture ``mlchaos`` that run a subject in or from this process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

# Imported by name, so that a virtual clock of the test's code does not reach it.
from time import perf_counter
from typing import Any, Literal

from ..core.faults import create
from ..core.limits import current_limits
from ..core.policy import check_fault, check_host
from ..core.validation import (
    FLAG,
    MAPPING,
    PATTERNS,
    TOLERANCE,
    WHOLE,
    check_arguments,
    format_value,
    optional,
)
from ..crashes.api import asked_state, crashed_run, explore_crashes
from ..crashes.options import CrashOptions
from ..crashes.report import CrashReport
from ..errors import BadArgument
from ..pipelines.api import call as call_pipeline
from ..pipelines.verdicts import PipelineRun
from ..runs.api import supervise
from ..runs.borrowed_inputs import with_copies
from ..runs.verdicts import Run
from ..sites import torch_train
from .fixture_base import FixtureBase

__all__ = ["TrainingMethods"]

MAX_RESTARTS = 8


class TrainingMethods(FixtureBase):
    """Run a job or a pipeline, or resume a job from its crash states."""

    @check_arguments("mlchaos.run", max_restarts=WHOLE)
    def run(
        self,
        subject: Callable[..., Any],
        *args: Any,
        max_restarts: int = MAX_RESTARTS,
        isolation: str | None = None,
    ) -> Run:
        """Run ``subject(*args)``, and start it again when a fault ends it, as a scheduler would.

        A crash, and any injected error that the subject does not handle, ends the attempt. The next
        attempt finds the disk as it was left, fresh copies of the objects in ``args``, and
        different random numbers. An error of the subject's own is raised at once.

        Args:
            subject: The function or script to run.
            *args: Its arguments.
            max_restarts: The largest number of restarts.
            isolation: ``"in-process"``, or ``"process"``: each attempt, and the golden run, is a
                fresh process, and a crash is a SIGKILL. The default is the setting of that name. No
                module's state outlives a crash in a fresh process, no ``finally`` block runs, and
                processes that an attempt leaves are ended. Subject, arguments and returned value
                must be picklable (local functions with cloudpickle).

        Returns:
            A ``Run``.

        Raises:
            GaveUp: It was restarted ``max_restarts`` times. The message says why each attempt
                ended.
            CrashSwallowed: The subject went on after a crash.
            BadArgument: An object cannot be sent to a process.
            TrialTimeout: A process hangs. The message names the line.
            ChildProcessError: A process died by itself.

        Fidelity: in process, a module's globals survive a crash. In fresh processes, modules are
        imported once for all, patches of fixtures in the test's process are missing, and the test
        does not see changes of the subject's arguments. Time is real there, also the run's
        ``duration``, with any setting of ``clock``.
        """
        if isolation not in (None, "in-process", "process"):
            raise BadArgument(
                f"mlchaos.run: isolation must be 'in-process' or 'process', got "
                f"{format_value(isolation)}"
            )
        # max_restarts is an assertion too: GaveUp reports that it was missed.
        with self._running("mlchaos.run", subject, looked=max_restarts != MAX_RESTARTS) as part:
            if (asked := asked_state(self._controller)) is not None:
                return part.hand_over(
                    crashed_run(
                        self._controller,
                        subject,
                        args,
                        *asked,
                        self._scratch,
                        torch_train.trained_parameters,
                    )
                )
            isolated = (isolation or self._settings().isolation) == "process"
            if not isolated and (limits := current_limits().names):
                text = f"mlchaos.run: {limits} limits nothing here. It limits runs with isolation='process'"
                warnings.warn(text, stacklevel=3)
            check_fault(*self._controller.schedule.faults if isolated else (), isolated=True)
            args = with_copies(self._controller, args, self._scratch)
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
        jobs: int | Literal["auto"] = "auto",
        horizon: int | Literal["auto"] | None = "auto",
        budget: float | str | None = None,
        max_states: int | None = None,
        require_all: bool | None = None,
        exhaustive: bool = False,
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
        """Resume ``subject(workdir, *args)`` from every crash state of ``workdir``.

        The end of each resumed run is compared with that of the golden run, which has no crash.

        Args:
            subject: The function or script to run.
            workdir: A directory below ``tmp_path``, an empty one, or a URL. It is emptied and
                refilled.
            *args: Further arguments of the subject.
            torn_writes: If true, also try files cut where a kill can cut them unseen: inside a
                write between pages, and between the writes of one call (estimated).
            durability: ``"process"``, or ``"power"``: also lose the data and names that no
                ``fsync`` has written back, or cut the data at any byte.
            isolation: ``"in-process"``. ``"process"``: each run in a fresh process, which is sent
                what it needs (pickle, or cloudpickle). ``"auto"``: in process, unless two runs
                without a crash differ there or leave something running, or a fresh process comes to
                a different verdict on an example of each kind of state.
            jobs: The number of states that are resumed at a time, in processes, at most one for
                each processor. ``"auto"``: the setting ``jobs``, or several if runs take so long
                that this gains time.
            horizon: End a resumed run as recovered once this many steps in a row equal the golden
                run's. ``"auto"``: after an epoch and the interval between two saves, if the
                directory is the golden run's, too. Then one run for each checkpoint, the first, the
                last and a share of the others go on to their end. If one of those ends differently,
                all do. ``None``: each run goes on to its end.
            budget: The time limit for this exploration (seconds, or ``"30s"``), besides the setting
                of that name. The likely failures are tried first.
            max_states: The largest number of states to try.
            require_all: If true, an exploration that did not try all states is inconclusive. None:
                the setting of that name.
            exhaustive: If true, run each state to its end. Otherwise a state is not run if a run
                could not tell it from an earlier one, because it opens no file that differs. A
                share of them is run to check that. If one ends differently, all are run.
            cross_device: If true, a rename into ``workdir`` from outside fails, as from a temporary
                directory on a different filesystem.
            depth: 2 also crashes the runs that resume.
            timeout: The time limit for one run (seconds, or ``"2m"``). Without it, the setting
                limits the golden run, and then 30 s plus ten times its duration limit a resumed run
                (at most the setting, if you set it).
            rtol: Returned values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.
            storage_options: Options of fsspec, for a URL.
            allow_remote: If true, the URL may be on a different machine.
            compare: Patterns of the files, relative to ``workdir``, that must equal the golden
                run's. ``[]`` for none. Without it, the files that some run reads, and all files if
                the returned value is None, a text or a whole number.
            record: ``"auto"``, or ``"syscalls"``: strace (Linux) records the golden run, so that
                each state inside a call of C++ and of child processes is seen. Then each run is in
                a fresh process.

        Returns:
            A ``CrashReport``. If a budget ends it first, it says which states were not tried. If
            no state of some kind was tried, its assertions raise ``Inconclusive``.

        Raises:
            BadArgument: An argument is wrong, or the subject writes nothing there, takes no step,
                or leaves something changed or running.
            GoldenRunFailed: The subject fails without a crash.
            NonDeterministicSubject: Two runs without a crash differ.

        Imitates: SIGKILL, the kernel's OOM killer, preempted and failing nodes. With
        ``durability="power"``, a power loss.

        Fidelity: files outside of ``workdir`` do not belong to a state. Steps are those of torch's
        optimizers, or else its backward passes. In process, libraries keep their state. Writes of a
        different process are seen soon after, those of ``mmap`` at steps, and an ``fsync`` of C++
        not at all. C++ code and programs of the subject may ask for a file's size without opening
        it, which is not seen: ``exhaustive=True`` does not rely on that.

        Source: ALICE (Pillai et al., OSDI 2014), CrashMonkey (Mohan et al., OSDI 2018).
        """
        options = CrashOptions(
            torn_writes=torn_writes,
            durability=durability,
            isolation=isolation,
            jobs=jobs,
            horizon=horizon,
            budget=budget,
            max_states=max_states,
            require_all=require_all,
            exhaustive=exhaustive,
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
        if not self._may_crash():
            return self._without_crash(subject, workdir, args)
        check_fault(create("crash", at=0), via="mlchaos.explore_crashes")
        if isinstance(workdir, str) and "://" in workdir:
            check_host("mlchaos.explore_crashes", workdir)
        with self._running("mlchaos.explore_crashes", subject, each=True) as part:
            return part.hand_over(
                explore_crashes(
                    self._controller,
                    subject,
                    workdir,
                    args,
                    options,
                    self._scratch,
                    self._test_info,
                    self._settings(),
                )
            )

    def _without_crash(
        self, subject: Callable[..., Any], workdir: object, args: tuple[Any, ...]
    ) -> CrashReport:
        """Run the subject once. The report has no crash state, so its assertions raise nothing."""
        start = perf_counter()
        run = self.run(subject, workdir, *args)
        report = CrashReport(
            steps=run.steps,
            writes=0,
            states=[],
            outcomes=[],
            duration=perf_counter() - start,
            notes=["crash states are not tried with --mlchaos-off"],
        )
        self._test_info.explored.append(report)
        return report

    def pipeline(
        self,
        pipeline: Callable[..., Any],
        *args: object,
        outputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    ) -> PipelineRun:
        """Call ``pipeline(*args)`` once, under the faults of the test.

        It may return anything, also an iterator (which is read to its end), and write files below
        ``tmp_path``, and objects through fsspec (``memory://``, ``s3://``). Objects that it has
        written are restored for a golden run, and afterwards the trial's come back. At the end of
        the test, the initial objects are back.

        It is not started again: an error, also one of its own, is a result
        (``run.error``), and so is a crash. ``run.again()`` calls it once more after the fault has
        cleared.

        Args:
            pipeline: The function to call.
            *args: Its arguments.
            outputs: More places where it writes, if it reaches them by other means than Python's
                fsspec: prefixes as ``"s3://bucket/out"``, paths below ``tmp_path``, and SQLite
                databases (``"sqlite:////path/to.db"``). All objects below a prefix are read.

        Returns:
            A ``PipelineRun``, whose methods judge the returned value, the error and the files.
        """
        with self._running("mlchaos.pipeline", pipeline) as part:
            args = with_copies(self._controller, args, self._scratch)
            return part.hand_over(
                call_pipeline(
                    self._controller, pipeline, args, self._scratch, self._workdirs(), outputs
                )
            )
