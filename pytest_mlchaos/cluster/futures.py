"""The part that all engines share: each worker runs one share at a time, as a future."""

from __future__ import annotations

import abc
import contextlib
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from .allocation import Share
from .engine import ClusterError, Done, Event, Gone, Ready, Session

__all__ = ["FuturesEngine"]


class FuturesEngine(abc.ABC):
    """An engine whose workers answer by futures.

    A worker that fails is replaced, up to ``MAX_REPLACEMENTS`` times per worker.

    Args:
        session: The session.
    """

    MAX_REPLACEMENTS = 3
    START_SECONDS = 300.0
    """The time limit for the start of a worker, if none is there. A cluster may grow first."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._futures: dict[Future[Any], str] = {}
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._number = 0
        self._spare = 0
        self._alive: set[str] = set()
        self._starting: set[str] = set()
        self._asked = 0.0
        self._last_reason = ""

    # -- for the engines -----------------------------------------------------------------------

    @abc.abstractmethod
    def _start_worker(self, worker: str) -> Future[None]:
        """Begin to start a worker. The future ends when it is ready."""

    @abc.abstractmethod
    def _run(self, worker: str, share: Share) -> Future[Done]:
        """Let a worker run a share."""

    @abc.abstractmethod
    def _end_worker(self, worker: str) -> None:
        """End a worker and its share."""

    # -- the interface -------------------------------------------------------------------------

    def start(self, workers: int) -> None:
        """Begin to start the workers."""
        self._spare = self.MAX_REPLACEMENTS * workers
        for _ in range(workers):
            self._add_worker()

    def _add_worker(self) -> None:
        self._number += 1
        worker = f"worker {self._number}"
        self._alive.add(worker)
        self._starting.add(worker)
        self._asked = self.now()
        self._watch(_started(lambda: self._start_worker(worker)), worker)

    def _watch(self, future: Future[Any], worker: str) -> None:
        self._futures[future] = worker
        future.add_done_callback(self._ended.put)  # in any thread, or at once

    def give(self, worker: str, share: Share) -> None:
        """Let an idle worker run a share."""
        self._watch(_started(lambda: self._run(worker, share)), worker)

    def workers(self) -> int:
        """Return the number of workers that are there or starting."""
        return len(self._alive)

    def wait(self, seconds: float) -> Sequence[Event]:
        """Return what has happened."""
        if not self._alive:
            raise ClusterError(f"no worker is left. The last one: {self._last_reason}")
        ended = []
        with contextlib.suppress(queue.Empty):
            ended.append(self._ended.get(timeout=seconds))
            while True:
                ended.append(self._ended.get_nowait())
        events = [event for future in ended if (event := self._event(future)) is not None]
        is_idle = self._alive == self._starting
        if is_idle and self.now() - self._asked > self.START_SECONDS:
            raise ClusterError(f"no worker has started within {self.START_SECONDS:.0f} s")
        return events

    def _event(self, future: Future[Any]) -> Event | None:
        worker = self._futures.pop(future)
        self._starting.discard(worker)
        error = future.exception()
        if error is None:
            found = future.result()
            return found if isinstance(found, Done) else Ready(worker)
        self._alive.discard(worker)
        self._end_worker(worker)
        self._last_reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if self._spare:
            self._spare -= 1
            self._add_worker()
        return Gone(worker, self._last_reason)

    @abc.abstractmethod
    def cancel(self, worker: str) -> None:
        """End the share of a worker."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End everything."""

    def now(self) -> float:
        """Return the time in seconds."""
        return time.monotonic()


def _started(start: Callable[[], Future[Any]]) -> Future[Any]:
    """Return a future, which has failed already if it could not be started."""
    try:
        return start()
    except Exception as error:  # noqa: BLE001  # the library of a cluster raises its own
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed
