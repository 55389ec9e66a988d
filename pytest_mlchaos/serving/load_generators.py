"""Send requests to a served app: in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from ..core.clients import Client, Company
from ..core.clock import VirtualClock
from ..core.interrupts import deferred
from ..core.phases import raised
from ..core.privacy import location_text
from ..core.replies import Reply
from ..core.sites import derive_seed
from ..engine.attribution import aside, branching, scope
from ..engine.controller import Controller
from ..engine.error_origin import describe_swallower
from ..engine.task_waits import line_of
from ..errors import CrashSwallowed, MlchaosError, NeverAnswered, SimulatedCrash
from ..sites.serving import SITE
from .companions import Companions
from .company import Beside
from .holdings import Watch
from .patience import STUCK, Patience, describe_threads, in_turns
from .requests import Answer, Handling, LoadPlan, PreparedRequest
from .retries import Retries
from .task_set import RequestInApp, TaskSet
from .users import Places, UserRequest, check_progress, merge_attempts

__all__ = ["CURE", "AsyncDriver", "AsyncTarget", "Driver", "linger_seconds"]

CURE = "mlchaos.serve does not restart a process. Put serve() and drive() into a function, and call it with mlchaos.run, which restarts it"


LINGER_SECONDS = 5.0
"""Virtual seconds that handlers may go on after their clients have left."""
REAL_LINGER_SECONDS = 1.0


class Driver(Protocol):
    """Start an app, send it loads, and stop it."""

    def start(self) -> None:
        """Start the app."""
        ...

    def drive(self, plan: LoadPlan) -> list[Reply]:
        """Return the reply to each request, in the order of the requests."""
        ...

    def stop(self) -> None:
        """Shut the app down."""
        ...

    def close(self) -> None:
        """Free the driver's own resources."""
        ...


class Call(Protocol):
    """One request in an app."""

    begun: float

    @property
    def has_left(self) -> bool:
        """Return True if the client has left."""
        ...

    def leave(self) -> None:
        """Let the client leave now. Do nothing if it has its answer."""
        ...

    async def run(self) -> None:
        """Let the app answer."""
        ...

    def answer(self) -> Answer:
        """Return the answer so far."""
        ...


class AsyncTarget(Protocol):
    """Define what an event loop can serve: an ASGI app, or a coroutine function."""

    async def start(self) -> None:
        """Start the app."""
        ...

    def begin(
        self,
        request: PreparedRequest,
        payload: Any,
        client: Client | None,
        on_left: Callable[[], None],
    ) -> Call:
        """Return the call for one request.

        Args:
            request: The request.
            payload: What a fault made of it, or None for the request itself.
            client: The client that a fault has changed, or None.
            on_left: A function to call if the client leaves.
        """
        ...

    async def stop(self) -> None:
        """Shut the app down."""
        ...


