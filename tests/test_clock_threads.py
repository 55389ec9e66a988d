"""Threads wait on one virtual clock: it jumps when all of them wait, to the earliest deadline."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import datetime
import os
import queue
import threading
import time
from pathlib import Path
from time import monotonic as reading

import pytest

from pytest_mlchaos import Schedule, faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine import activity
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import BadArgument

faults.load()
sites.load()
HOUR = 3600.0
REAL = {"monotonic": time.monotonic}  # not under a name that is replaced
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")


@pytest.fixture
def clock():
    """The virtual clock of a trial that this test is part of, and that stays virtual."""
    before = REAL["monotonic"]()
    with trial(Schedule(), Patches(), clock="virtual", timeout=30) as controller:
        yield controller.clock
        assert not controller.clock.reason
    assert REAL["monotonic"]() - before < 10


def since(start):
    """Whole seconds, of the trial's time."""
    return round(reading() - start)


def in_threads(*functions):
    """Run each function in a thread of its own."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_sleeping_threads_wake_in_the_order_of_their_deadlines(clock):
    """Wake the thread that started first at equal ones."""
    start, order = reading(), []

    def sleeper(name, seconds):
        return lambda: (time.sleep(seconds), order.append(name))

    in_threads(
        sleeper("last", HOUR), sleeper("a", 600.0), sleeper("first", 60.0), sleeper("b", 600.0)
    )
    assert order == ["first", "a", "b", "last"]
    assert since(start) == HOUR


def test_a_time_limit_of_each_kind_of_wait_jumps(clock):
    """Alone, and while another thread sleeps for longer."""
    for seconds in (0, 2 * HOUR):
        start = reading()
        thread = threading.Thread(target=time.sleep, args=(seconds,))
        thread.start()
        future = concurrent.futures.Future()
        assert not threading.Event().wait(60)
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=60)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=60)
        assert not concurrent.futures.wait([future], timeout=60).done
        condition = threading.Condition()
        with condition:
            assert not condition.wait_for(bool, timeout=60)
        assert not threading.Semaphore(0).acquire(timeout=60)
        assert since(start) == 360
        thread.join()


def test_a_wait_ends_when_another_thread_notifies(clock):
    """At that moment, not at its time limit."""
    items = queue.Queue()

    def produce():
        for number in range(3):
            time.sleep(600)
            items.put(number)

    thread = threading.Thread(target=produce)
    thread.start()
    start = reading()
    assert [items.get(timeout=1000) for _ in range(3)] == [0, 1, 2]
    assert since(start) == 1800
    thread.join()


def test_a_pool_shares_the_clock(clock):
    """Two workers take as long as two workers do, and a late result is not waited for."""
    start = reading()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(time.sleep, seconds) for seconds in (100, 200, 300)]
        assert concurrent.futures.wait(futures, timeout=150).done == {futures[0]}
        with pytest.raises(concurrent.futures.TimeoutError):
            futures[2].result(timeout=10)
    assert since(start) == 400


def test_coroutines_and_their_threads_share_the_clock(clock):
    """A time limit in the loop fires while a worker sleeps for longer, and only then."""

    async def main():
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 50), 100)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(time.sleep, 500), 100)
        return since(start)

    start = reading()
    assert asyncio.run(main()) == 150
    assert since(start) == 550


def test_a_loop_in_a_thread_of_the_test_jumps(clock):
    """Also with other threads that hold a lock while they sleep, as rate limiters do."""
    lock, start = threading.Lock(), reading()

    def limited():
        for _ in range(2):
            with lock:
                time.sleep(60)

    in_threads(limited, limited, lambda: asyncio.run(asyncio.sleep(1000)))
    assert since(start) == 1000


def test_joining_with_a_time_limit_jumps_there(clock):
    """The thread is alive then, and ends at its own time."""
    start = reading()
    thread = threading.Thread(target=time.sleep, args=(100,))
    thread.start()
    thread.join(10)
    assert (since(start), thread.is_alive()) == (10, True)
    thread.join()
    assert since(start) == 100


def test_delays_in_several_threads_pass_together():
    """Injected into calls that two threads make at once."""
    delay = create("call_delay", target="json:dumps", delay="10m", at=range(4))
    with trial(Schedule((delay,)), Patches(), clock="virtual", timeout=30) as controller:
        import json

        start = reading()
        in_threads(*[lambda: [json.dumps({}), json.dumps({})]] * 2)
        assert since(start) == 1200
        assert (len(controller.journal), controller.clock.reason) == (4, "")


def test_computing_threads_are_waited_for(clock):
    """A time limit of a minute does not fire while a worker computes for some milliseconds."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    assert pool.submit(lambda: sum(range(10**6))).result(timeout=60) == sum(range(10**6))
    pool.shutdown()


