"""Decide which worker runs which shards, and which shards are run again.

A worker pays for each share: it collects the tests and makes their golden runs. So the first shares
are large, and what is left is divided into smaller ones, which even out workers of unequal speed
("factoring": Hummel, Schonberg and Flynn, 1992). Everything here is a decision on numbers: it
starts nothing and reads no clock, so a simulation can use it as it is.
"""

from __future__ import annotations

import dataclasses
import math
import statistics

from ..core.shards import Shard

__all__ = ["Allocation", "Share"]

FRACTION = 0.9
"""The part of the waiting shards that one round hands out."""
SMALLEST = 0.08
"""The smallest share, as a part of what each worker would get of all shards."""
LATE = 1.0
"""A share is late if it takes this many times as long as others of at least its size.

It is then repeated by workers that would be idle, in smaller shares.
"""


@dataclasses.dataclass(frozen=True)
class Share:
    """Shards that one session of pytest runs.

    Attributes:
        shards: Their numbers, from 1, in rising order.
        count: The number of all shards.
        attempt: 1 for the first time that a worker gets them.
    """

    shards: tuple[int, ...]
    count: int
    attempt: int = 1

    def __str__(self) -> str:
        """Return the value of ``--mlchaos-shard``, such as ``3/100`` or ``1-4,9/100``."""
        return str(Shard(self.shards[0], self.count, self.shards[1:]))


@dataclasses.dataclass(eq=False)
class _Pool:
    """Shards that wait for a worker. ``copy_of`` is the late share that they repeat."""

    shards: list[int]
    attempt: int = 1
    copy_of: _Task | None = None


@dataclasses.dataclass(eq=False)
class _Task:
    """A share in the hands of a worker, or one that ended.

    ``uncovered`` are its shards that no copy has finished, once it has been copied.
    """

    share: Share
    worker: str
    started: float
    copy_of: _Task | None = None
    uncovered: set[int] | None = None
    copies: list[_Task] = dataclasses.field(default_factory=list)
    journal: str | None = None


class Allocation:
    """The shards of a session, and what became of them.

    Args:
        count: The number of shards.
        workers: The number of workers that were asked for.
        attempts: The largest number of workers that a shard may lose.
    """

    def __init__(self, count: int, workers: int, attempts: int = 3) -> None:
        self.count = count
        self._smallest = max(1, math.ceil(SMALLEST * count / workers))
        self._attempts = attempts
        self._round = (0, 0)
        self._pools = [_Pool(list(range(1, count + 1)))]
        self._running: dict[str, _Task] = {}
        self._roots: list[_Task] = []
        self._times: list[tuple[int, float]] = []
        self._limits: dict[int, float] = {}
        self._obsolete: list[str] = []
        self.given_up: set[int] = set()
        self.done: set[int] = set()

    @property
    def is_over(self) -> bool:
        """Return True if no shard waits or runs."""
        return not self._pools and not self._running

    def take(self, worker: str, workers: int, now: float) -> Share | None:
        """Return the next share of a worker, or None if there is nothing for it to do.

        Args:
            worker: Its name. It runs no share.
            workers: The number of workers that are alive.
            now: The time in seconds.
        """
        if not self._pools:
            self._copy_late(now)
        if not self._pools:
            return None
        pool = self._pools[0]
        size = self._size(workers)
        if pool.attempt >= self._attempts:
            size = 1  # the last attempt: a shard that ends its worker takes no other with it
        shards, pool.shards = pool.shards[:size], pool.shards[size:]
        if not pool.shards:
            self._pools.remove(pool)
        share = Share(tuple(shards), self.count, pool.attempt)
        task = _Task(share, worker, now, pool.copy_of)
        self._running[worker] = task
        if pool.copy_of is None:
            self._roots.append(task)
        else:
            pool.copy_of.copies.append(task)
        return share

    def _size(self, workers: int) -> int:
        """Return the size of the next share. It is the same for a whole round of all workers."""
        size, left = self._round
        if not left:
            waiting = sum(len(pool.shards) for pool in self._pools)
            size = max(self._smallest, math.ceil(FRACTION * waiting / max(1, workers)))
            left = max(1, workers)
        self._round = (size, left - 1)
        return size

    def finish(self, worker: str, journal: str, now: float) -> None:
        """Note that the share of a worker ended, and left this journal."""
        task = self._running.pop(worker, None)
        if task is None:
            return
        self._times.append((len(task.share.shards), now - task.started))
        self._limits.clear()
        task.journal = journal
        self._complete(task)

    def lose(self, worker: str) -> None:
        """Note that a worker died. Its share waits again, if it has not been tried too often."""
        task = self._running.pop(worker, None)
        if task is None or task.uncovered is not None:
            return  # the copies of a late share take its place
        shards = list(task.share.shards)
        if task.share.attempt >= self._attempts:
            self.given_up.update(shards)
        else:
            self._pools.append(_Pool(shards, task.share.attempt + 1, task.copy_of))

    def obsolete(self) -> list[str]:
        """Return the workers whose shares others have finished. They can stop, and are idle."""
        workers, self._obsolete = self._obsolete, []
        return workers

    def journals(self) -> list[str]:
        """Return the journals that hold each finished shard once."""
        return [journal for task in self._roots for journal in _journals(task)]

    def _complete(self, task: _Task) -> None:
        """Take a task as finished, by its own worker or by its copies."""
        self.done.update(task.share.shards)
        self.given_up.difference_update(task.share.shards)
        self._pools = [pool for pool in self._pools if not _is_below(pool.copy_of, task)]
        for worker, other in list(self._running.items()):
            if other is task or _is_below(other, task):
                del self._running[worker]
                self._obsolete.append(worker)
        late = task.copy_of
        if late is not None and late.uncovered is not None:
            late.uncovered.difference_update(task.share.shards)
            if not late.uncovered:
                self._complete(late)

    def _copy_late(self, now: float) -> None:
        """Let others repeat the share that is the latest, if there is one."""
        late = [
            task
            for task in self._running.values()
            if task.uncovered is None and now - task.started > self._limit(len(task.share.shards))
        ]
        if late:
            task = min(late, key=lambda one: one.started)
            task.uncovered = set(task.share.shards)
            self._pools.append(_Pool(list(task.share.shards), task.share.attempt, task))

    def _limit(self, size: int) -> float:
        """Return the time after which a share of this size is late."""
        if size not in self._limits:
            times = [seconds for others, seconds in self._times if others >= size]
            self._limits[size] = LATE * statistics.median(times) if times else math.inf
        return self._limits[size]


def _is_below(task: _Task | None, top: _Task) -> bool:
    """Return True if a task is a copy of another one, or of one of its copies."""
    while task is not None:
        if task is top:
            return True
        task = task.copy_of
    return False


def _journals(task: _Task) -> list[str]:
    if task.journal is not None:
        return [task.journal]
    return [journal for copy in task.copies for journal in _journals(copy)]
