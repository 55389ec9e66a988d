"""One rank of a world: a process of its own, with its own controller, that tells the runner what happens as it happens."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import faulthandler
import functools
import importlib
import math
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from ...core.clock import RealClock
from ...core.journal import Strike
from ...core.sites import Key, Visit
from ...errors import BadArgument
from .. import randomness
from ..controller import Controller
from ..lanes import Lane, Plan, Tally
from ..patching import Patches
from ..trial import arm
from .process_groups import adapt
from .shipping import SameFiles, dumps
from .wire import Outbox

__all__ = ["STACK_SIGNAL", "Job", "main"]

STACK_SIGNAL = getattr(signal, "SIGRTMAX", getattr(signal, "SIGUSR2", 0)) - (2 if hasattr(signal, "SIGRTMAX") else 0)
"""Makes a rank write where it stands; one that no scheduler sends."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What the ranks of one attempt are to do. ``payload``: (subject, args), pickled; ``schedule``: (schedule, watch)."""

    ranks: int
    payload: bytes
    schedule: bytes
    port: int
    backend: str
    environment: Mapping[str, str]
    directory: str
    sys_path: Sequence[str]
    argv: Sequence[str]
    write_bytecode: bool
    files: SameFiles
    sites: Sequence[str]
    own: Sequence[Path]
    probing: bool
    attempt: int
    restarts: int
    resumed: Mapping[int, Tally]

    def environment_of(self, rank: int) -> dict[str, str]:
        """What torchrun sets, besides what the test has set."""
        ranks = str(self.ranks)
        return {
            "OMP_NUM_THREADS": "1",
            **self.environment,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "ROLE_RANK": str(rank),
            "ROLE_NAME": "default",
            "WORLD_SIZE": ranks,
            "LOCAL_WORLD_SIZE": ranks,
            "GROUP_WORLD_SIZE": "1",
            "ROLE_WORLD_SIZE": ranks,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "TORCHELASTIC_RESTART_COUNT": str(self.attempt),
            "TORCHELASTIC_MAX_RESTARTS": str(self.restarts),
            "TORCHELASTIC_RUN_ID": "mlchaos",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }


class _Clock(RealClock):
    """The real clock; to wait for ever is to hang, and the runner is told."""

    def __init__(self, send: Outbox) -> None:
        self._send = send

    def sleep(self, seconds: float) -> None:
        """Wait."""
        if math.isinf(seconds):
            self._send("hangs", self.now())
            while True:
                super().sleep(3600)
        super().sleep(seconds)


class _Controller(Controller):
    """Tells the runner of visits and strikes before they take effect: a rank that dies has told of its death."""

    def __init__(self, send: Outbox, attributes: Mapping[str, Any], *args: Any, **keywords: Any) -> None:
        self._send = send
        self.attributes = attributes
        super().__init__(*args, **keywords)

    def _opened(self, key: Key, lane: Lane) -> None:
        if not lane.plans and key != "train.step":
            return
        send, count = self._send, lane.advance

        def advance() -> int:
            number = count()
            send("visit", key, number)
            return number

        lane.advance = advance

    def _told(self, plan: Plan, strike: Strike) -> None:
        self._send("strike", plan.place, strike)

    def _probe(self, lane: Lane, visit: Visit) -> None:
        super()._probe(lane, visit)
        for plan in lane.plans:
            if plan.eligible and plan.eligible[-1] == visit.index:
                self._send("eligible", plan.place, visit.index)

    def go_on_from(self, tally: Tally) -> None:
        """Visits are counted on from the process that had this rank before."""
        for key, visit in tally.passed.items():
            lane = self._open(key)
            lane.go_on_from(visit)
            self._opened(key, lane)
            for plan in lane.plans:
                plan.go_on_from(visit, tally.struck.get(plan.place, 0))
            self._schedule(lane)

    def report(self) -> None:
        """What the runner has not been told yet."""
        self._send("passed", self.passed(), {plan.place: plan.measures for plan in self.plans if plan.measures})
        if self.broken is not None:
            self._send("broken", *_shipped_error(self.broken))


