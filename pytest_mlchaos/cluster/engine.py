"""The interface of an engine, and the loop that hands it shares.

An engine starts workers and carries shares to them. It makes no decision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from ..errors import MlchaosError
from .allocation import Allocation, Share

__all__ = ["ClusterError", "Done", "Engine", "Event", "Gone", "Ready", "Session", "conduct"]

POLL_SECONDS = 1.0
"""The longest time between two looks for late shares."""


class ClusterError(MlchaosError):
    """The engine cannot run the session: no cluster, a different Python, a missing package."""


@dataclasses.dataclass(frozen=True)
class Session:
    """The session that the workers run together.

    Attributes:
        arguments: The arguments of pytest.
        project: The absolute path of the project's directory, which the workers get.
        folder: The directory in which pytest starts, relative to the project.
        processors: The number of processors that a worker may use.
    """

    arguments: Sequence[str]
    project: str
    folder: str = "."
    processors: int = 1


@dataclasses.dataclass(frozen=True)
class Ready:
    """A worker has started, and waits for its first share."""

    worker: str


@dataclasses.dataclass(frozen=True)
class Done:
    """A share ended.

    Attributes:
        worker: The worker that ran it. It waits for the next one.
        exit_code: The exit code of pytest, or the negative number of the signal that ended it.
        journal: The content of its journal.
        timings: The content of the timings beside the journal.
        output: The end of what pytest wrote.
    """

    worker: str
    exit_code: int
    journal: bytes = b""
    timings: bytes = b""
    output: str = ""


@dataclasses.dataclass(frozen=True)
class Gone:
    """A worker died. ``reason`` says what is known about it."""

    worker: str
    reason: str = ""


Event = Ready | Done | Gone


class Engine(Protocol):
    """Starts workers and carries shares to them."""

    def start(self, workers: int) -> None:
        """Begin to start the workers. Each is ``Ready`` later.

        Raises:
            ClusterError: The cluster cannot be reached, or does not fit.
        """

    def workers(self) -> int:
        """Return the number of workers that are there or starting."""

    def give(self, worker: str, share: Share) -> None:
        """Let an idle worker run a share."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """Return what has happened. Wait up to ``seconds`` for the first event.

        An engine replaces a dead worker itself, as far as it can: the new one has a new name.

        Raises:
            ClusterError: The cluster went away, or no worker is left.
        """

    def cancel(self, worker: str) -> None:
        """End the share of a worker. Its result is not wanted. ``Done`` follows all the same."""

    def stop(self) -> None:
        """End everything. No process is left. Can be called twice, and without ``start``."""

    def now(self) -> float:
        """Return the time in seconds, on any clock that does not go back."""


def conduct(
    engine: Engine,
    allocation: Allocation,
    keep: Callable[[Done, Share], str | None],
    watch: Callable[[int, Event | None], None] = lambda workers, event: None,
) -> None:
    """Hand out shares until none is left.

    Args:
        engine: The engine, which was started.
        allocation: The shards.
        keep: Stores the journal of a share and returns its name, or None if the share must be run
            again.
        watch: Called with the number of workers for each event.

    Raises:
        ClusterError: The cluster went away. The shares that had ended are in ``allocation``.
    """
    idle: set[str] = set()
    running: dict[str, Share] = {}
    while not allocation.is_over:
        for worker in sorted(idle):
            share = allocation.take(worker, engine.workers(), engine.now())
            if share is None:
                break
            idle.remove(worker)
            running[worker] = share
            engine.give(worker, share)
        for event in engine.wait(POLL_SECONDS):
            worker, share = event.worker, running.pop(event.worker, None)
            if isinstance(event, Gone):
                idle.discard(worker)
                allocation.lose(worker)
            else:
                idle.add(worker)
                if isinstance(event, Done) and share is not None:
                    kept = keep(event, share)
                    if kept is None:
                        allocation.lose(worker)
                    else:
                        allocation.finish(worker, kept, engine.now())
            watch(len(idle) + len(running), event)
        for worker in allocation.obsolete():
            # Its ``Done`` will make it idle. The share is not in ``running`` then, so it is dropped.
            if running.pop(worker, None) is not None:
                engine.cancel(worker)
        watch(len(idle) + len(running), None)
