"""Run the agent of one world, as torchrun does.

The agent forks the ranks, hosts their store, reports how they end, and leaves no process behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..core.privacy import error_text
from ..engine.world_store import world_store
from ..processes.messages import Inbox, write_message
from ..processes.process_tree import (
    adopt_orphans,
    children,
    die_with_parent,
    end_all,
    is_dying,
    reap,
)
from ..processes.shared_numbers import SharedNumbers
from . import rank
from .elastic.keeper import keep_nodes
from .links.namespaces import RankNetwork
from .links.switch import start_switch
from .orphans import Orphans
from .process_groups import search_early

__all__ = ["ENTRY", "PIPES_PER_RANK", "PREPARE", "main", "prepare"]

ENTRY = f"{__name__}:main"
"""The function that the fork server runs in an agent."""
PREPARE = f"{__name__}:prepare"
"""The function that the fork server runs after its imports."""
PIPES_PER_RANK = 4
"""The file descriptors of a rank: messages, output, errors, stacks."""


def prepare() -> None:
    """Do in the warm process what each rank would do again."""
    with contextlib.suppress(ImportError):
        search_early()


def main(fds: Sequence[int]) -> NoReturn:
    """Run a world.

    ``fds`` are the control socket, the listening socket of the store, and the pipes of each rank.
    """
    code = 1
    try:
        _Agent(*fds[:2]).run(fds[2:])
        code = 0
    finally:
        os._exit(code)


class _Agent:
    """Wait for the ranks and for the parent process. If the parent ends, end all ranks."""

    def __init__(self, control: int, listener: int) -> None:
        self._control = control
        self._listener = listener
        self._inbox = Inbox()
        self._switches: set[int] = set()
        self._ranks: dict[int, int] = {}
        self._orphans: Orphans | None = None
        self._helpers: set[int] = set()
        self._network: RankNetwork | None = None
        self._shared: list[SharedNumbers] = []
        self._now = 0.0

    def run(self, pipes: Sequence[int]) -> None:
        os.setsid()
        adopt_orphans()  # become the parent of the ranks' orphans, to be able to end them
        signal.signal(signal.SIGCHLD, lambda *_: None)
        woken, wake = os.pipe()
        for fd in (woken, wake):
            os.set_blocking(fd, False)
        job = self._inbox.wait(lambda: os.read(self._control, 1 << 20))
        if job is None:
            return
        if job.elastic is not None:
            keep_nodes(job, job.elastic, (self._control, self._listener, pipes[0]), _host_store)
            return
        self._orphans = None if job.orphan_grace is None else Orphans(job.orphan_grace)
        try:
            if job.real_links:
                job = self._make_network(job)
            if job.own_store:
                world_store.process = self._fork_store(job, pipes)
            if job.links:
                others = set(children())
                job = dataclasses.replace(job, switch=start_switch())
                self._switches = set(children()) - others
            self._helpers = set(children())
            self._fork(job, pipes)
            signal.set_wakeup_fd(wake)
            store = None if job.own_store else _host_store(self._listener, job.port)
            self._tell("started", {number: pid for pid, number in self._ranks.items()})
            self._reap()
            while self._ranks and self._listen(woken):
                self._reap()
            if world_store.process is not None and is_dying(world_store.process):
                self._tell("store ended")
            if self._orphans is not None:
                own = {*self._ranks, *self._helpers}
                self._tell("left", self._orphans.wait(own, self._reap))
            del store
        except BrokenPipeError:
            pass  # the parent process has ended
        except Exception as error:  # noqa: BLE001  # the parent process shows any error to the user
            self._tell("error", f"{error_text(error)}")
        finally:
            # From here on, they are ended on purpose.
            self._switches.clear()
            world_store.process = None
            self._now = time.monotonic()
            end_all(self._ranks, self._ended)
        with contextlib.suppress(BrokenPipeError):
            self._tell("done")

    def _make_network(self, job: rank.RankJob) -> rank.RankJob:
        """Make a network for the ranks. The store moves there, at the same port."""
        self._network = RankNetwork()
        os.dup2(self._network.listen(job.port).detach(), self._listener)
        return dataclasses.replace(
            job, environment={**job.environment, **self._network.environment}
        )

    def _fork_store(self, job: rank.RankJob, pipes: Sequence[int]) -> int:
        """Host the store in a process of its own, which a fault can end or stop."""
        agent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                die_with_parent(agent)
                for fd in {self._control, *pipes}:
                    os.close(fd)
                store = _host_store(self._listener, job.port)
                while store:
                    signal.pause()
            finally:
                os._exit(1)
        return pid

    def _fork(self, job: rank.RankJob, pipes: Sequence[int]) -> None:
        agent = os.getpid()
        self._shared = [SharedNumbers() for _ in range(job.ranks)]
        for number in range(job.ranks):
            own = pipes[number * PIPES_PER_RANK : (number + 1) * PIPES_PER_RANK]
            place = None if self._network is None else self._network.place(number)
            pid = os.fork()
            if pid == 0:
                os.setpgid(0, 0)
                die_with_parent(agent)
                for fd in {self._control, self._listener, *pipes} - set(own):
                    os.close(fd)
                if place is not None:
                    _enter(place.enter, own[2])
                rank.main(job, number, *own, shared=self._shared[number])
            self._ranks[pid] = number
            if place is not None:
                place.attach(pid)
        for fd in pipes if not job.own_store else (*pipes, self._listener):
            os.close(fd)

    def _listen(self, woken: int) -> bool:
        """Wait for an event. Return False if the world must end."""
        ready, _, _ = select.select([self._control, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
        if self._control not in ready:
            return True
        try:
            data = os.read(self._control, 1 << 16)
        except ConnectionError:
            data = b""
        for number, signum in self._inbox.feed(data):
            self._signal(number, signum)
        return bool(data)

    def _signal(self, number: int, signum: int) -> None:
        for pid, other in self._ranks.items():
            if other == number:
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if signum == signal.SIGKILL else os.kill)(pid, signum)

    def _reap(self) -> bool:
        """Collect the processes that have ended. All get one time, because none came first."""
        self._now = time.monotonic()
        return reap(self._ended)

    def _ended(self, pid: int, status: int) -> None:
        if pid in self._switches and self._ranks:
            with contextlib.suppress(BrokenPipeError):
                self._tell("error", "the switch between them has ended. Was it killed?")
        if pid == world_store.process:
            with contextlib.suppress(BrokenPipeError):
                self._tell("store ended")
        number = self._ranks.pop(pid, None)
        if number is not None:
            # The parent has ended. The next read from its socket notices that.
            with contextlib.suppress(BrokenPipeError):
                numbers = self._shared[number].read()
                code = os.waitstatus_to_exitcode(status)
                self._tell("exit", number, code, self._now, numbers)
            if self._orphans is not None:
                self._orphans.add(pid, number)
            else:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # its loader workers, if any are left

    def _tell(self, *message: object) -> None:
        write_message(self._control, message)


def _enter(enter: Callable[[], None], errors: int) -> None:
    """Enter the network of a rank, or end this process with an error."""
    try:
        enter()
    except Exception as error:  # noqa: BLE001  # the parent process shows any error to the user
        os.write(errors, f"{error_text(error)}\n".encode())
        os._exit(1)


def _host_store(listener: int, port: int) -> Any:
    """Host the store where the ranks meet.

    It lives as long as the agent, as under torchrun. It must outlive rank 0.
    """
    from torch.distributed import TCPStore

    return TCPStore(
        "127.0.0.1", port, None, True, wait_for_workers=False, master_listen_fd=listener
    )
