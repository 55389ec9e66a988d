"""Ctrl-C at any moment: nothing stays patched, and the interruption is not lost. ``nox -s
interrupts`` sends many more of them.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import shutil
import signal
import sys
import threading

import pytest

import pytest_mlchaos
from pytest_mlchaos import faults, sites
from pytest_mlchaos.core import interrupts
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.interrupts import (
    Uninterruptible,
    count_open,
    deferred,
    handle,
    handler,
    leave,
    register_open,
    uninterruptible,
)
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.crashes.run import collect_garbage
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.engine.watchdog import time_limit
from pytest_mlchaos.errors import TrialTimeout
from pytest_mlchaos.runs.workdirs import WorkDirs
from tests.interrupts.state import changed, state

faults.load()
sites.load()
LOOPS = ("<listcomp>", "<dictcomp>", "_take", "<lambda>", "<genexpr>")
"""They look at tens of thousands of names: no line of theirs is traced."""
HOME = os.path.dirname(pytest_mlchaos.__file__)
WATCHED = (
    "time",
    "json",
    "os",
    "io",
    "builtins",
    "threading",
    "asyncio",
    "selectors",
    "subprocess",
    "multiprocessing.process",
)


@pytest.fixture(autouse=True)
def ctrl_c():
    """Python's own handler: a shell's background job ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    """Send SIGINT like Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


# -- at any line -----------------------------------------------------------------------------------


def one_test():
    """Run the plugin's steps for a test with an empty body."""
    patches = Patches()
    try:
        with trial(
            Schedule((create("call_failure", target="json:dumps", at=3),)),
            patches,
            clock="virtual",
            timeout=60.0,
        ):
            pass
    finally:
        try:
            leave(0, patches.undo)
        except BaseException:
            leave(0, patches.undo)
            raise


class Moments:
    """Sends SIGINT at some of the lines, calls and returns in the package's own code, each twice;
    ``total``: how many there are.
    """

    def __init__(self, *at):
        self._at = set(at)
        self._seen = collections.Counter()
        self.total = 0

    def __call__(self, frame, event, arg):
        """Count a line; the interrupt is raised there."""
        code = frame.f_code
        if not code.co_filename.startswith(HOME) or (code.co_name in LOOPS and event != "call"):
            return None
        place = code, frame.f_lineno, event
        self._seen[place] += 1
        if self._seen[place] > 2:
            return self
        self.total += 1
        if self.total in self._at:
            interrupt()
        return None if code.co_name in LOOPS else self

    def interrupted(self, run):
        """Run something; whether it was interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            run()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


def test_an_interrupt_at_any_line_leaves_nothing_patched():
    """In each function that arms or disarms, its very first instruction included."""
    one_test()
    whole = Moments()
    assert not whole.interrupted(one_test)
    before = state(WATCHED)
    for at in range(1, whole.total, whole.total // 20):
        assert Moments(at).interrupted(one_test), f"the interrupt at line {at} was lost"
        assert not changed(before, state(WATCHED)), f"the interrupt at line {at} left this"


# -- what waits ------------------------------------------------------------------------------------


def test_a_signal_waits_until_the_outermost_set_up_is_done():
    """It nests, and the signal arrives once."""
    seen = []
    with pytest.raises(KeyboardInterrupt), deferred():
        with deferred():
            interrupt()
            seen.append("inner")
        interrupt()
        seen.append("outer")
    assert seen == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_a_run_is_cleaned_up_is_not_lost():
    """Python drops what is raised in a finalizer."""

    class Cycle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            interrupt()

    Cycle()
    with pytest.raises(KeyboardInterrupt):
        collect_garbage()


def test_an_interrupt_while_a_runs_copies_are_removed_is_not_lost(tmp_path, monkeypatch):
    """They are removed when the next run begins, and not in the finalizer of the last one."""
    dropped = WorkDirs((), tmp_path)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: interrupt())
    del dropped
    gc.collect()
    with pytest.raises(KeyboardInterrupt):
        WorkDirs((), tmp_path)
    monkeypatch.undo()
    kept = WorkDirs((), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert kept.roots == ()


def test_handlers_of_every_signal_wait():
    """The user's own too; SIGINT comes last, for what another handler raises must not hide it."""
    told = []

    def alarm(number, frame):
        told.append(number)
        raise ValueError("alarm")

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        with pytest.raises(KeyboardInterrupt), deferred():
            interrupt()
            signal.raise_signal(signal.SIGALRM)
            assert not told
        assert told == [signal.SIGALRM]
        assert signal.getsignal(signal.SIGALRM) is alarm
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("ignored", [signal.SIG_IGN, signal.SIG_DFL], ids=lambda one: one.name)
def test_what_is_no_handler_is_left_alone(ignored):
    """A shell's background job ignores Ctrl-C; the default of the system needs no help of Python's."""
    signal.signal(signal.SIGINT, ignored)
    with deferred():
        assert signal.getsignal(signal.SIGINT) is ignored
    assert signal.getsignal(signal.SIGINT) is ignored


