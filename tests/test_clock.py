"""Virtual time: what waits takes no time, and passes all the same; with threads and processes time
is real.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import queue
import sched
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from time import monotonic as reading
from time import sleep as pause
from unittest import mock

import pytest

from pytest_mlchaos import Schedule, faults, sites
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.gate import pause as pause_in
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial

faults.load()
sites.load()

HOUR = 3600.0
POOL = ThreadPoolExecutor(1)
POOL.submit(int).result()  # its thread is there before each trial
REAL = {
    name: getattr(time, name)
    for name in (
        "sleep",
        "monotonic",
        "time",
        "perf_counter",
        "monotonic_ns",
        "time_ns",
        "perf_counter_ns",
    )
}


@pytest.fixture
def clock():
    """The virtual clock of a trial that this test is part of."""
    with trial(Schedule(), Patches(), clock="virtual", timeout=30) as controller:
        yield controller.clock


def since(start):
    """Whole seconds, of the trial's time."""
    return round(reading() - start, 3)


@pytest.mark.parametrize(
    "wait",
    [lambda: time.sleep(HOUR), lambda: pause(HOUR)],
    ids=["time.sleep", "from time import sleep"],
)
def test_sleeping_takes_no_time_and_passes_it(clock, wait):
    """Under whatever name it was imported; each clock of ``time`` agrees."""
    clocks = ("monotonic", "time", "perf_counter")
    before, real = [getattr(time, name)() for name in clocks], REAL["monotonic"]()
    nanoseconds = time.monotonic_ns(), time.time_ns(), time.perf_counter_ns()
    wait()
    assert [
        round(getattr(time, name)() - start) for name, start in zip(clocks, before, strict=True)
    ] == [3600] * 3
    after = time.monotonic_ns(), time.time_ns(), time.perf_counter_ns()
    assert [round((end - start) / 1e9) for start, end in zip(nanoseconds, after, strict=True)] == [
        3600
    ] * 3
    assert REAL["monotonic"]() - real < 60


def test_afterwards_everything_is_what_it_was():
    """Also the names that other modules hold."""
    with trial(Schedule(), Patches(), clock="virtual"):
        assert (pause, time.sleep) != (REAL["sleep"], REAL["sleep"])
    assert all(getattr(time, name) is function for name, function in REAL.items())
    assert (pause, reading) == (REAL["sleep"], REAL["monotonic"])


def test_a_module_that_was_imported_in_between_is_put_right_too(clock, tmp_path, monkeypatch):
    """It took the replacement for the original."""
    (tmp_path / "late_sleeper.py").write_text("from time import sleep")
    monkeypatch.syspath_prepend(tmp_path)
    with trial(Schedule(), Patches(), clock="virtual"):
        import late_sleeper
    sys.modules.pop("late_sleeper")
    assert late_sleeper.sleep is time.sleep


def test_what_only_pretends_to_be_a_module_is_left_alone(clock, monkeypatch):
    """Some libraries put such objects among the modules."""

    class Pretender:
        __class__ = types.ModuleType
        __slots__ = ("__dict__",)

    monkeypatch.setitem(sys.modules, "pretender", Pretender())
    with trial(Schedule(), Patches(), clock="virtual") as controller:
        time.sleep(HOUR)
        assert controller.clock.passed() >= HOUR
    assert "pretender" in sys.modules


def test_the_functions_pickle_by_name(clock):
    """A process that gets one finds its own there."""
    assert pickle.loads(pickle.dumps(time.sleep)) is time.sleep


def test_wrong_arguments_are_refused_as_ever(clock):
    """By the real function."""
    with pytest.raises(ValueError, match="non-negative"):
        time.sleep(-1)
    with pytest.raises(TypeError):
        time.sleep("1")


def test_a_loop_that_waits_for_a_deadline_ends(clock):
    """Reading the time takes a little of it."""
    deadline = time.monotonic() + 0.05
    while time.monotonic() < deadline:
        pass
    assert not clock.reason


def test_an_event_loop_jumps_to_its_next_deadline(clock):
    """In the order of the deadlines; time-outs fire."""
    order = []

    async def worker(name, seconds):
        await asyncio.sleep(seconds)
        order.append(name)

    async def main():
        start = reading()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(
                asyncio.gather(worker("late", 3 * HOUR), worker("soon", 60), worker("later", HOUR)),
                2 * HOUR,
            )
        return since(start)

    assert asyncio.run(main()) == 2 * HOUR
    assert order == ["soon", "later"]