class AsyncDriver:
    """Drive an app in one event loop, because clients are bound to the loop that made them."""

    def __init__(self, controller: Controller, target: AsyncTarget) -> None:
        self._controller = controller
        self._target = target
        self._runner: asyncio.Runner | None = None
        self._crash_arrived = False
        self._in_flight: dict[int, RequestInApp] = {}
        self._beside: Beside | None = None
        self._patience = Patience(controller, self._give_up)
        self._patience.on_wait = self._look
        self.watch: Watch | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Return the event loop, if there is one."""
        return None if self._runner is None else self._runner.get_loop()

    def _look(self) -> None:
        if self.watch is not None and self._in_flight:
            self.watch.look(rests=False)

    def start(self) -> None:
        """Start the app up."""
        self._run(self._target.start(), "starting up")

    def stop(self) -> None:
        """Shut the app down."""
        self._run(self._target.stop(), "shutting down")

    def close(self) -> None:
        """End all tasks, and close the loop. A later call gets a new loop."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def drive(self, plan: LoadPlan) -> list[Reply]:
        """Send each request in a task of its own."""
        with in_turns(self._controller.clock, self._report_stuck):
            replies: list[Reply] = self._run(self._driven(plan), "between two requests")
        return replies

    def _run(self, coroutine: Any, doing: str) -> Any:
        if self._runner is None:
            with deferred():  # an interruption in here would leave a loop that cannot be closed
                # with a factory, asyncio leaves the thread's own event loop set
                runner = asyncio.Runner(loop_factory=self._new_loop)
                runner.get_loop()
                self._runner = runner
        try:
            return self._runner.run(coroutine)
        except SimulatedCrash as crash:
            crash.cure = CURE
            place = (
                None
                if self._crash_arrived or self._controller.crash is None
                else describe_swallower(self._controller.crash)
            )
            if place is not None:
                raise CrashSwallowed(place) from None
            raise
        except MlchaosError as error:
            # The frames of the loop do not help.
            raise error.with_traceback(None) from error.__cause__
        except BaseException as error:  # for example, the test's time is over
            in_flight = ", ".join([*self._places(), *self._stuck_threads()])
            error.add_note(f"in flight: {in_flight}" if in_flight else f"the app was {doing}")
            raise

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_task_factory(branching(loop.get_task_factory()))
        self._patience.watch(loop)
        if isinstance(loop, asyncio.BaseEventLoop):
            # The loop reads the time five times for each request. This is what the patched
            # ``time.monotonic`` returns.
            loop.time = self._controller.clock.now  # type: ignore[method-assign]
        return loop

    def _places(self) -> list[str]:
        """Describe the requests in flight, and where they wait."""
        places = []
        for number, one in self._in_flight.items():
            task = one.task
            line = line_of(task, asyncio.all_tasks(task.get_loop())) if task is not None else ""
            places.append(
                f"request {number} {location_text(one.handling.request.name)}".strip()
                + (f", which waits in {line}" if line else "")
            )
        return places

    def _give_up(self, reason: str) -> None:
        if self._in_flight:
            raise NeverAnswered("\n  ".join([f"the app hangs: {reason}", *self._places()]))

    def _report_stuck(self) -> None:
        if self._in_flight:
            lines = [*self._places(), *self._stuck_threads()]
            raise NeverAnswered("\n  ".join([f"the app hangs: {STUCK}", *lines]))

    def _stuck_threads(self) -> list[str]:
        """Return the lines of threads that are stuck. The loop does not wait for them."""
        lines = describe_threads({}) if self._in_flight else []
        if lines and self._runner is not None:
            loop: Any = self._runner.get_loop()
            loop._default_executor = None
        return lines

    async def _driven(self, plan: LoadPlan) -> list[Reply]:
        thinks = None if plan.thinks is None else plan.thinks()
        slots = Places(plan.concurrency, thinks) if plan.concurrency else None
        now, start = self._controller.clock.now, self._controller.clock.now()
        sent: list[RequestInApp | UserRequest] = []
        async with TaskSet() as tasks:
            self._beside = Beside(self._target, tasks)
            companions = Companions(
                plan.companions,
                lambda request, number: self._attempt(
                    self._handling(plan, request, number, start, None), None, tasks
                ),
                tasks.clients_done,
            )
            try:
                await companions.send_all()
                for place, request in enumerate(plan.requests):
                    arrival = None
                    if plan.arrivals is not None:
                        arrival = start + plan.arrivals[place]
                        await asyncio.sleep(max(0.0, arrival - now()))
                    elif slots is not None:
                        await slots.acquire()
                        if plan.until is not None:
                            passed = now() - start
                            if passed >= plan.until:
                                break
                            check_progress(plan, place, passed)
                    if self.watch is not None and tasks.is_empty:
                        self.watch.look(rests=True)
                    number = plan.first + place
                    handling = self._handling(plan, request, number, start, arrival)
                    sent.append(self._sent(handling, slots, tasks))
                    companions.accompany(place)
                await tasks.clients_done()
                left = [one for request in sent for one in request.left]
                follows = bool(plan.follows or left) and bool(self._controller.call_times)
                await tasks.linger(linger_seconds(self._controller, plan), left, follows=follows)
                await companions.send_all()
            except asyncio.CancelledError:
                tasks.raise_first()
                raise
            tasks.raise_first()
        return [self._merged_reply(request) for request in (*sent, *companions.sent)]

    def _sent(
        self, handling: Handling, slots: Places | None, tasks: TaskSet
    ) -> RequestInApp | UserRequest:
        """Send a request, once or as often as its user tries."""
        plan = handling.plan
        if plan.retries is None:
            return self._attempt(handling, slots, tasks)
        user = UserRequest()
        tasks.start_client(self._tried(user, handling, slots, tasks, plan.retries))
        return user

    def _attempt(
        self, handling: Handling, slots: Places | None, tasks: TaskSet, begun: float | None = None
    ) -> RequestInApp:
        one = RequestInApp(handling, self._left)
        waits = handling.plan.arrivals is not None
        patience = handling.plan.patience
        if patience is None:
            tasks.start(one, self._handled(one, slots, waits=waits))
        else:
            end = (handling.arrival if begun is None else begun) + patience
            tasks.start(one, self._handled_until(end, one, slots, waits=waits))
        return one

    async def _tried(
        self,
        user: UserRequest,
        handling: Handling,
        slots: Places | None,
        tasks: TaskSet,
        retries: Retries,
    ) -> None:
        """Send a request until its user is content, or gives up. A user of a closed loop keeps the
        place.
        """
        plan = handling.plan
        kept = slots if plan.arrivals is None else None

        def begin() -> RequestInApp:
            begun = handling.now() if user.attempts else None
            handled = handling.again() if user.attempts else handling
            return self._attempt(handled, None if kept is not None else slots, tasks, begun)

        try:
            seed = derive_seed(plan.seed, handling.number)
            await user.send(begin, retries, self._reply_so_far, seed)
        finally:
            if kept is not None:
                kept.release()

    def _reply_so_far(self, one: RequestInApp) -> Reply:
        if one.reply is not None:
            return one.reply
        assert one.call is not None
        assert one.scope is not None
        return one.handling.reply(one.call.answer(), one.scope)

    def _merged_reply(self, request: RequestInApp | UserRequest) -> Reply:
        if isinstance(request, RequestInApp):
            return self._reply_of(request)
        return merge_attempts([self._reply_of(one) for one in request.attempts])

    def _handling(
        self,
        plan: LoadPlan,
        request: PreparedRequest,
        number: int,
        start: float,
        arrival: float | None,
    ) -> Handling:
        if arrival is None:
            arrival = self._controller.clock.now()
        return Handling(self._controller, plan, request, number, start, arrival)

    def _left(self, one: RequestInApp) -> None:
        """Note that a client is done: it has its answer, or it has left."""
        self._in_flight.pop(one.handling.number, None)
        self._patience.progress()

    async def _handled_until(
        self, end: float, one: RequestInApp, slots: Places | None, *, waits: bool
    ) -> None:
        """Handle one request, whose client leaves at this time."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(0.0, end - one.handling.now()), one.lose_patience)
        try:
            await self._handled(one, slots, waits=waits)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not one.handling.gave_up or one.reply is not None or task is None:
                raise
            if task.uncancel():
                raise  # the load is over as well
            if one.scope is None:
                with scope(request=one.handling.number) as struck:
                    one.scope = struck
            one.reply = one.handling.reply(Answer(left=one.handling.now()), one.scope)
            one.client_done()
        finally:
            timer.cancel()

    async def _handled(self, one: RequestInApp, slots: Places | None, *, waits: bool) -> None:
        """Handle one request. If requests have a rate, its latency includes the wait for a slot."""
        if slots is not None:
            if waits:
                await slots.acquire()
            one.slots = slots
        self._in_flight[one.handling.number] = one
        self._patience.progress()
        self._controller.hear()  # strikes until now are not those of this request
        try:
            with (scope if one.handling.number >= 0 else aside)(
                request=one.handling.number
            ) as struck:
                one.scope = struck
                answer = await self._answer(one)
                self._controller.hear()
                one.reply = one.handling.reply(answer, struck, **one.end())
                one.forget()
        finally:
            one.client_done()

    async def _answer(self, one: RequestInApp) -> Answer:
        request, controller = one.handling.request, self._controller
        try:
            if one.handling.number < 0 or controller.is_quiet(SITE):
                if one.handling.number >= 0:
                    controller.begin(SITE)
                one.call = call = self._target.begin(request, None, None, one.client_left)
                await call.run()
                return call.answer()
            payload, company = request.payload, Company()
            attributes = {**request.attributes, "company": company}
            gate = controller.begin(SITE, payload, attributes)
            with gate or contextlib.nullcontext():
                if gate is not None:
                    await gate.wait_async()
                    payload = gate.payload
                changed = None if payload is request.payload else payload
                if self._beside is not None and (company.copies or company.retries):
                    await self._beside.send(company, request, changed, one.handling.number)
                client = one.attributed(attributes.get("client"))
                one.call = call = self._target.begin(request, changed, client, one.client_left)
                await call.run()
                return call.answer()
        except SimulatedCrash:
            self._crash_arrived = True
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the load is over, so let the cancellation through
            raised(error)
            return Answer({"error": error})
        except Exception as error:  # noqa: BLE001  # an error of the app is its reply
            return Answer({"error": error})

    def _reply_of(self, one: RequestInApp) -> Reply:
        """Return the reply. A handler whose client has left may still run."""
        if one.reply is None:
            assert one.call is not None
            assert one.scope is not None
            line = line_of(one.task) if one.task is not None else ""
            one.reply = one.handling.reply(one.call.answer(), one.scope, still_at=line or "?")
        if one.reply.left is not None and one.scope is not None:
            one.reply = dataclasses.replace(one.reply, **one.work_left())
        return one.reply


def linger_seconds(controller: Controller, plan: LoadPlan) -> float:
    """Return how long a load waits for calls whose clients have left."""
    if plan.linger is not None:
        return plan.linger
    clock = controller.clock
    is_virtual = isinstance(clock, VirtualClock) and not clock.is_real
    return LINGER_SECONDS if is_virtual else REAL_LINGER_SECONDS
