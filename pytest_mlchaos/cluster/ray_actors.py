"""Run the workers on a cluster of Ray: one actor each.

Ray copies the project's directory to the nodes (``working_dir`` of its runtime environment, without
the files that ``.gitignore`` names). pytest, this package and the libraries of the tests must be
installed there.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import socket
import sys
from concurrent.futures import Future
from typing import Any

from .allocation import Share
from .engine import ClusterError, Done, Session
from .futures import FuturesEngine
from .warm_process import GRACE_SECONDS
from .warm_worker import WarmWorker

__all__ = ["RayEngine"]

FORWARDED = ("MLCHAOS_", "PYTEST_", "HYPOTHESIS_")
"""The prefixes of the variables that the workers get from here."""
CHECK_SECONDS = 5.0
"""The time that a cluster has to accept a connection."""


class _Actor:
    """Runs in a process of Ray. The project is its current directory."""

    def __init__(self, session: Session) -> None:
        self._worker = WarmWorker(dataclasses.replace(session, project=os.getcwd()))

    def ready(self) -> None:
        """Answer that this process has started."""

    def run(self, name: str, share: Share) -> Done:
        """Run a share."""
        return self._worker.run(name, share)

    def cancel(self) -> None:
        """End the running share."""
        self._worker.cancel()

    def stop(self) -> None:
        """End the running share and the warm process."""
        self._worker.stop()


class RayEngine(FuturesEngine):
    """Each worker is an actor with one CPU.

    Args:
        session: The session.
        address: The address of the cluster. None for ``RAY_ADDRESS``, a cluster that runs on this
            machine, or a new one that ends with the session.
    """

    def __init__(self, session: Session, address: str | None = None) -> None:
        super().__init__(session)
        self._address = address
        self._ray: Any = None
        self._actors: dict[str, Any] = {}

    def start(self, workers: int) -> None:
        """Connect to the cluster, and begin to start the workers."""
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._ray = ray
        _check_reachable(self._address or os.environ.get("RAY_ADDRESS", ""))
        environment = {
            name: value for name, value in os.environ.items() if name.startswith(FORWARDED)
        }
        options: dict[str, Any] = {
            "runtime_env": {"working_dir": self.session.project, "env_vars": environment},
            "log_to_driver": False,
            "logging_level": "ERROR",
            "namespace": "pytest-mlchaos",
        }
        try:
            try:
                ray.init(address=self._address or "auto", **options)
            except ConnectionError:
                if self._address or os.environ.get("RAY_ADDRESS"):
                    raise
                ray.init(
                    address="local",
                    num_cpus=workers,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    **options,
                )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ClusterError(_in_one_line(error)) from None
        super().start(workers)

    def _start_worker(self, worker: str) -> Future[None]:
        # Two threads: ``cancel`` and ``stop`` are called while ``run`` waits.
        kind = self._ray.remote(num_cpus=1, max_concurrency=2)(_Actor)
        actor = self._actors[worker] = kind.remote(self.session)
        future: Future[None] = actor.ready.remote().future()
        return future

    def _run(self, worker: str, share: Share) -> Future[Done]:
        future: Future[Done] = self._actors[worker].run.remote(worker, share).future()
        return future

    def cancel(self, worker: str) -> None:
        """End the share of a worker."""
        self._actors[worker].cancel.remote()

    def _end_worker(self, worker: str) -> None:
        actor = self._actors.pop(worker, None)
        if actor is not None:
            actor.stop.remote()  # Ray ends the actor when nothing refers to it

    def stop(self) -> None:
        """End all actors, and leave the cluster."""
        if self._ray is None:
            return
        if self._ray.is_initialized():
            # An actor that waits for a place on the cluster would not answer.
            started = [name for name in self._actors if name not in self._starting]
            ending = [self._actors[name].stop.remote() for name in started]
            if ending:
                self._ray.wait(ending, num_returns=len(ending), timeout=2 * GRACE_SECONDS)
            self._ray.shutdown()
        self._actors.clear()


def _check_reachable(address: str) -> None:
    """Raise ClusterError if nothing listens there. Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "//" in address:
        return  # "auto", "local", or the address of a client
    try:
        socket.create_connection((host, int(port)), CHECK_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"no cluster answers at {address}: {error.strerror or error}") from None


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if "ersion mismatch" in text or "was started with" in text:
        ours = f"Python {platform.python_version()} ({sys.executable})"
        return f"the cluster has a different version of Python or Ray than {ours}: {text}"
    return text or type(error).__name__