def test_a_handler_that_is_set_meanwhile_is_the_one_that_is_called():
    """The time limit sets its own while a trial is armed."""
    told = []
    with deferred():
        assert handle(signal.SIGINT, lambda *_: told.append("new")) is signal.default_int_handler
        interrupt()
        assert not told
        assert handler(signal.SIGINT) is not signal.default_int_handler
    assert told == ["new"]


def test_a_time_limit_waits_and_then_cuts_off():
    """Its signal comes while something is set up in the limited code."""
    seen = []
    with (
        pytest.raises(TrialTimeout, match="took longer than 60 s"),
        time_limit(60, Controller(Schedule())),
    ):
        with deferred():
            signal.raise_signal(signal.SIGVTALRM)
            seen.append("set up")
        seen.append("never")
    assert seen == ["set up"]


def test_other_threads_defer_nothing():
    """Python calls handlers in the main thread alone."""

    def work():
        with deferred(), Uninterruptible(contextlib.nullcontext()):
            seen.append(interrupts._signals.depth)

    seen = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_that_is_forked_meanwhile_can_be_ended():
    """Its handlers are its own again."""
    with deferred():
        pid = os.fork()
        if pid == 0:
            try:
                interrupt()
            except KeyboardInterrupt:
                os._exit(7)
            os._exit(1)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7


# -- contexts --------------------------------------------------------------------------------------


@uninterruptible
def noted(seen, *, at=""):
    """A context that is interrupted while it is entered, or left."""
    if at == "enter":
        interrupt()
    seen.append("entered")
    try:
        yield
    finally:
        if at == "exit":
            interrupt()
        seen.append("left")


@pytest.mark.parametrize("at", ["enter", "exit"])
def test_a_context_is_entered_and_left_as_a_whole(at):
    """The interrupt arrives behind it, and what was entered is left."""
    seen = []
    with pytest.raises(KeyboardInterrupt), noted(seen, at=at):
        pass
    assert seen == ["entered", "left"]
    assert not count_open()


def test_what_was_skipped_is_closed_last_in_first_out():
    """All of it, though one fails."""
    seen = []

    class Failing:
        def __exit__(self, *_):
            seen.append("fails")
            raise ZeroDivisionError

    mark = count_open()
    noted(seen).__enter__()
    register_open(Failing())
    with pytest.raises(ZeroDivisionError):
        leave(mark, lambda: seen.append("undone"))
    assert seen == ["entered", "fails", "left", "undone"]
    assert count_open() == mark


def test_patches_whose_exit_was_skipped_are_undone():
    """An exception can leave ``__exit__`` at its first instruction."""
    module = type(sys)("mlchaos_interrupted")
    module.number = 3
    mark = count_open()
    Patches().__enter__().set(module, "number", 4)
    leave(mark)
    assert module.number == 3


# -- sessions --------------------------------------------------------------------------------------


def test_an_undo_that_is_interrupted_is_finished(example):
    """Ctrl-C, and a second one, while a trial is disarmed: pytest calls no hook that tears down
    after it.
    """
    project = example.with_tests("""
        import signal
        from pytest_mlchaos.engine.patching import Patches

        @chaos.flaky_storage(at=0)
        def test_it(mlchaos, tmp_path, monkeypatch):
            undo = Patches.undo
            def interrupted(self):
                Patches.undo = undo
                self._undo.insert(len(self._undo) // 2, lambda: signal.raise_signal(signal.SIGINT))
                self._undo.insert(0, lambda: signal.raise_signal(signal.SIGINT))
                undo(self)
            Patches.undo = interrupted
            try:
                (tmp_path / "x").write_text("1")
            except OSError:
                pass
    """)
    before = state(WATCHED)
    with pytest.raises(KeyboardInterrupt):
        # Pytester raises it again where pytest has ended as interrupted.
        project.run()
    assert not changed(before, state(WATCHED))


@pytest.mark.slow
def test_a_real_interrupt_is_none_of_a_fault_that_is_being_handled(example):
    """Ctrl-C in the pause before the next try ends the session. It does not count as an outcome of
    the trial.
    """
    project = example.with_tests("""
        import contextlib, signal

        @chaos.flaky_storage(at=0)
        def test_it(mlchaos, tmp_path):
            try:
                (tmp_path / "x").write_text("1")
            except OSError:
                with contextlib.ExitStack() as stack:  # it comes while a library's code runs
                    stack.callback(signal.raise_signal, signal.SIGINT)
    """)
    with pytest.raises(KeyboardInterrupt):
        project.run()