def test_an_event_loop_that_waits_for_others_does_not_jump(clock):
    """A reply that takes real time must not fire a timeout of a minute."""

    async def main():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(1)", stdout=subprocess.PIPE
        )
        return await asyncio.wait_for(process.communicate(), 60)

    assert asyncio.run(main())[0].strip() == b"1"


def test_a_deadline_passes_while_others_keep_silent(clock):
    """The time that was really waited for counts."""

    async def main():
        reader, writer = os.pipe()
        try:
            asyncio.get_running_loop().add_reader(reader, lambda: None)
            start = reading()
            await asyncio.sleep(0.05)
            return since(start)
        finally:
            os.close(reader)
            os.close(writer)

    assert asyncio.run(main()) == pytest.approx(0.05, abs=0.002)


def test_waits_for_processes_are_real(clock):
    """They cannot be made to jump, so their reckoning must not be virtual."""
    subprocess.run([sys.executable, "-c", ""], timeout=60, check=True)
    assert not clock.reason


def test_a_thread_makes_time_real_and_the_clock_goes_on_from_where_it_stands(clock):
    """Events in both threads can only be ordered in real time."""
    start = reading()
    time.sleep(HOUR)
    done = threading.Event()
    thread = threading.Thread(
        target=lambda: [sum(range(1000)) for _ in iter(done.is_set, True)], name="loader"
    )
    thread.start()
    time.sleep(0.02)
    assert clock.reason == "the thread loader is busy"
    done.set()
    thread.join()
    assert HOUR + 0.02 <= reading() - start < HOUR + 60


