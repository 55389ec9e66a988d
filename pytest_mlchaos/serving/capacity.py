"""Limit how many calls of a function run at a time, and how long each takes.

A test runs on a virtual clock, on which computation takes no time, so no queue would ever form.
``mlchaos.capacity`` gives a function workers and service times. Then queues, time-outs and shedding
behave as under a real server. ``workers.py`` has the queue. This file wraps the function.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import copy
import functools
import inspect
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from ..core.privacy import data_text, error_text, remember_text
from ..core.sites import derive_seed
from ..core.validation import COUNT, WHOLE, Rule, check_arguments, format_value, optional
from ..engine.controller import Controller, current
from ..engine.cpu_shares import declared_times, stretched
from ..engine.gate import pause
from ..engine.patching import Patches
from ..engine.stand_ins import delegating
from ..errors import BadArgument, MlchaosError
from ..sites.awaitables import in_event_loop
from ..sites.calls import find, replace, resolve
from .distributions import Distribution, parse_distribution
from .workers import Ticket, Workers, wait_in_thread

__all__ = ["Capacity", "capacity"]

Arguments = tuple[Sequence[Any], dict[str, Any]]
TARGET = Rule("'pkg.mod:function'", lambda value: isinstance(value, str) and value.strip())


@check_arguments(
    "mlchaos.capacity",
    target=TARGET,
    workers=COUNT,
    queue=optional(WHOLE),
    seed=WHOLE,
)
def capacity(
    target: str,
    workers: int = 2,
    service_time: Any = "20ms",
    *,
    queue: int | None = None,
    error: Any = ConnectionRefusedError,
    seed: int = 0,
) -> Capacity:
    """Let calls of ``target`` queue for ``workers``, and take their time on the trial's clock.

    A call waits in line for a worker. It holds the worker for its service time, and then for as
    long as the function itself waits. A caller that is cancelled leaves the line, or frees its
    worker. This is not a fault: it also holds in golden runs, which begin with idle workers and the
    same random numbers. It ends with the test's body.

    Args:
        target: ``"pkg.mod:function"`` or ``"pkg.mod:Class.method"``, as for ``call_failure``. It
            may be a coroutine function, a generator, or a plain function. A plain function that is
            called in the event loop blocks it, as in production.
        workers: The number of calls that are served at a time.
        service_time: A duration, or a distribution as text: ``"exponential(20ms)"``,
            ``"lognormal(20ms, 0.5)"``, ``"gamma(20ms, 2)"``, ``"pareto(20ms, 2.5)"`` (each with its
            mean first), ``"normal(20ms, 5ms)"`` or ``"uniform(10ms, 30ms)"``. Or a function, which
            is called with the call's arguments and returns one of these, for models with costs of
            their own. A method's instance is passed if its first parameter is named ``self``. It
            also gets a ``random.Random`` if it has a parameter named ``rng``.
        queue: The largest number of calls that wait. A further call raises ``error``. Without it,
            any number waits.
        error: The exception that a full queue raises: a class, an instance, or its name.
        seed: A number that changes the random service times.

    Returns:
        A ``Capacity``, which counts calls, waits and queues.

    Raises:
        TargetNotFound: The target does not exist, or cannot be patched.
        BadArgument: An argument is wrong, or nothing called the target until the test's body ended.

    Fidelity: the target is replaced under its imported names, as for ``call_failure``. A worker
    does not work ahead, and serves one call at a time: give a batching function as the target, or
    a ``service_time`` that depends on its arguments. Computation inside takes no virtual time. A
    call by the target itself, in the same task or thread, needs no worker of its own.
    """
    controller = current()
    if controller is None:
        raise MlchaosError("mlchaos.capacity works only while the body of a test runs")
    made = Capacity(
        controller, target, workers=workers, queue=queue, error=error, seed=seed, time=service_time
    )
    made._install()
    return made


class Capacity:
    """The workers of a function, and what happened at them in the test, without golden runs."""

    def __init__(
        self,
        controller: Controller,
        target: str,
        *,
        workers: int,
        time: Any,
        queue: int | None,
        error: Any,
        seed: int,
    ) -> None:
        self._controller = controller
        self._target = target
        owner, _, kind, _ = resolve(target)
        self._owner = owner if inspect.isclass(owner) and kind is not staticmethod else None
        self._time = _service_times(time)
        self._error = _error_maker(error, target)
        self._sizes = workers, queue
        self._seed = derive_seed("capacity", target, seed)
        self._workers = self._fresh()
        self._golden: Workers | None = None
        self._looked = False

    def _fresh(self) -> Workers:
        return Workers(*self._sizes, random.Random(self._seed), self._controller.clock)

    def _install(self) -> None:
        controller = self._controller
        controller.on_change.append(self._forget_golden)
        controller.resources.push(self._check_used)
        controller.resources.enter_context(declared_times())
        patches = controller.resources.enter_context(Patches())
        replace(patches, self._target, self._wrap)

    def __repr__(self) -> str:
        return f"<Capacity of {self._target}: {self._workers}>"

    # -- what happened -----------------------------------------------------------------------------

    @property
    def calls(self) -> int:
        """Return the number of calls, with those that were refused or left."""
        return self._seen.calls

    @property
    def waits(self) -> tuple[float, ...]:
        """Return the seconds that each served call waited for a worker, in the order of service."""
        return tuple(self._seen.waits)

    @property
    def max_queue(self) -> int:
        """Return the largest number of calls that waited at the same time."""
        return self._seen.max_queue

    @property
    def refused(self) -> int:
        """Return the number of calls that a full queue refused."""
        return self._seen.refused

    @property
    def left(self) -> int:
        """Return the number of calls whose caller left the queue before a worker was free."""
        return self._seen.left

    @property
    def utilisation(self) -> float:
        """Return the share of the workers' time in use, from the first call to the last end.

        It is 0 before any call.
        """
        return self._seen.utilisation

    @property
    def _seen(self) -> Workers:
        self._looked = True
        return self._workers

    # -- runs --------------------------------------------------------------------------------------

    def _now_at_work(self) -> Workers:
        """Return the workers of the current run."""
        if not self._controller.in_golden_run:
            return self._workers
        if self._golden is None:
            self._golden = self._fresh()
        return self._golden

    def _forget_golden(self) -> None:
        if not self._controller.in_golden_run:
            self._golden = None

    def _check_used(self, kind: Any, error: Any, trace: Any) -> None:
        unused = not self._looked and not self._workers.calls
        if unused and kind is None and self._controller.broken is None:
            raise BadArgument(
                f"mlchaos.capacity: nothing called {self._target!r}, so its workers did not matter. "
                f"Name the function as its callers reach it. A framework may hold an endpoint "
                f"itself: name a function that the endpoint calls"
            )

    # -- calls -------------------------------------------------------------------------------------

    def _wrap(self, function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._is_nested():
                return function(*args, **kwargs)
            if in_event_loop():
                return self._call_in_loop(function, args, kwargs)
            with self._held_in_thread(args, kwargs):
                return function(*args, **kwargs)

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            if self._is_nested():
                return await function(*args, **kwargs)
            async with self._held(args, kwargs):
                return await function(*args, **kwargs)

        @functools.wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Any:
            with self._held_in_thread(args, kwargs, nests=False):
                return (yield from function(*args, **kwargs))

        @contextlib.asynccontextmanager
        async def entered(args: Any, kwargs: Any) -> AsyncIterator[Any]:
            async with self._held(args, kwargs, nests=False):
                yield args, kwargs

        async def unchanged(item: object) -> Any:
            return item

        if inspect.iscoroutinefunction(function):
            return call_async
        if inspect.isasyncgenfunction(function):
            return delegating(function, entered, unchanged)
        return generate if inspect.isgeneratorfunction(function) else call

    def _is_nested(self) -> bool:
        """Return True if the calling task or thread holds a worker already."""
        holders = self._now_at_work().holders
        return bool(holders) and _caller() in holders

    def _ticket(self, args: Any, kwargs: Any, wake: Callable[[Ticket], None]) -> Ticket:
        """Return a place in the queue, or with a worker. Raise if the queue is full."""
        workers = self._now_at_work()
        ticket = workers.enter(self._service_time(args, kwargs, workers.rng), wake)
        if ticket is None:
            raise self._error()
        return ticket

    def _service_time(self, args: Any, kwargs: Any, rng: random.Random) -> float:
        try:
            seconds = self._time(self._owner, args, kwargs, rng)
        except BadArgument as error:
            self._controller.broken = self._controller.broken or error
            raise
        return seconds if self._controller.in_golden_run else stretched(seconds)

    @contextlib.asynccontextmanager
    async def _held(self, args: Any, kwargs: Any, *, nests: bool = True) -> AsyncIterator[None]:
        """Wait for a worker, and hold it: for the service time, and then inside."""
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        ticket = self._ticket(args, kwargs, lambda ticket: _wake(loop, woken, ticket))
        try:
            if ticket.waits:
                await woken
            if nests:
                ticket.hold(_caller())
            await pause(self._controller.clock, ticket.service)
            yield
        finally:
            ticket.end()

    @contextlib.contextmanager
    def _held_in_thread(self, args: Any, kwargs: Any, *, nests: bool = True) -> Iterator[None]:
        """Do the same in a thread, which is blocked meanwhile."""
        lock = threading.Lock()
        lock.acquire()
        ticket = self._ticket(args, kwargs, lambda ticket: lock.release())
        try:
            if ticket.waits:
                wait_in_thread(self._controller.clock, lock, ticket, self._target)
            if nests:
                ticket.hold(_caller())
            self._controller.clock.sleep(ticket.service)
            yield
        finally:
            ticket.end()

    def _call_in_loop(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a plain function in an event loop.

        If it returns an awaitable, as methods of many clients do, the caller waits when it awaits
        this. Only the call shows if it does. So a function that blocks does so after the call.
        """
        if self._now_at_work().is_full:
            raise self._refusal()
        holders, caller = self._now_at_work().holders, _caller()
        holders.add(caller)  # a call by the function itself is nested
        try:
            made = function(*args, **kwargs)
        except Exception:
            with self._held_in_thread(args, kwargs):
                raise
        finally:
            holders.discard(caller)
        if inspect.isawaitable(made):
            return self._await_held(made, args, kwargs)
        with self._held_in_thread(args, kwargs):
            return made

    async def _await_held(self, made: Any, args: Any, kwargs: Any) -> Any:
        try:
            async with self._held(args, kwargs):
                return await made
        finally:
            if inspect.iscoroutine(made):
                made.close()  # if it was refused or cancelled, it never started

    def _refusal(self) -> BaseException:
        self._now_at_work().refuse()
        return self._error()


