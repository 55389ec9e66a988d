"""Follow the progress of each test, and report where Ctrl-C has interrupted it.

Workers of pytest-xdist have no terminal. They send their steps, and what an interrupted test has
found, to the main process on a channel of execnet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from ..core.progress import Step
from ..reports.tally import Tally
from .progress_line import ProgressLine

if TYPE_CHECKING:
    from .live import LiveReport

__all__ = ["TestProgress", "Workers", "follow"]

SENT = "mlchaos_progress"
"""The key of ``workerinput`` for the channel on which a worker sends its steps."""
SECONDS_BETWEEN_MESSAGES = 0.2
SECONDS_FOR_CTRL_C = 1.0
"""Ctrl-C in a terminal reaches the workers as well. After this time, they are interrupted."""
SECONDS_FOR_REPORTS = 5.0
"""xdist ends workers after 10 s. A test that swallows the interruption sends no report."""
INTERRUPT = "interrupt"
"""The message that interrupts a worker."""


class TestProgress:
    """The progress of one test. It receives the steps, and their last one is kept."""

    __test__ = False  # pytest must not collect it

    def __init__(self, name: str, show: Callable[[Step], None] | None, tally: object) -> None:
        self._name = name
        self._show = show
        self._tally = tally
        self.last: Step | None = None

    def __call__(self, step: Step) -> None:
        """Keep a step, and show it."""
        self.last = step
        if self._show is not None:
            self._show(step)

    def end(self, found: list[str] | None) -> None:
        """Note that the test is over.

        ``found`` has the reports of a test that was interrupted. pytest makes no report on it. If
        there is none, say how far the test was.
        """
        if found is not None and isinstance(self._tally, Tally):
            self._tally.interrupted += found or interrupted_at(self._name, self.last)


def interrupted_at(name: str, step: Step | None) -> list[str]:
    """Return a line that says how far an interrupted test was, or no line if that is not known."""
    if step is None:
        return []
    if not step.done and step.note:
        return [f"mlchaos: {name} was interrupted {step.note}"]
    total = f"/{step.total}" if step.total else ""
    bad = f", {step.bad} {step.bad_word}" if step.bad else ""
    return [f"mlchaos: {name} was interrupted at {step.what} {step.done}{total}{bad}"]


class _SentProgress(TestProgress):
    """The progress of a test in a worker."""

    def __init__(self, nodeid: str, name: str, worker: _Worker) -> None:
        super().__init__(name, None, None)
        self._nodeid = nodeid
        self._worker = worker
        self._sent = 0.0
        worker.busy = True

    def __call__(self, step: Step) -> None:
        """Send a step, unless the last one was sent just now."""
        now, self.last = perf_counter(), step
        if now - self._sent >= SECONDS_BETWEEN_MESSAGES or step.done <= 1:
            self._sent = now
            self._worker.send(("step", self._nodeid, self._name, dataclasses.astuple(step)))

    def end(self, found: list[str] | None) -> None:
        """Send what an interrupted test has found, or that the test is over."""
        self._worker.busy = False
        if self.last is None and not found:
            return
        if found is not None:
            found = found or interrupted_at(self._name, self.last)
        self._worker.send(("end", self._nodeid, self._name, found))


class _Worker:
    """The end of a worker's channel."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.busy = False
        channel.setcallback(self._receive)

    def send(self, message: tuple[Any, ...]) -> None:
        # The main process may be gone.
        with contextlib.suppress(OSError):
            self._channel.send(message)

    def _receive(self, message: object) -> None:
        if message == INTERRUPT and self.busy:
            os.kill(os.getpid(), signal.SIGINT)


_worker: pytest.StashKey[_Worker] = pytest.StashKey()


def follow(item: pytest.Item) -> TestProgress:
    """Return the progress of a test that begins now."""
    config = item.config
    channel = getattr(config, "workerinput", {}).get(SENT)
    if channel is not None:
        if _worker not in config.stash:
            config.stash[_worker] = _Worker(channel)
        return _SentProgress(item.nodeid, item.name, config.stash[_worker])
    line = config.pluginmanager.get_plugin("mlchaos-progress")
    show = line.listener(item.name) if isinstance(line, ProgressLine) else None
    if (live := config.pluginmanager.get_plugin("mlchaos-live")) is not None:
        show = live.listener(item.nodeid, show)
    return TestProgress(item.name, show, config.pluginmanager.get_plugin("mlchaos-tally"))


@dataclasses.dataclass
class _Running:
    """A test that runs in a worker."""

    name: str
    channel: Any
    start: float
    last: Step


class Workers:
    """Show the steps of the workers, and wait for their reports after Ctrl-C."""

    def __init__(
        self, tally: Tally, line: ProgressLine | None, live: LiveReport | None = None
    ) -> None:
        self._tally = tally
        self._live = live
        self._line = line
        self._running: dict[str, _Running] = {}
        # A thread for each worker receives its messages.
        self._changed = threading.Condition()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker a channel for its steps."""
        channel = node.gateway.newchannel()

        def receive(message: tuple[str, str, str, Any] | None) -> None:
            with self._changed:
                if message is None:  # the worker has ended
                    self._running = {
                        nodeid: one
                        for nodeid, one in self._running.items()
                        if one.channel is not channel
                    }
                elif message[0] == "step":
                    self._step(channel, *message[1:])
                else:
                    self._end(*message[1:])
                self._changed.notify_all()

        channel.setcallback(receive, endmarker=None)
        node.workerinput[SENT] = channel

    def _step(self, channel: Any, nodeid: str, name: str, values: tuple[Any, ...]) -> None:
        step, now = Step(*values), perf_counter()
        one = self._running.setdefault(nodeid, _Running(name, channel, now, step))
        one.last = step
        if step.done <= 1:
            one.start = now
        if self._line is not None:
            self._line.show(name, step, one.start)
        if self._live is not None:
            self._live.step(nodeid, step)

    def _end(self, nodeid: str, name: str, found: list[str] | None) -> None:
        self._running.pop(nodeid, None)
        self._tally.interrupted += found or []

    def pytest_keyboard_interrupt(self) -> None:
        """Wait for the reports of interrupted tests. The next Ctrl-C ends the wait."""
        with self._changed:
            with contextlib.suppress(KeyboardInterrupt):
                if not self._wait(SECONDS_FOR_CTRL_C):
                    for one in self._running.values():
                        with contextlib.suppress(OSError):
                            one.channel.send(INTERRUPT)
                    self._wait(SECONDS_FOR_REPORTS)
            for one in self._running.values():
                self._tally.interrupted += interrupted_at(one.name, one.last)
            self._running.clear()

    def _wait(self, seconds: float) -> bool:
        return self._changed.wait_for(lambda: not self._running, seconds)