def test_work_that_goes_on_makes_time_real():
    """The reason names the thread, and the waits of others end in real time."""
    with trial(Schedule(), Patches(), clock="virtual", timeout=30) as controller:
        done = threading.Event()
        spin = threading.Thread(target=lambda: [0 for _ in iter(done.is_set, True)], name="spin")
        spin.start()
        in_threads(lambda: time.sleep(0.01))
        time.sleep(0.01)
        done.set()
        spin.join()
        assert controller.clock.reason == "the thread spin is busy"


def test_advance_lets_time_pass_for_all_threads(clock):
    """Deadlines on the way are met. Text and seconds are taken."""
    start, rung = reading(), []
    threading.Timer(60, lambda: rung.append(since(start))).start()
    clock.advance("5m")
    clock.advance(30)
    assert (since(start), rung) == (330, [60])


def test_advance_refuses_where_time_is_real():
    """It says why."""
    with trial(Schedule(), Patches(), clock="virtual", timeout=30) as controller:
        controller.clock.become_real("the thread x is busy")
        with pytest.raises(BadArgument, match="time is real, because the thread x is busy"):
            controller.clock.advance("5m")
        with pytest.raises(BadArgument, match="duration must be in seconds"):
            controller.clock.advance("soon")
    with (
        trial(Schedule(), Patches(), clock="real", timeout=30) as controller,
        pytest.raises(BadArgument, match="must be virtual"),
    ):
        controller.clock.advance("5m")


def test_retries_of_libraries_wait_on_the_clock(clock):
    """An hour of exponential back-off takes milliseconds: tenacity, backoff and stamina."""
    tenacity, backoff = pytest.importorskip("tenacity"), pytest.importorskip("backoff")
    stamina = pytest.importorskip("stamina")

    def outage():
        if reading() < end:
            raise ConnectionError
        return "up"

    wait = tenacity.wait_exponential(multiplier=1)
    retries = [
        tenacity.retry(wait=wait)(outage),
        backoff.on_exception(backoff.expo, ConnectionError, jitter=None)(outage),
        stamina.retry(on=ConnectionError, attempts=None, timeout=None, wait_jitter=0)(outage),
    ]
    for call in retries:
        end = reading() + HOUR
        assert call() == "up"
        assert reading() >= end


class Native:
    """A thread without Python code, in a call of the system, but not in a wait for a lock."""

    def __init__(self):
        self._libc = ctypes.CDLL(None)
        self._thread = ctypes.c_ulong()
        pause = ctypes.cast(self._libc.pause, ctypes.c_void_p)
        tasks = set(os.listdir("/proc/self/task"))
        assert not self._libc.pthread_create(ctypes.byref(self._thread), None, pause, None)
        self._task = (set(os.listdir("/proc/self/task")) - tasks).pop()
        self._wait_until_it_sleeps()

    def _wait_until_it_sleeps(self):
        while Path(f"/proc/self/task/{self._task}/syscall").read_text().split()[0] == "running":
            time.sleep(0.001)

    def end(self):
        """Leave no thread behind."""
        self._libc.pthread_cancel(self._thread)
        self._libc.pthread_join(self._thread, None)


def wait_in_threads():
    """Let one thread wait for another one, which sleeps for an hour."""
    done = threading.Event()
    in_threads(done.wait, lambda: (time.sleep(HOUR), done.set()))