def main(job: Job, rank: int, messages: int, out: int, err: int, stacks: int) -> NoReturn:
    """Be one rank, from the fork to the exit."""
    code = 1
    try:
        send = Outbox(messages)
        _start(job, rank, out, err, stacks)
        send("hello", threading.get_ident())
        code = _run(job, rank, send)
    except SystemExit as stop:
        code = _exit_code(stop)
    except BaseException:  # noqa: BLE001  # the process ends here, and says why as every process does
        traceback.print_exc()
    finally:
        _leave(code)


def _start(job: Job, rank: int, out: int, err: int, stacks: int) -> None:
    """Make the process what torchrun would have started."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc,assignment]  # the old ones belong to the warm process
    sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc,assignment]
    faulthandler.enable(2)
    if STACK_SIGNAL:
        faulthandler.register(STACK_SIGNAL, file=stacks, all_threads=True)
    os.environ.clear()
    os.environ.update(job.environment_of(rank))
    os.chdir(job.directory)
    sys.path[:], sys.argv[:], sys.dont_write_bytecode = job.sys_path, job.argv, not job.write_bytecode
    sys.meta_path.insert(0, job.files)
    importlib.import_module("torch").set_num_threads(int(os.environ["OMP_NUM_THREADS"].partition(",")[0]))


def _stream(fd: int) -> TextIO:
    """A text stream that has written each line before the process can be killed."""
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _run(job: Job, rank: int, send: Outbox) -> int:
    for name in job.sites:
        importlib.import_module(name)
    try:
        schedule, watch = pickle.loads(job.schedule)  # the runner's own bytes
        subject, args = pickle.loads(job.payload)
    except Exception as error:  # noqa: BLE001  # whatever importing the user's modules raises
        send("unusable", f"the subject does not load in a rank's process: {type(error).__name__}: {error}")
        traceback.print_exc()
        return 1
    attributes = {"rank": rank, "world_size": job.ranks}
    controller = _Controller(send, attributes, schedule, _Clock(send), probing=job.probing, own=job.own)
    controller.go_on_from(job.resumed.get(rank, Tally()))
    with Patches() as patches, controller, controller.on_crash(functools.partial(os.kill, os.getpid(), signal.SIGKILL)):
        adapt(patches, backend=job.backend, port=job.port, joined=lambda: send("joined"))
        _tell_before_exit(controller, patches)
        arm(controller, patches, everything=job.probing)
        randomness.seed_all("rank", rank, job.attempt)
        try:
            with watch() as trained:
                _send_home(send, functools.partial(subject, *args), trained)
        except SystemExit as stop:
            send("raised", *_shipped_error(stop))
            return _exit_code(stop)
        except BaseException as error:  # noqa: BLE001  # it ends the process, as it would end any
            send("raised", *_shipped_error(error))
            _print(error)
            return 1
        finally:
            controller.report()
    return 0


def _send_home(send: Outbox, subject: Callable[[], Any], trained: Callable[[], Any]) -> None:
    value = subject()
    for what, held in (("value", value), ("parameters", trained())):
        try:
            send(what, dumps(held))
        except BadArgument as error:
            send("unsent", what, str(error))


def _shipped_error(error: BaseException) -> tuple[str, bytes | None]:
    """An exception in words, and pickled where that can be undone."""
    text = "".join(traceback.format_exception_only(error)).strip()
    try:
        data = dumps(error)
        pickle.loads(data)
    except Exception:  # noqa: BLE001  # its words have to do
        return text, None
    return text, data


def _print(error: BaseException) -> None:
    """The traceback, from the subject's own frame on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") == __name__:
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _tell_before_exit(controller: _Controller, patches: Patches) -> None:
    """Some training scripts end with ``os._exit``."""
    original, rank = os._exit, os.getpid()

    def leave(status: int) -> NoReturn:
        if os.getpid() == rank:
            controller.report()
        original(status)

    patches.set(os, "_exit", leave)


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return (stop.code or 0) & 0xFF
    print(stop.code, file=sys.stderr)  # noqa: T201  # what the interpreter does
    return 1


def _leave(code: int) -> NoReturn:
    """What the interpreter does at its end, and no more: the forked copies of others' objects are not finalised."""
    try:
        with contextlib.suppress(Exception):
            threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    finally:
        os._exit(code)
