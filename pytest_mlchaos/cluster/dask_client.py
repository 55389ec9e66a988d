"""Run the workers on a cluster of Dask: one task at a time each.

Dask does not copy the project. Its directory must have the same path on all workers, for example on
a shared disk.
"""

from __future__ import annotations

import contextlib
import os
import sys
from concurrent.futures import Future
from typing import Any

from .allocation import Share
from .engine import ClusterError, Done, Session
from .futures import FuturesEngine
from .warm_worker import WarmWorker

__all__ = ["DaskEngine"]

CONNECT_SECONDS = 30
"""The time that the scheduler has to answer."""
_workers: dict[str, WarmWorker] = {}
"""The warm workers of one process of Dask, by their names."""


def _run(name: str, session: Session, share: Share) -> Done:
    """Run a share in a process of Dask."""
    if not os.path.isdir(session.project):
        raise FileNotFoundError(f"{session.project} is not on this worker. Use a shared disk")
    worker = _workers.setdefault(name, WarmWorker(session))
    try:
        return worker.run(name, share)
    except BaseException:
        _workers.pop(name, worker).stop()
        raise


def _cancel(name: str) -> None:
    """End a running share. Each process of Dask calls this beside its tasks."""
    if name in _workers:
        _workers[name].cancel()


def _stop(names: list[str]) -> None:
    """End warm processes. Each process of Dask calls this beside its tasks."""
    found = [worker for name in names if (worker := _workers.pop(name, None)) is not None]
    for worker in found:
        worker.hang_up()
    for worker in found:
        worker.stop()


class DaskEngine(FuturesEngine):
    """Each worker is a name under which Dask runs one task at a time, in any of its processes.

    Args:
        session: The session.
        address: The address of the scheduler. None for ``DASK_SCHEDULER_ADDRESS``.
    """

    def __init__(self, session: Session, address: str | None = None) -> None:
        super().__init__(session)
        self._address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
        self._client: Any = None

    def start(self, workers: int) -> None:
        """Connect to the scheduler."""
        import distributed

        if self._address is None:
            raise ClusterError("give the scheduler: --address=HOST:PORT or DASK_SCHEDULER_ADDRESS")
        try:
            client: Any = distributed.Client
            self._client = client(self._address, timeout=CONNECT_SECONDS, set_as_default=False)
            versions = self._client.get_versions()["workers"]
        except (OSError, ValueError) as error:
            raise ClusterError(f"no cluster answers at {self._address}: {error}") from None
        ours = ".".join(map(str, sys.version_info))
        theirs = {one["host"]["python"] for one in versions.values()} - {ours}
        if theirs:
            raise ClusterError(f"workers run Python {min(theirs)}, and this is Python {ours}")
        super().start(workers)

    def _start_worker(self, worker: str) -> Future[None]:
        ready: Future[None] = Future()
        ready.set_result(None)
        return ready

    def _run(self, worker: str, share: Share) -> Future[Done]:
        future: Future[Done] = Future()
        task = self._client.submit(_run, worker, self.session, share, pure=False)
        task.add_done_callback(lambda done: _copy(done, future))
        return future

    def cancel(self, worker: str) -> None:
        """End the share of a worker."""
        self._client.run(_cancel, worker, on_error="ignore")

    def _end_worker(self, worker: str) -> None:
        """Do nothing: the process has ended its warm process, or has died with it."""

    def stop(self) -> None:
        """End all warm processes, and leave the cluster."""
        if self._client is not None:
            client, self._client = self._client, None
            with contextlib.suppress(OSError, TimeoutError):
                client.run(_stop, sorted(self._alive), on_error="ignore")
            client.close()


def _copy(task: Any, future: Future[Done]) -> None:
    """Let a future end as a task of Dask has. It runs in a thread of Dask."""
    error = task.exception() if task.status == "error" else None
    if task.status == "finished":
        future.set_result(task.result())
    else:
        future.set_exception(error or RuntimeError(f"the task was {task.status}"))