def test_a_thread_of_a_library_that_sleeps_since_an_earlier_test_does_not_count():
    """It has received no work in this one."""
    native = Native()
    try:
        with trial(Schedule(), Patches(), clock="virtual", timeout=30) as controller:
            wait_in_threads()
            assert not controller.clock.reason
    finally:
        native.end()


def test_a_thread_of_a_library_that_starts_in_the_test_may_be_at_work():
    """Real time passes, since the thread may wake one of the test's."""
    with trial(Schedule(), Patches(), clock="virtual", timeout=30) as controller:
        native = Native()
        try:
            done = threading.Event()
            in_threads(lambda: done.wait(1.5))
            assert controller.clock.reason == "a thread of a library is at work"
        finally:
            native.end()


@pytest.fixture
def looks(monkeypatch):
    """The real waits in which jumps look at other threads."""
    waits = []

    def wait(seconds):
        waits.append(seconds)
        real(seconds)

    real = activity.sleep
    monkeypatch.setattr(activity, "sleep", wait)
    return waits


def test_a_thread_that_goes_on_waiting_is_looked_at_once(looks):
    """A server's idle thread must not cost a millisecond at each jump."""
    over = threading.Event()
    server = threading.Thread(target=over.wait, args=(600,), daemon=True)
    server.start()
    try:
        with trial(Schedule(), Patches(), clock="virtual", timeout=30) as controller:
            for _ in range(50):
                time.sleep(1)
            assert not controller.clock.reason
    finally:
        over.set()
        server.join()
    assert len(looks) < 5


def test_a_thread_that_is_woken_after_a_look_makes_time_real():
    """It is looked at again, because it could run."""
    begin, done = threading.Event(), threading.Event()

    def work():
        begin.wait(600)
        while not done.is_set():
            sum(range(100))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        with trial(Schedule(), Patches(), clock="virtual", timeout=30) as controller:
            time.sleep(1)
            assert not controller.clock.reason
            begin.set()
            time.sleep(0.01)
            assert "is busy" in controller.clock.reason
    finally:
        done.set()
        worker.join()


def test_a_timer_of_a_tool_does_not_count(looks):
    """pytest-timeout keeps one in each test."""

    def ring():
        pass

    ring.__module__ = "pytest_timeout"
    timer = threading.Timer(600, ring)
    timer.start()
    try:
        with trial(Schedule(), Patches(), clock="virtual", timeout=30) as controller:
            time.sleep(HOUR)
            assert not controller.clock.reason
    finally:
        timer.cancel()
        timer.join()
    assert not looks


def test_the_date_is_that_of_the_clock(clock):
    """By ``datetime``, ``date`` and ``time``, and files are named by it."""
    day, moment, text = datetime.date.today(), datetime.datetime.now(datetime.UTC), time.ctime()
    time.sleep(48 * HOUR)
    assert (datetime.date.today() - day).days == 2
    assert (datetime.datetime.now(datetime.UTC) - moment).days == 2
    assert time.strftime("%Y-%m-%d") == datetime.date.today().isoformat()
    assert time.localtime()[:3] == datetime.date.today().timetuple()[:3]
    assert time.ctime() != text


def test_a_thread_that_outlives_the_trial_goes_on_in_real_time():
    """Wait for the rest as in reality."""
    ended = threading.Event()
    with trial(Schedule(), Patches(), clock="virtual"):
        threading.Thread(target=lambda: [time.sleep(0.05), ended.set()]).start()
    assert ended.wait(5)


def test_nothing_stays_patched():
    """Threads, conditions and joins are the library's own again."""

    def held():
        thread = threading.Thread
        functions = thread.start, thread.join, thread._bootstrap_inner, threading.Condition.wait
        return *functions, datetime.datetime.now.__func__ if patched() else None

    def patched():
        return hasattr(datetime.datetime.now, "__func__")

    before = held()
    with trial(Schedule(), Patches(), clock="virtual"):
        assert held()[0] is not before[0]
        assert patched()
    assert held() == before
