"""Run a served app from start to end: its kind, its loads, and its golden run."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..engine import randomness
from ..engine.attribution import in_no_scope
from ..engine.controller import Controller
from ..engine.patching import Patches
from ..engine.process_state import ProcessState
from ..engine.subjects import subject_runs
from ..engine.thread_pools import carry_scopes
from ..errors import BadArgument, GoldenRunFailed, MlchaosError, ServiceFailed, SimulatedCrash
from ..runs.supervisor import refuse_marks, snapshot_value
from ..runs.user_state import UserState
from ..runs.workdirs import WorkDirs
from .asgi import AsgiTarget
from .callables import BatchHandler, CoroutineTarget, FunctionTarget, StreamRequest
from .golden_load import GoldenLoad
from .holdings import Watch
from .http_requests import HOST, Requests
from .kinds import kind_of
from .load_generators import CURE, AsyncDriver, Driver, linger_seconds
from .processes.command import ServerCommand
from .processes.driver import ServerDriver
from .requests import LoadPlan, PreparedRequest
from .thread_driver import ThreadDriver
from .wsgi import WsgiTarget

__all__ = ["AppRunner"]


class AppRunner:
    """Run an app from now until it is stopped. As a context manager, it ends when the trial's body
    ends.
    """

    def __init__(
        self,
        controller: Controller,
        app: Any,
        *,
        lifespan: bool,
        timeout: float,
        scratch: Path,
        workdirs: Iterable[Path],
    ) -> None:
        self._controller = controller
        refuse_marks(app, "mlchaos.serve")
        self._kind = kind_of(app)
        self._app = app
        if self._kind.protocol in ("asgi", "coroutine"):
            _refuse_running_loop()
        self._running = self._open = False
        self._plans: list[LoadPlan] = []
        self._golden: list[list[GoldenLoad]] = []
        with controller.without_faults():  # a call by the tool itself does not count as a visit
            self._subject = _Subject(None if self._kind.takes_http else app, self._kind.adapt)
            self._random, self._process_state = randomness.capture_state(), ProcessState()
            self._disk, self._memory = WorkDirs(workdirs, scratch), UserState([app])
            self._scratch = scratch
            self._context, self._left = contextvars.copy_context(), self._memory.contents()
            url = app.url if isinstance(app, ServerCommand) else HOST
            self._requests = (
                Requests(url, websockets=self._kind.protocol == "asgi")
                if self._kind.takes_http
                else None
            )
        self._driver = self._made(app, lifespan, timeout)
        patches = controller.resources.enter_context(Patches())
        carry_scopes(patches)
        self._between = controller.resources.enter_context(in_no_scope())
        controller.resources.push(self)
        controller.forget.append(self._forget)
        controller.resources.enter_context(self._memory.following_imports())
        self._open = True
        if not controller.supervised:  # a run has begun already, and serves inside
            controller.resources.enter_context(subject_runs(controller, self._disk.roots))()
        with controller.attempt(goes_on=True), self._at_work():
            self._driver.start()
        self._running = True

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Separate the app's changes in memory from the test's.

        A change inside this context is the app's. A change since the last one is the test's.
        """
        with self._controller.without_faults():
            self._memory.adopt(self._left)
        try:
            yield
        finally:
            with self._controller.without_faults():
                self._left = self._memory.contents()

    def _made(self, app: Any, lifespan: bool, timeout: float) -> Driver:
        controller, now = self._controller, self._controller.clock.now
        subject, protocol = self._subject, self._kind.protocol
        if protocol == "process":
            return ServerDriver(controller, app, timeout=timeout, scratch=self._scratch)
        if protocol == "wsgi":
            return ThreadDriver(controller, WsgiTarget(app, now, controller.clock.sleep))
        if protocol == "function":
            target = FunctionTarget(subject, snapshot_value, now, subject.initialize)
            return ThreadDriver(controller, target)
        if protocol == "coroutine":
            return AsyncDriver(controller, CoroutineTarget(subject, snapshot_value, now))
        return AsyncDriver(
            controller, AsgiTarget(app, controller.clock, lifespan=lifespan, timeout=timeout)
        )

    def drive(self, requests: Sequence[Any], **how: Any) -> tuple[GoldenLoad, int]:
        """Return what one more load shows, and its index."""
        if not self._running:
            over = "its golden run shut the app down" if self._golden else "it was shut down"
            raise BadArgument(
                f"this service is over: {over}. Call drive() before that, or serve the app again"
            )
        first = sum(len(plan.requests) for plan in self._plans)
        prepared = _PreparedInTurn(requests, self._prepared, keep=not self._kind.takes_http)
        if how.get("until") is None:
            prepared.all()
        given = how.pop("companions", ())
        companions = [functools.partial(self._prepared_anew, one) for one in given]
        plan = LoadPlan(prepared, first, companions=companions, **how)
        try:
            start = self._controller.clock.now()
            with self._controller.attempt(goes_on=True), self._at_work():
                played = self._play(plan)
        except BaseException as error:
            if self._controller.crash is not None:
                self._die()
            if isinstance(error, SimulatedCrash):
                error.cure = CURE  # it may come from a different thread, as an interruption
            raise
        follows = any(reply.left is not None for reply in played.replies)
        given = prepared.given[: len(played.replies)]
        self._plans.append(dataclasses.replace(plan, requests=given, until=None, follows=follows))
        between = [(begun - start, ended - start) for begun, ended in self._between]
        return dataclasses.replace(played, between=between), len(self._plans) - 1

    def _play(self, plan: LoadPlan) -> GoldenLoad:
        """Drive the app, and keep what this shows."""
        controller = self._controller
        visits, start = controller.passed(), controller.clock.now()
        calls = {key: len(times.made) for key, times in controller.call_times.items()}
        watch = self._watch() if controller.judges_leaks else None
        replies = self._driver.drive(plan)
        return GoldenLoad(
            [reply for reply in replies if reply.number >= 0],
            {key: count - visits.get(key, 0) for key, count in controller.passed().items()},
            {key: controller.call_times[key].since(made, start) for key, made in calls.items()},
            linger_seconds(controller, plan),
            holdings=None if watch is None else watch.end(),
            companions=[reply for reply in replies if reply.number < 0],
        )

    def _watch(self) -> Watch | None:
        """Watch what the app holds during the next load, if it runs in this process."""
        if self._kind.protocol == "process":
            return None
        app = self._app if self._kind.takes_http else self._subject.function
        driver = self._driver
        watch = Watch(app, driver.loop if isinstance(driver, AsyncDriver) else None)
        if isinstance(driver, (AsyncDriver, ThreadDriver)):
            driver.watch = watch
        return watch

    def _prepared_anew(self, given: object) -> PreparedRequest:
        """Prepare a request that is sent several times."""
        return self._prepared(given if self._kind.takes_http else snapshot_value(given))

    def _prepared(self, given: object) -> PreparedRequest:
        if self._requests is not None:
            return self._requests.prepare(given)
        return (StreamRequest if self._kind.streams else PreparedRequest)(given)

    def golden(self, place: int, time: int = 0) -> GoldenLoad:
        """Return what one load shows without faults.

        The app is restarted (an ASGI app is shut down first) and receives every load of this
        service again. ``time`` is 0 for the first golden run and 1 for a second one.
        """
        if self._golden and len(self._golden[0]) <= place:  # the loads up to the last golden run
            self._golden.clear()
        while len(self._golden) <= time:
            if not self._open and not self._golden:
                raise MlchaosError(
                    "the golden run of a service needs its trial. Use it in the body of the test"
                )
            if self._kind.shuts_down:
                self._shut_down()
            self._end_process()
            with self._controller.without_faults():
                self._memory.adopt(self._left)
            try:
                self._golden.append(self._context.copy().run(self._played_again))
            finally:
                with self._controller.without_faults():
                    self._left = self._memory.contents()
                # The app is over, so nothing else closes its loop.
                if not self._running and not self._kind.shuts_down:
                    self._free()
        return self._golden[time][place]

    def _played_again(self) -> list[GoldenLoad]:
        driver, controller = self._driver, self._controller
        memory, disk = self._memory.as_at_the_start(), self._disk.as_at_the_start()
        with (
            controller.without_faults(),
            randomness.preserve_state(),
            ProcessState(),
            disk,
            memory,
            self._subject.renewed(),
        ):
            self._process_state.restore()
            randomness.restore(self._random)
            try:
                driver.start()
                played = []
                for plan in self._plans:
                    requests = [self._prepared(given) for given in plan.requests]
                    played.append(self._play(dataclasses.replace(plan, requests=requests)))
                driver.stop()
            except ServiceFailed as error:
                raise GoldenRunFailed(f"without any fault, {error}") from error
            return played

    def server(self, method: str) -> ServerDriver:
        """Return the driver of the server process. ``method`` needs it."""
        if not isinstance(self._driver, ServerDriver):
            raise BadArgument(
                f"service.{method}() needs a real process: mlchaos.serve(command=[...], url=...)"
            )
        if not self._running:
            raise BadArgument(f"service.{method}(): this service is over")
        return self._driver

    def stop(self) -> None:
        """Shut the app down once, and free its resources."""
        try:
            self._shut_down()
        finally:
            self._free()

    def _shut_down(self) -> None:
        running, self._running = self._running, False
        if running:
            with self._at_work():
                self._driver.stop()

    def _free(self) -> None:
        self._end_process()
        with self._controller.without_faults():
            self._driver.close()

    def _end_process(self) -> None:
        """End what faults have opened in the app. A run around it has a process of its own."""
        if not self._controller.supervised:
            self._controller.end_process()

    def _die(self) -> None:
        """Simulate the death of the process: it does not shut down, but its resources are freed."""
        self._running = False
        self._release()

    def _release(self) -> None:
        is_open, self._open = self._open, False
        if is_open:
            self._free()

    def _forget(self) -> None:
        """Drop what the app left in memory, so that the next trial has no warm cache and no broken
        client.
        """
        self._memory.adopt(self._left)
        self._memory.restore()

    def __enter__(self) -> AppRunner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.leave(error)
        finally:
            self._release()

    def leave(self, error: BaseException | None) -> None:
        """Shut down after ``error``, which a failure of the shut-down must not hide."""
        try:
            if self._controller.crash is None:
                self.stop()
        except ServiceFailed as failure:
            if error is None:
                raise
            error.add_note(f"mlchaos: then {failure}")