def _caller() -> object:
    """Return the current task, or the number of the thread without one."""
    task = asyncio.current_task() if asyncio._get_running_loop() is not None else None
    return task or threading.get_ident()


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None], ticket: Ticket) -> None:
    if asyncio._get_running_loop() is loop:
        _set(woken)
        return
    try:
        loop.call_soon_threadsafe(_set, woken)
    except RuntimeError:  # the loop was closed, and its tasks with it
        ticket.end()


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


# -- arguments -------------------------------------------------------------------------------------

_WHAT = "mlchaos.capacity: service_time"
TimeOf = Callable[[type | None, Any, Any, random.Random], float]


def _service_times(given: Any) -> TimeOf:
    """Return a function of a call's owner, arguments and random numbers that returns seconds."""
    if not callable(given):
        fixed = parse_distribution(given, _WHAT)
        return lambda owner, args, kwargs, rng: fixed.draw(rng)
    names = _parameters(given)
    takes_self, takes_rng = names[:1] == ["self"], "rng" in names
    known: dict[str, Distribution] = {}

    def seconds(owner: type | None, args: Any, kwargs: Any, rng: random.Random) -> float:
        if owner is not None and not takes_self and args and _is_of(args[0], owner):
            args = args[1:]
        more = {"rng": rng} if takes_rng else {}
        try:
            found = given(*args, **kwargs, **more)
        except Exception as error:
            raise BadArgument(
                f"{_WHAT} is a function that raised for a call: {error_text(error)}. It is called "
                f"with the call's arguments, and returns seconds, a duration or a distribution"
            ) from error
        if isinstance(found, str):
            if found not in known:
                known[found] = parse_distribution(found, _WHAT)
            return known[found].draw(rng)
        return parse_distribution(found, f"the result of {_WHAT}").mean

    return seconds


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _is_of(value: object, owner: type) -> bool:
    return isinstance(value, owner) or (isinstance(value, type) and issubclass(value, owner))


def _error_maker(error: Any, target: str) -> Callable[[], BaseException]:
    """Return a function that makes the error of a full queue."""
    if isinstance(error, BaseException):
        return lambda: copy.copy(error)
    found = (
        (getattr(builtins, error, None) or find(error))
        if isinstance(error, str) and error
        else error
    )
    if not (isinstance(found, type) and issubclass(found, Exception)):
        given = format_value(error) if isinstance(error, str) else data_text(error)
        raise BadArgument(f"mlchaos.capacity: error must be an exception or its name, got {given}")
    text = f"the queue of {target} is full (mlchaos.capacity)"

    def make() -> BaseException:
        made = found(text)
        remember_text(made, text)
        return made

    try:
        make()
    except Exception as failure:  # noqa: BLE001  # a constructor may raise anything
        raise BadArgument(
            f"mlchaos.capacity: error={found.__name__} cannot be made from one text "
            f"({error_text(failure)}). Give an instance of it"
        ) from None
    return make
