"""A trial: one execution of a test body under one schedule, with everything patched before and restored after."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import multiprocessing
import multiprocessing.process
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..core.clock import RealClock, VirtualClock
from ..core.interrupts import count_open, leave, uninterruptible
from ..core.schedule import Schedule
from ..core.sites import SITES, Key, name_of
from ..errors import CrashNotRestarted, CrashSwallowed, Interrupted, SimulatedCrash
from . import randomness, virtual_time
from .continuous_faults import activate_continuous_faults
from .controller import Controller
from .error_origin import describe_swallower
from .patching import Patches
from .process_state import ProcessState
from .watchdog import time_limit

__all__ = ["arm", "trial"]


def _keys(schedule: Schedule, everything: bool) -> Iterable[Key]:
    """What to watch: the schedule's sites, and steps (``everything``: all sites whose package is loaded)."""
    keys: dict[Key, None] = {fault.key: None for fault in schedule.faults}
    for name, site in SITES.items():
        if (site.always or everything) and site.needs in sys.modules:
            keys[name] = None
    return keys


def arm(controller: Controller, patches: Patches, *, everything: bool) -> None:
    """Make visits happen: of the sites that the schedule names (``everything``: of all)."""
    with patches.together():
        for key in _keys(controller.schedule, everything):
            site = SITES.get(name_of(key))
            if site is not None and (site.needs is None or importlib.util.find_spec(site.needs) is not None):
                site.arm(controller, patches, key)


def _note_fresh_processes(controller: Controller, patches: Patches) -> None:
    """Remember the start methods of processes that are not forked: nothing strikes in them."""
    original = multiprocessing.process.BaseProcess.start

    @functools.wraps(original)
    def start(self: Any) -> None:
        method = getattr(self, "_start_method", None) or multiprocessing.get_start_method()
        if method != "fork":
            controller.started_afresh.append(method)
        original(self)

    patches.set(multiprocessing.process.BaseProcess, "start", start)


@uninterruptible
def _arm_trial(controller: Controller, patches: Patches) -> Iterator[None]:
    with randomness.preserve_state(), ProcessState(), patches, controller:
        _note_fresh_processes(controller, patches)
        if isinstance(controller.clock, VirtualClock):
            virtual_time.install(controller.clock, patches)
        arm(controller, patches, everything=controller.probing)
        randomness.seed_all("trial")
        inside = count_open() + 1  # this context itself is registered behind these
        try:
            yield
        finally:
            leave(inside)  # what an interruption skipped was opened after this, and is undone before


@contextlib.contextmanager
def trial(
    schedule: Schedule,
    patches: Patches,
    *,
    clock: str = "real",
    timeout: float | None = None,
    probing: bool = False,
    own: Iterable[Path] = (),
) -> Iterator[Controller]:
    """Run the body of the ``with`` statement as a trial.

    Global random numbers start from the same state in every trial. What ends the body is judged: a broken fault is an error of
    its own, whatever the body made of it; a crash that reached the test, or that it swallowed, is a verdict.
    """
    controller = Controller(schedule, VirtualClock() if clock == "virtual" else RealClock(), probing=probing, own=own)
    with _arm_trial(controller, patches):
        try:
            with time_limit(timeout, controller), controller.resources, controller.process:
                activate_continuous_faults(controller)
                yield controller
        except SimulatedCrash as crash:
            raise CrashNotRestarted(f"{crash}, and nothing restarted it: {crash.cure}") from None
        except KeyboardInterrupt as error:
            if not controller.is_injected(error):
                raise
            raise Interrupted(
                "KeyboardInterrupt (injected by mlchaos) left the test: run the subject under mlchaos.run(train, ...)"
            ) from error
        except Exception as error:
            if controller.broken is not None and error is not controller.broken:
                raise controller.broken from error
            raise
        if controller.broken is not None:
            raise controller.broken
        if controller.crash is not None:
            raise CrashSwallowed(
                describe_swallower(controller.crash) or f"{controller.crash}, in a thread, and nothing restarted it: use mlchaos.run"
            )
