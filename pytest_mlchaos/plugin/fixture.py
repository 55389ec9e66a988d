"""Define the fixture ``mlchaos``, which runs a subject and judges it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

# Imported by name, so that a virtual clock of the test's code does not reach it.
from time import perf_counter
from typing import Any, Literal, TypeVar

from ..core.settings import Settings
from ..core.validation import (
    FLAG,
    MAPPING,
    PATH,
    PATTERNS,
    TOLERANCE,
    WHOLE,
    check_arguments,
    format_value,
    optional,
    parse_duration,
)
from ..crashes.api import asked_state, crashed_run, explore_crashes
from ..crashes.options import CrashOptions
from ..crashes.ranks.api import explore_world, run_world_once
from ..crashes.ranks.runner import Launch
from ..crashes.report import CrashReport
from ..crashes.tested import TestInfo
from ..engine.user_code import take_subject
from ..errors import BadArgument
from ..federation.api import federate
from ..federation.options import Options as FederationOptions
from ..federation.verdicts import FederationRun
from ..pipelines.api import call as call_pipeline
from ..pipelines.verdicts import PipelineRun
from ..ranks.api import World
from ..ranks.torchrun import OWNER, torchrun
from ..ranks.verdicts import WorldRun
from ..runs.api import supervise
from ..runs.borrowed_inputs import with_copies
from ..runs.scripts import script
from ..runs.verdicts import Run
from ..serving.api import Service
from ..serving.app_runner import AppRunner
from ..serving.processes.command import served_subject
from ..serving.rollouts.api import roll_out
from ..serving.rollouts.verdicts import Rollout
from ..sites import torch_train
from .part import Part
from .tools import Tools

__all__ = ["Mlchaos"]

MAX_RESTARTS = 8
T = TypeVar("T")


class Mlchaos(Tools):
    """Run a subject under the faults of a test, and judge the result.

    The fixture works in the body of the test that asked for it, and each trial has a fresh one.
    Call ``run``, ``explore_crashes``, ``pipeline`` and a world's ``run`` in the test itself, not
    inside each other's subjects. A subject may use everything else, also ``serve``. There is one
    exception: the subject of ``explore_crashes`` may run a world, because no fault strikes there.
    """

    def __init__(
        self,
        scratch: Path,
        workdirs: Callable[[], Iterable[Path]] = tuple,
        settings: Callable[[], Settings] = Settings,
        test_info: TestInfo | None = None,
        may_crash: Callable[[], bool] = lambda: True,
    ) -> None:
        self._scratch = scratch
        self._test_info = test_info or TestInfo()
        self._folder = self._test_info.folder
        self._workdirs = workdirs
        self._settings = settings
        self._may_crash = may_crash

    @contextlib.contextmanager
    def _running(self, what: str, subject: Callable[..., Any], **how: Any) -> Iterator[Part]:
        """Run a subject inside. Refuse a call from inside a different subject of this test."""
        take_subject(subject)
        with self._controller.subject_of(what):
            yield Part(self._controller, what, **how)

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

    @check_arguments("mlchaos.serve", lifespan=FLAG)
    def serve(
        self,
        app: Callable[..., Any] | None = None,
        *,
        command: Sequence[Any] | None = None,
        url: str | None = None,
        ready: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        lifespan: bool = True,
        timeout: float | str = 10.0,
    ) -> Service:
        """Start ``app`` and serve it in process: ``service.drive(requests)`` sends it requests.

        One event loop serves the app from start to end. It is shut down when the test's body ends,
        at ``service.close()``, or at the end of ``with mlchaos.serve(app) as service``. Faults
        strike in start-up and shut-down, too. A crash inside ends the process, and the test with
        ``CrashNotRestarted``. To restart it, put ``serve`` and ``drive`` into a function and call
        that by ``run``.

        With ``command``, the server is a real process on this machine, and ``drive`` sends it the
        same requests over sockets. All its processes are ended with the test's body.

        Args:
            app: An ASGI app, called with ``(scope, receive, send)``, or a WSGI app, called with
                ``(environ, start_response)`` (both need httpx). Or a callable of one request: a
                function, a coroutine function or a generator, plain or async. Or an object with
                ``predict(request)`` or ``handle(data, context)``.
            command: Instead of ``app``, the command that starts a server (needs httpx), for example
                ``["uvicorn", "app:app", "--port", "{port}"]``. A free port replaces ``{port}``.
            url: The URL of that server, ``"http://127.0.0.1:{port}"``.
            ready: A path of it that answers below 400 when it is ready. Without it, the open port
                shows that.
            env: Variables for its environment, beside those of the test.
            cwd: Its working directory. Without it, that of the test.
            lifespan: If true, the app starts up and shuts down by the lifespan protocol, if it
                speaks it.
            timeout: The time limit for start-up and for shut-down: seconds or ``"30s"``, on the
                trial's clock.

        Raises:
            ServiceFailed: The app does not start, or the server does not end.

        Fidelity: faults strike inside a server process if it is Python and runs ``sitecustomize``.
        Its workers are part of the trial, too. A target is reached in modules that are imported, not
        in the script that runs as ``__main__``. A strike there may have hit any request in flight.
        Time is real.
        """
        seconds = parse_duration(timeout, "timeout")
        if not seconds:
            raise BadArgument(
                f"mlchaos.serve: timeout must be positive, got {format_value(timeout)}"
            )
        controller = self._controller
        subject = served_subject(app, command, url=url, ready=ready, env=env, cwd=cwd)
        take_subject(subject)
        controller.serves = True
        controller.starts_servers |= command is not None
        workdirs = self._workdirs()
        part = Part(controller, "service.drive")
        served = AppRunner(
            controller,
            subject,
            lifespan=lifespan,
            timeout=seconds,
            scratch=self._scratch,
            workdirs=workdirs,
        )
        # If no fault struck at all, NeverStruck explains more.
        strict = lambda: not controller.drawn and bool(controller.journal)  # noqa: E731
        return Service(served, strict, controller.judged, part.hand_over)

    def rollout(
        self,
        controller: Any,
        traffic: Any,
        *,
        versions: Any = None,
        strategy: str = "canary",
        steps: Any = None,
        labels: Any = None,
        metrics: Any = None,
        latency: float | str | None = None,
        analyse: Callable[..., Any] | None = None,
        worse: bool | None = None,
        **more: Any,
    ) -> Rollout:
        """Roll a new version out under traffic and the faults of the test.

        The plugin plays the deployment system: it calls ``deploy(version)``, and for each step
        ``split(weights)``, sends requests, and hands the metrics to the analysis. After a pass it
        goes on, and at the end calls ``promote()``. After a fail it calls ``rollback()``, and after
        too many inconclusive ones it stops there. Methods may be plain or async.

        Args:
            controller: An object with ``deploy(version)``, ``split(weights)``, ``promote()`` and
                ``rollback()``. If it has ``handle(request)``, ``predict(request)`` or the like, it
                answers by that. If it has ``analyse(metrics)``, this decides: by the verdict that
                it returns, or by its own calls of the four methods. Also: a dict of models by
                version, a function of ``(version, request)``, a function of ``version`` that loads
                a model, the dotted name of such a function, or a function of a platform with these
                methods and ``metrics()``.
            traffic: A list of requests, which is sent again and again, or a function of the
                request's number.
            versions: The models by version, the old one first, or the names of both.
            strategy: ``"canary"``, ``"blue_green"``, ``"rolling"``, ``"ab"`` or ``"shadow"``.
            steps: The shares of the new version, for example ``[0.1, 0.5]``, or their number. While
                a share is 0, requests are mirrored.
            labels: The right answers: a list, a dict or a function of the request. ``"golden"``:
                those of the old version. Then answers are compared, too.
            metrics: What decides if a version is worse: ``"errors"``, ``"quality"`` (with labels)
                and ``"latency"``. Without it, all that can be measured.
            latency: The limit above which an answer is slow: seconds, or ``"200ms"``.
            analyse: A function of the metrics that decides, instead of the controller.
            worse: True or False if you know that the new version is worse, or is not.
            **more: ``features`` (functions of the request, by version), ``config`` (a dict that a
                rollback must restore), ``user`` (a function of the request, or a field), ``score``
                (a function of answer and label, from 0 to 1), ``is_error``, ``requests`` (at most,
                20,000), ``rate`` (requests a second, 10), ``per_check`` (requests for an analysis,
                100), ``checks`` (analyses in a step of the controller's own, 10), ``patience``
                (further ones while they are inconclusive, 20), ``seed``, ``margin`` (the difference
                that makes a version worse, 0.05), ``false_rollbacks`` and ``false_promotions`` (the
                error rates of the default test, 0.05).

        Returns:
            A ``Rollout``.

        Fidelity: one request at a time. A user keeps the version while its share does not change.
        """
        with self._running("mlchaos.rollout", controller) as part:
            trace = roll_out(
                self._controller,
                controller,
                traffic,
                versions=versions,
                labels=labels,
                analyse=analyse,
                worse=worse,
                options={
                    "strategy": strategy,
                    "steps": steps,
                    "metrics": metrics,
                    "latency": latency,
                },
                more=more,
            )
            trial = self._controller
            strict = lambda: not trial.drawn and bool(trial.journal)  # noqa: E731
            return part.hand_over(Rollout(trace, strict=strict, judged=trial.judged))

    def federation(
        self,
        client: Any,
        aggregate: Any,
        *,
        clients: int = 10,
        rounds: int = 5,
        parameters: Any = None,
        data: Any = None,
        evaluate: Callable[[Any], Any] | None = None,
        evaluate_client: Callable[[Any, int], Any] | None = None,
        per_round: int | None = None,
        updates: str = "parameters",
        restore: Callable[[], Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> FederationRun:
        """Train a global model with the updates of many clients, under the faults of the test.

        The plugin plays the network and the server's loop, in this process. In each round, each
        client trains on a copy of the global parameters, and the updates are aggregated. A client
        that fails sends no update. A server that fails restarts, and repeats the round. If it
        raises an error of its own after a fault, the federation ends with that error.

        Args:
            client: A function of ``(parameters, config)`` that trains and returns an update, or
                its dotted name. ``config`` has ``client``, ``round`` and ``clients``. Or a
                ClientApp of Flower, with a strategy or a ServerApp as ``aggregate``.
            aggregate: A function of ``(updates)``, ``(updates, parameters)`` or ``(updates,
                parameters, config)`` that returns the new parameters, its dotted name, or an object
                with such a method ``aggregate``.
            clients: The number of clients.
            rounds: The number of rounds.
            parameters: The global parameters at the start: numbers, arrays or tensors, nested in
                dicts and lists. An update is anything that holds parameters of this form.
            data: A dataset for each client, which ``client`` receives as its third argument. Or
                the function by which clients load their data, ``"pkg.mod:function"``. Faults can
                poison it.
            evaluate: A function of the parameters that returns a metric, or a dict of metrics.
            evaluate_client: A function of the parameters and the number of a client that returns a
                metric of that client.
            per_round: The number of clients in a round, drawn by its number. Without it, all.
            updates: ``"parameters"``, or ``"differences"`` if updates hold differences from the
                global parameters.
            restore: A function that returns the parameters from which a new server starts, or None
                to begin afresh. Without it, it has those of the last complete round.
            config: More entries of ``config``. For a ClientApp, its ``run_config``.

        Returns:
            A ``FederationRun``.

        Fidelity: clients train one after the other in one process, so their modules are shared.
        Each begins with its own random numbers, which depend on the round and its number alone.
        """
        options = FederationOptions.checked(
            clients,
            rounds,
            per_round,
            updates,
            config,
            evaluate=evaluate,
            evaluate_client=evaluate_client,
            restore=restore,
        )
        subject = client if callable(client) else aggregate
        with self._running("mlchaos.federation", subject) as part:
            given = (self._controller, client, aggregate, self._scratch, self._workdirs())
            run = federate(*given, parameters=parameters, data=data, options=options)
            return part.hand_over(run)

    def world(
        self,
        ranks: int = 2,
        backend: str = "gloo",
        restarts: int = 0,
        timeout: float | str = 30,
        *,
        grace: float | str = 5,
        elastic: bool = False,
        min_ranks: int | None = None,
        nodes: int | None = None,
    ) -> World:
        """Return ranks that are real processes, as under torchrun:
        ``mlchaos.world(ranks=2).run(train, tmp_path)``.

        The subject finds ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT`` and torchrun's
        other variables in its environment, and calls ``init_process_group`` itself. The faults of
        the test work in every rank, and each rank counts its own visits. Time is real in ranks. No
        process is left at the end. Ranks import the subject's module afresh, without the patches of
        fixtures in the test's process.

        Args:
            ranks: The number of ranks.
            backend: The backend for an ``init_process_group`` that names none.
            restarts: If a rank fails, the others get SIGTERM and all ranks restart, at most
                ``restarts`` times.
            timeout: The time limit for all ranks, in seconds.
            grace: The time limit for the remaining ranks after one has failed, in seconds.
            elastic: If true, torch's own elastic agents start the ranks, stop them and start them
                again, as under torchrun. ``node_loss`` and ``rank_rejoin`` need it. ``timeout``
                then limits each attempt, and each rendezvous.
            min_ranks: The smallest world in which an elastic job goes on. Without it, ``ranks``.
            nodes: The number of nodes of an elastic world, each with an agent. Without it, each
                rank is on a node of its own.
        """
        return World(
            lambda: self._controller,
            lambda outer: Part(self._controller, "world.run", outer=outer).hand_over,
            self._scratch,
            self._workdirs,
            ranks=ranks,
            backend=backend,
            restarts=restarts,
            timeout=timeout,
            grace=grace,
            elastic=elastic,
            min_ranks=min_ranks,
            nodes=nodes,
            explore=self._explore_world,
        )

    def _explore_world(
        self,
        launch: Launch,
        ranks: int,
        subject: Callable[..., Any],
        workdir: Any,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> CrashReport:
        if not self._may_crash():
            report = run_world_once(launch, ranks, subject, workdir, args)
            self._test_info.explored.append(report)
            return report
        with self._running("world.explore_crashes", subject, each=True) as part:
            return part.hand_over(
                explore_world(
                    self._controller,
                    launch,
                    ranks,
                    subject,
                    workdir,
                    args,
                    options,
                    self._scratch,
                    self._test_info,
                    self._settings(),
                )
            )

    @check_arguments("mlchaos.torchrun", path=PATH)
    def torchrun(
        self,
        path: str | os.PathLike[str],
        *args: Any,
        nproc: int = 1,
        nnodes: int = 1,
        min_nodes: int | None = None,
        restarts: int = 0,
        backend: str = "gloo",
        timeout: float | str = 30,
        grace: float | str = 5,
    ) -> WorldRun:
        """Run a script in ranks, as ``torchrun --nproc-per-node=2 train.py --out DIR`` does.

        Torch's own elastic agents start it, one for each node (``mlchaos.world(elastic=True)``).

        Args:
            path: The script. A relative path is looked up in the current directory, then in that of
                the test.
            *args: Its arguments.
            nproc: The number of ranks on each node.
            nnodes: The number of nodes. All are processes of this machine.
            min_nodes: The smallest number of nodes with which the job goes on.
            restarts: The number of restarts after a failure, as ``--max-restarts``.
            backend: The backend for an ``init_process_group`` that names none.
            timeout: The time limit for each attempt, in seconds.
            grace: The time limit for the remaining ranks after one has failed, in seconds.

        Fidelity: each rank is forked from a process that has imported torch.
        """
        world = functools.partial(
            World,
            lambda: self._controller,
            lambda outer: Part(self._controller, "mlchaos.torchrun", outer=outer).hand_over,
            self._scratch,
            self._workdirs,
            restarts=restarts,
            backend=backend,
            timeout=timeout,
            grace=grace,
        )
        subject = script(path, args, self._test_info.folder, OWNER)
        return torchrun(world, subject, nproc=nproc, nnodes=nnodes, min_nodes=min_nodes)
