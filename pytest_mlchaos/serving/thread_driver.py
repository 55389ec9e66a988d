"""Send requests to a served app that blocks its thread: a function or a WSGI app."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import threading
from _thread import allocate_lock
from collections.abc import Iterator

from ..core.clock import VirtualClock
from ..core.phases import raised
from ..core.replies import Reply
from ..core.sites import derive_seed
from ..engine.attribution import scope
from ..engine.controller import Controller
from ..errors import BadArgument, NeverAnswered, SimulatedCrash
from ..sites.serving import SITE
from .callables import SyncTarget
from .holdings import Watch
from .load_generators import CURE
from .patience import STUCK, Patience, describe_threads, in_turns
from .requests import Answer, Handling, LoadPlan, PreparedRequest
from .users import check_progress, merge_attempts

__all__ = ["ThreadDriver"]


def _refuse_for_functions(plan: LoadPlan) -> None:
    """Refuse what a plain function cannot do."""
    if plan.companions:
        raise BadArgument(
            "drive: companions= needs an app that runs in an event loop or in a server process. "
            "Leave it out"
        )
    if plan.patience is not None:
        raise BadArgument(
            "drive: patience= needs an ASGI app or a coroutine function, because a plain function "
            "cannot be interrupted. Leave it out"
        )
    if plan.until is not None and (plan.concurrency or 1) > 1:
        raise BadArgument(
            "drive: duration= of a plain function needs rate=, or concurrency=1. Give number= for "
            "several threads"
        )


class ThreadDriver:
    """Call an app in the test's thread, or in one thread per request in flight."""

    def __init__(self, controller: Controller, target: SyncTarget) -> None:
        self._controller = controller
        self._target = target
        self._patience = Patience(controller, self._give_up)
        self._number = 0
        self.watch: Watch | None = None
        self._in_flight: dict[int, int] = {}
        """The thread of each request in flight."""

    def _waits(self) -> None:
        """Note that the app is about to wait."""
        if self.watch is not None:
            self.watch.look(rests=False)
        self._patience.waits()

    def _give_up(self, reason: str) -> None:
        raise NeverAnswered(f"the app hangs: {reason}\n  request {self._number}")

    def _report_stuck(self) -> None:
        raise NeverAnswered("\n  ".join([f"the app hangs: {STUCK}", *self._lines()]))

    def _lines(self) -> list[str]:
        requests = {ident: f"request {number}" for number, ident in self._in_flight.items()}
        return describe_threads(requests)

    def start(self) -> None:
        """Start the app."""
        self._target.start()

    def stop(self) -> None:
        """Do nothing: there is nothing to stop."""

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def drive(self, plan: LoadPlan) -> list[Reply]:
        """Send requests one after the other, or from a pool of threads."""
        _refuse_for_functions(plan)
        with in_turns(self._controller.clock, self._report_stuck):
            return self._driven(plan)

    def _driven(self, plan: LoadPlan) -> list[Reply]:
        start = self._controller.clock.now()
        if (plan.concurrency or 1) == 1:
            return list(self._in_turn(plan, start))
        thinks = plan.thinks() if plan.thinks is not None else None
        replies: list[concurrent.futures.Future[Reply]] = []
        is_stuck = False
        pool = concurrent.futures.ThreadPoolExecutor(plan.concurrency, "request")
        try:
            for place in range(len(plan.requests)):
                arrival = self._arrival(plan, place, start)
                think = 0.0 if thinks is None else next(thinks)
                context = contextvars.copy_context()
                replies.append(
                    pool.submit(context.run, self._handled, plan, place, start, arrival, think)
                )
            return [self._waited_for(reply) for reply in replies]
        except NeverAnswered:
            is_stuck = True
            raise
        except SimulatedCrash:
            raise
        except BaseException as error:  # for example, the test's time is over
            is_stuck = not isinstance(error, Exception)
            if is_stuck and (lines := self._lines()):
                error.add_note(f"in flight: {', '.join(lines)}")
            raise
        finally:
            pool.shutdown(wait=not is_stuck, cancel_futures=True)

    def _in_turn(self, plan: LoadPlan, start: float) -> Iterator[Reply]:
        clock = self._controller.clock
        thinks = plan.thinks() if plan.thinks is not None else None
        for place, _ in enumerate(plan.requests):
            if place and thinks is not None:
                clock.sleep(next(thinks))
            if plan.until is not None:
                passed = clock.now() - start
                if passed >= plan.until:
                    return
                check_progress(plan, place, passed)
            if self.watch is not None:
                self.watch.look(rests=True)
            yield self._watched(plan, place, start)

    def _waited_for(self, reply: concurrent.futures.Future[Reply]) -> Reply:
        """Return a reply. The other threads know of this wait, so that virtual time jumps."""
        clock = self._controller.clock
        if isinstance(clock, VirtualClock) and clock.governs and clock.wait_with_others is not None:
            lock = allocate_lock()
            lock.acquire()
            reply.add_done_callback(lambda _: lock.release())
            clock.wait_with_others(lock, None, reply.done)
        return reply.result()

    def _watched(self, plan: LoadPlan, place: int, start: float) -> Reply:
        clock, arrival = self._controller.clock, self._arrival(plan, place, start)
        self._number = plan.first + place
        self._patience.progress()
        if not isinstance(clock, VirtualClock):
            return self._handled(plan, place, start, arrival)
        before, clock.on_sleep = clock.on_sleep, self._waits
        try:
            return self._handled(plan, place, start, arrival)
        finally:
            clock.on_sleep = before

    def _arrival(self, plan: LoadPlan, place: int, start: float) -> float | None:
        if plan.arrivals is None:
            return None
        clock, arrival = self._controller.clock, start + plan.arrivals[place]
        if arrival > clock.now():
            clock.sleep(arrival - clock.now())
        return arrival

    def _handled(
        self,
        plan: LoadPlan,
        place: int,
        start: float,
        arrival: float | None,
        think: float = 0.0,
    ) -> Reply:
        request, number = plan.requests[place], plan.first + place
        if arrival is None:
            arrival = self._controller.clock.now()
        handling = Handling(self._controller, plan, request, number, start, arrival)
        replies = [self._reply(handling)]
        while plan.retries is not None:
            seed = derive_seed(plan.seed, number)
            delay = plan.retries.delay(replies[-1], len(replies), seed)
            if delay is None:
                break
            self._controller.clock.sleep(delay)
            replies.append(self._reply(handling.again()))
        if think:
            self._controller.clock.sleep(think)
        return merge_attempts(replies)

    def _reply(self, handling: Handling) -> Reply:
        self._in_flight[handling.number] = threading.get_ident()
        with scope(request=handling.number) as struck:
            try:
                answer = self._answer(handling.request)
            except SimulatedCrash as crash:
                crash.cure = CURE
                raise
            except Exception as error:  # noqa: BLE001  # an error of the function is its reply
                raised(error)
                answer = Answer({"error": error})
            finally:
                self._in_flight.pop(handling.number, None)
            self._controller.hear()
            return handling.reply(answer, struck, ended=handling.now() - handling.arrival)

    def _answer(self, request: PreparedRequest) -> Answer:
        payload, attributes = request.payload, request.attributes
        gate = self._controller.begin(SITE, payload, attributes)
        with gate or contextlib.nullcontext():
            if gate is not None:
                gate.wait()
                payload = gate.payload
            changed = None if payload is request.payload else payload
            client = attributes.get("client")
            call = self._target.begin(
                request, changed, client if client is not None and client.is_changed else None
            )
            call.run()
        return call.answer()
