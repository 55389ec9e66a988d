"""Run the workers on this machine, as processes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from ..core.interrupts import deferred
from .allocation import Share
from .engine import Done, Session
from .futures import FuturesEngine
from .warm_worker import WarmWorker

__all__ = ["LocalEngine"]


class LocalEngine(FuturesEngine):
    """Each worker is a warm process of this machine. A thread waits for its share."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._threads: ThreadPoolExecutor | None = None
        self._workers: dict[str, WarmWorker] = {}

    def start(self, workers: int) -> None:
        """Begin to start the workers."""
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="mlchaos-worker")
        super().start(workers)

    def _start_worker(self, worker: str) -> Future[None]:
        self._workers[worker] = WarmWorker(self.session)
        ready: Future[None] = Future()
        ready.set_result(None)
        return ready

    def _run(self, worker: str, share: Share) -> Future[Done]:
        assert self._threads is not None
        return self._threads.submit(self._workers[worker].run, worker, share)

    def cancel(self, worker: str) -> None:
        """End the share of a worker."""
        self._workers[worker].cancel()

    def _end_worker(self, worker: str) -> None:
        self._workers[worker].hang_up()

    def stop(self) -> None:
        """End all processes."""
        with deferred():
            for worker in self._workers.values():
                worker.hang_up()  # all at once: each may take a while
            for worker in self._workers.values():
                worker.stop()
            if self._threads is not None:
                self._threads.shutdown()