class _PreparedInTurn(Sequence[PreparedRequest]):
    """The prepared requests of a load. One without an end is prepared while it is sent."""

    def __init__(
        self, requests: Sequence[Any], prepare: Callable[[Any], PreparedRequest], *, keep: bool
    ) -> None:
        self._requests = requests
        self._prepare = prepare
        self._keep = keep
        self._prepared: list[PreparedRequest] = []
        self.given: list[Any] = []
        """The requests as they were before the app received them."""

    def all(self) -> None:
        """Prepare all requests."""
        requests = list(self._requests)
        self.given = snapshot_value(requests) if self._keep else requests
        self._prepared = [self._prepare(request) for request in requests]
        self._requests = requests

    def __getitem__(self, place: Any) -> Any:
        while len(self._prepared) <= place:
            request = self._requests[len(self._prepared)]  # IndexError at the end
            self.given.append(snapshot_value(request) if self._keep else request)
            self._prepared.append(self._prepare(request))
        return self._prepared[place]

    def __len__(self) -> int:
        return len(self._requests)


class _Subject:
    """A callable with a copy from its start. A golden run must not find the changes of the trial.

    ``adapt`` makes the callable of one request of it.
    """

    def __init__(self, app: Any, adapt: Callable[[Any], Callable[[Any], Any]]) -> None:
        self._adapt = adapt
        self._function: Any = adapt(app)
        self._at_start = snapshot_value(app)

    def __call__(self, payload: object) -> Any:
        return self._function(payload)

    @property
    def function(self) -> Any:
        """Return the callable that answers now."""
        return self._function

    def initialize(self) -> None:
        """Initialize a handler that needs it."""
        if isinstance(self._function, BatchHandler):
            self._function.start()

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Use a fresh copy from the start."""
        before, self._function = self._function, self._adapt(self._at_start)
        self._at_start = snapshot_value(self._at_start)
        try:
            yield
        finally:
            self._function = before


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise BadArgument(
        "mlchaos.serve runs its own event loop, so it needs a plain test: def test_...(), not "
        "async def"
    )