def test_a_process_makes_time_real(clock):
    """Polling it would let hours pass before it has done anything."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert clock.reason == "a subprocess was started"


def test_an_event_loop_in_a_thread_of_its_own_lives_in_real_time(clock):
    """Clients that wrap an async implementation for sync code have one. A delay passes for the
    thread that waits.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def own():
        return loop.time(), REAL["monotonic"]()

    time.sleep(HOUR)
    shown, real = asyncio.run_coroutine_threadsafe(own(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    assert not clock.reason
    assert abs(shown - real) < 60


def test_another_event_loop_makes_time_real(clock):
    """Its waiting cannot be made to jump."""
    trio = pytest.importorskip("trio")

    async def main():
        start = trio.current_time()
        await trio.sleep(0.01)
        return trio.current_time() - start

    assert 0.01 <= trio.run(main) < 60
    assert clock.reason == "the event loop of trio waits for real"


def test_a_pool_that_was_there_before_is_not_jumped_over(clock):
    """A time-out of half a minute does not fire while a thread has been at work for some
    milliseconds.
    """
    done = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(
            loop.run_in_executor(POOL, lambda: done.wait(0.05) or sum(range(10**7))), 30
        )

    assert asyncio.run(main()) == sum(range(10**7))
    assert "busy" in clock.reason


def test_a_thread_that_waits_to_be_woken_does_no_harm(clock):
    """Idle servers and pools have such threads. Time stays virtual."""
    POOL.submit(int).result()
    start = reading()
    time.sleep(HOUR)
    assert (since(start), clock.reason) == (HOUR, "")


def test_a_process_that_was_there_before_is_not_jumped_over():
    """Polling for what it does takes real time."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with trial(Schedule(), Patches(), clock="virtual") as controller:
            time.sleep(0.01)
            assert "child process" in controller.clock.reason
        process.communicate(b"\n")


@pytest.mark.parametrize(
    "wait",
    [lambda: threading.Event().wait(0.05), lambda: _empty(queue.Queue(), 0.05)],
    ids=["event", "queue"],
)
def test_waits_for_events_count(clock, wait):
    """A loop with a deadline that waits by such means comes to its end."""
    start, turns = reading(), 0
    while reading() - start < 0.2:
        wait()
        turns += 1
    assert turns in (4, 5)
    assert not clock.reason


def _empty(empty, seconds):
    with contextlib.suppress(queue.Empty):
        empty.get(timeout=seconds)


def test_helpers_of_the_standard_library_sleep_on_the_clock_too(clock):
    """A mock around ``time.sleep``, an exit stack, a scheduler: the caller at the end counts."""
    start = reading()
    with mock.patch("time.sleep", wraps=time.sleep) as spy:
        time.sleep(HOUR)
    with contextlib.ExitStack() as stack:
        stack.callback(time.sleep, HOUR)
    timetable = sched.scheduler(time.monotonic, time.sleep)
    timetable.enter(HOUR, 1, int)
    timetable.run()
    spy.assert_called_once_with(HOUR)
    assert since(start) == pytest.approx(3 * HOUR, abs=0.01)


def test_delays_in_another_threads_loop_pass_together(clock):
    """Requests that one call sends at once are delayed at once; those of one task one after the
    other.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def request():
        await pause_in(clock, 10)
        await pause_in(clock, 10)

    async def many():
        await asyncio.gather(*(request() for _ in range(5)))

    start = reading()
    for number in (1, 2):
        asyncio.run_coroutine_threadsafe(many(), loop).result()
        assert since(start) == pytest.approx(20 * number, abs=1)
    loop.call_soon_threadsafe(loop.stop)


def test_the_next_trial_goes_on_where_the_last_one_ended():
    """An object that outlives a trial (a loop, a limiter) never sees time go back between two
    trials.
    """
    ends = []
    for _ in range(2):
        with trial(Schedule(), Patches(), clock="virtual"):
            ends.append(time.monotonic())
            time.sleep(HOUR)
    assert ends[1] - ends[0] >= HOUR


def test_a_trial_within_a_trial_leaves_the_outer_ones_clock_alone(clock):
    """A plugin's own tests run pytest in process like this."""
    with trial(Schedule(), Patches(), clock="virtual"):
        time.sleep(1)
    start = reading()
    time.sleep(HOUR)
    assert since(start) == HOUR


def test_what_a_test_patches_and_puts_back_later_is_the_original(example):
    """Monkeypatch restores what it found, which was ours, after the trial."""
    example.with_tests("""
        import json, time
        @chaos.call_delay(target="json:dumps", delay="1s")
        @chaos.settings(max_trials=5)
        def test_it(mlchaos, monkeypatch):
            monkeypatch.setattr(time, "sleep", lambda seconds: None)
            monkeypatch.setattr(json, "dumps", json.dumps)
            json.dumps({})
            assert json.dumps.__code__.co_filename.endswith("calls.py")
            assert not json.dumps.__wrapped__.__code__.co_filename.endswith("calls.py")
        def test_afterwards():
            assert type(time.sleep).__name__ == "builtin_function_or_method"
            assert not hasattr(json.dumps, "__wrapped__")
    """).run(passed=2)


def flaky():
    """A dependency."""
    return "answer"


def test_a_retry_loop_with_ten_minutes_of_back_off_takes_milliseconds():
    """Injected failures and delays, and the code's own waiting, all on one clock."""
    failure = create(
        "call_failure", target="tests.test_clock:flaky", error="ConnectionError", at=range(10)
    )
    delay = create("call_delay", target="tests.test_clock:flaky", delay="5m", at=10)
    with trial(Schedule((failure, delay)), Patches(), clock="virtual") as controller:
        start, real = reading(), REAL["monotonic"]()
        for attempt in range(20):
            try:
                assert sys.modules[__name__].flaky() == "answer"
                break
            except ConnectionError:
                pause(2.0**attempt)
        assert since(start) == 1023 + 300
        assert REAL["monotonic"]() - real < 60
    assert len(controller.journal) == 11


@pytest.mark.slow
@pytest.mark.parametrize("mode", [["-p", "no:xdist"], ["-n", "2"]])
def test_the_report_says_why_the_clock_was_real(example, mode):
    """And the last line counts such tests."""
    if "-n" in mode:
        pytest.importorskip("xdist")
    project = example.with_tests("""
        import json, threading, time
        @chaos.call_delay(target="json:dumps", delay="10ms", at=0)
        def test_threads():
            done = threading.Event()
            thread = threading.Thread(target=lambda: [0 for _ in iter(done.is_set, True)], name="uploader")
            thread.start()
            json.dumps({})  # where the delay strikes
            done.set()
            thread.join()
            assert False
        @chaos.call_delay(target="json:dumps", delay="10h", at=0)
        def test_alone():
            json.dumps({})
    """)
    outcome = project.run(*mode, fresh=True, failed=1, passed=1)
    outcome.has(
        "clock: real, because the thread uploader is busy",
        "(1 on the real clock, because threads or processes run beside the test)",
    )


def test_real_time_can_be_asked_for(example):
    """By the setting clock."""
    example.with_tests("""
        import time
        @chaos.settings(clock="real")
        def test_it(mlchaos):
            assert type(time.sleep).__name__ == "builtin_function_or_method"
            assert mlchaos.clock.reason == ""
    """).run(passed=1)
