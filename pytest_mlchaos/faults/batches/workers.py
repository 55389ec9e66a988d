"""Define faults of DataLoader workers."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from ...core.clients import Client, WorkerEnd
from ...core.faults import Fault, is_drawn, register
from ...core.interrupts import catch_up
from ...core.sites import Key, Visit
from ...core.validation import format_value, parse_duration
from ...engine.controller import current
from ...engine.error_origin import mark
from ...engine.hang import hang
from ...errors import BadArgument, FaultError, PayloadMismatch
from .worker_processes import claim_deaths, claim_timeout, workers_of

__all__ = ["WorkerDeath"]
LAYER = "The process"

_KILL_TIMEOUT_SECONDS = 5.0
"""The time that a process gets to die of SIGKILL."""
_sleep, _now = time.sleep, time.monotonic


@register
class WorkerDeath(Fault):
    """A worker process of a DataLoader, a process pool or a server is killed, or hangs.

    For a DataLoader, ``at`` counts the batches: the worker fails when this one is about to reach
    the loop. The DataLoader notices a death by itself and raises. It notices a worker that hangs by
    its ``timeout``, and waits for ever without one.

    For a pool, ``at`` counts the tasks of all workers: the worker that takes this task fails. A
    ``ProcessPoolExecutor`` and joblib raise. A ``multiprocessing.Pool`` starts a new worker, and
    waits for ever for the result of the task that is lost.

    For a server (``mlchaos.serve(command=...)``), ``at`` counts the requests: the process that has
    this request dies before it answers. A master process such as gunicorn's starts a new worker.

    Args:
        worker: The number of the DataLoader's worker, from 0. If neither it nor ``at`` is given,
            both are searched.
        how: ``"killed"`` (by SIGKILL), or ``"hangs"`` (its main thread stops).
        of: ``"loader"`` or ``"pool"`` (``multiprocessing.Pool``, ``ProcessPoolExecutor``, joblib,
            ``datasets.map(num_proc=)``), or ``"server"``. If the visits are searched and it is not
            given, each is tried. If not, it is ``"loader"``.
        after: For a server, the time from when the process has the whole request: seconds, or
            ``"50ms"``. If it answers before, the fault does not strike. With 0, it dies before it
            has the last byte.

    Imitates: the kernel's OOM killer, a crash in a decoder, shared memory that ran out (killed); a
    storage mount that blocks, a lock that was held at the fork (hangs).

    Fidelity: the process is real, and so is its death. Batches that it had loaded ahead are still
    returned if the loop goes on. A worker that hangs is killed when its parent process ends. A
    DataLoader's worker that was spawned, not forked, is stopped as a whole (SIGSTOP): a batch of it
    that is being sent is then never complete, and the loader's ``timeout`` does not end the wait
    for it. Which worker of a pool takes a task depends on the system. The process of a server is
    the one that has the connection (Linux), also if a different one computes the answer.

    Source: https://docs.pytorch.org/docs/stable/data.html#multi-process-data-loading

    Example: ``@chaos.worker_death(worker=0, at=3)``
    """

    site = "data.batch"
    random = False
    strikes_processes = True
    searchable = ("worker",)
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"of": ("loader", "pool", "server")}
    worker: int = 0
    how: Literal["killed", "hangs"] = "killed"
    of: Literal["loader", "pool", "server"] = "loader"
    after: Any = 0.0

    @property
    def key(self) -> Key:
        """Count batches, the tasks of pools, or requests."""
        return {"pool": "pool.task", "server": "serve.request"}.get(self.of, self.site)

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.worker) and self.worker < 0:
            raise BadArgument(
                f"worker_death: worker must be the number of a worker (0, 1, ...), got "
                f"{format_value(self.worker)}"
            )
        if not is_drawn(self.after):
            object.__setattr__(self, "after", parse_duration(self.after, f"{self.name}: after"))

    def possible(self, visit: Visit) -> bool:
        """Return False for a request that no process of a server has."""
        return self.of != "server" or _remote_client(visit) is not None

    def probe(self, visit: Visit) -> None:
        """Report that any worker of the loader can be struck."""
        if self.of == "loader":
            visit.measure(worker=len(workers_of(visit.attributes.get("loader"))))

    def apply(self, visit: Visit) -> None:
        """Kill or stop the worker once the batch has arrived, or before the task runs."""
        if self.of == "server":
            self._end_server_worker(visit)
            return
        if self.of == "pool":
            visit.note(how=self.how)
            visit.defer(_kill_this_process if self.how == "killed" else _hang_for_ever)
            return
        loader = visit.attributes.get("loader")
        workers = workers_of(loader)
        if self.worker >= len(workers):
            of = (
                "a DataLoader in this process alone (num_workers=0)"
                if loader is not None
                else "an iterable that is not a torch DataLoader"
            )
            has = f"a DataLoader with {len(workers)} workers" if workers else of
            raise PayloadMismatch(
                f"worker_death: found no worker {self.worker}: the batch "
                f"({type(visit.payload).__name__}) comes from {has}"
            )
        controller = current()
        if controller is None:
            raise FaultError("worker_death needs a trial, because a visit by hand has no loader")
        pid = workers[self.worker].pid
        claim_deaths(controller, {pid})
        visit.note(worker=self.worker, workers=len(workers), how=self.how)
        if self.how == "killed":
            visit.defer(lambda: _kill(pid))
        else:
            claim_timeout(controller)
            visit.keep_until_exit(_stop_process(pid))

    def _end_server_worker(self, visit: Visit) -> None:
        visit.skip()
        client = _remote_client(visit)
        if client is None:
            raise PayloadMismatch(
                "worker_death: of='server' needs a server process: "
                "mlchaos.serve(command=[...], url=...)"
            )
        visit.note(how=self.how)
        number = signal.SIGKILL if self.how == "killed" else signal.SIGSTOP
        client.ends = WorkerEnd(int(number), self.after, visit.record_injection)


def _remote_client(visit: Visit) -> Client | None:
    client = visit.attributes.get("client")
    return client if isinstance(client, Client) and client.remote else None


def _kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang_for_ever() -> None:
    while True:
        _sleep(3600)


def _kill(pid: int) -> None:
    """Kill a worker and wait for its death, so that the error of torch's SIGCHLD handler is raised
    here.
    """
    try:
        os.kill(pid, signal.SIGKILL)
        until = _now() + _KILL_TIMEOUT_SECONDS
        while (
            _now() < until
            and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            _sleep(0.001)
        _sleep(0)
        catch_up(signal.SIGCHLD)
    except (ProcessLookupError, ChildProcessError):
        return  # it has ended by itself
    except RuntimeError as error:
        mark(error)
        raise


@contextlib.contextmanager
def _stop_process(pid: int) -> Iterator[None]:
    """Stop the process, and kill it at the end."""
    with contextlib.suppress(ProcessLookupError):
        hang(pid)
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):
            # Torch's handler may raise: the loader can no longer be used.
            _kill(pid)
