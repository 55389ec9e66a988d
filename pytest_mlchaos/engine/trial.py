"""Run a trial: one execution of a test body under one schedule."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..core.clock import RealClock, VirtualClock
from ..core.interrupts import count_open, leave, uninterruptible
from ..core.schedule import Schedule
from ..core.sites import SITES, Key, key_of, name_of
from ..errors import CrashNotRestarted, CrashSwallowed, Interrupted, SimulatedCrash
from . import randomness, virtual_time
from .call_times import CallTimes
from .continuous_faults import activate_continuous_faults
from .controller import Controller
from .error_origin import describe_swallower
from .fresh_starts import arm_fresh_processes, join_trial
from .own_ranks import follow_ranks, join_commands
from .patching import Patches
from .process_state import ProcessState
from .watchdog import time_limit

__all__ = ["arm", "arm_ranks", "trial"]


def _keys(schedule: Schedule, *, everything: bool, surveyed: bool) -> Iterable[Key]:
    """Return the keys to watch: the schedule's sites and steps.

    For ``everything``, these are all sites of imported packages. If the trial is surveyed, these
    are all sites, also those that need no package.
    """
    keys: dict[Key, None] = {fault.key: None for fault in schedule.faults}
    for name, site in SITES.items():
        wanted = site.always or everything or surveyed
        if (wanted and site.needs in sys.modules) or (surveyed and site.needs is None):
            keys[name] = None
    return keys


def arm(
    controller: Controller, patches: Patches, *, everything: bool, surveyed: bool = False
) -> None:
    """Arm the sites that the schedule names, or all sites for ``everything``."""
    with patches.together():
        for key in _keys(controller.schedule, everything=everything, surveyed=surveyed):
            site = SITES.get(name_of(key))
            if site is not None and (
                site.needs is None or importlib.util.find_spec(site.needs) is not None
            ):
                site.arm(controller, patches, key)
                controller.armed.add(key)


def arm_fresh(order: Any) -> None:
    """Arm the sites in a process that was started afresh. The process calls it by its name."""

    def arm_all(controller: Controller, patches: Patches) -> None:
        follow_ranks(controller, patches)
        arm(controller, patches, everything=False)

    join_trial(order, arm_all)


def arm_ranks(controller: Controller, patches: Patches) -> None:
    """Let ranks that the subject starts by itself take part in the trial."""
    follow_ranks(controller, patches)
    join_commands(controller, patches)


def _count_calls(
    controller: Controller, patches: Patches, targets: Iterable[str], armed: Iterable[Key]
) -> None:
    """Make a visit of each call of these targets, so that they are counted. A site is one, too."""
    for target in dict.fromkeys(targets):
        key = key_of(target)
        controller.counted[target] = 0
        controller.call_times[key] = CallTimes(controller.clock.now)
        if key not in armed:
            SITES[name_of(key)].arm(controller, patches, key)


@uninterruptible
def _arm_trial(
    controller: Controller, patches: Patches, *, surveyed: bool, counted: Iterable[str]
) -> Iterator[None]:
    with randomness.preserve_state(), ProcessState(), patches, controller:
        arm_fresh_processes(controller, patches, arm_fresh)
        arm_ranks(controller, patches)
        if isinstance(controller.clock, VirtualClock):
            virtual_time.install(controller.clock, patches)
        arm(controller, patches, everything=controller.probing, surveyed=surveyed)
        armed = _keys(controller.schedule, everything=controller.probing, surveyed=surveyed)
        _count_calls(controller, patches, counted, armed)
        randomness.seed_all("trial")
        inside = count_open() + 1  # this context itself is registered after these
        try:
            yield
        finally:
            # Contexts that an interruption skipped were opened after this one, and are closed
            # before it.
            leave(inside)


@contextlib.contextmanager
def trial(
    schedule: Schedule,
    patches: Patches,
    *,
    clock: str = "real",
    timeout: float | None = None,
    probing: bool = False,
    surveyed: bool = False,
    own: Iterable[Path] = (),
    counted: Iterable[str] = (),
) -> Iterator[Controller]:
    """Run the body of the ``with`` statement as a trial.

    Global random numbers start from the same state in each trial. At the end, a fault with a bug is
    an error of its own, even if the body caught it. A crash that reached the test, or that the body
    caught, is a verdict.

    Args:
        schedule: The faults, and their visits.
        patches: The patches that the trial makes.
        clock: ``"virtual"`` or ``"real"``.
        timeout: The time limit in seconds, or None.
        probing: True to record the visits at which faults can strike, without faults.
        surveyed: True to watch all sites, not only those of the schedule.
        own: The test's own directories.
        counted: The targets whose calls are counted.

    Raises:
        MlchaosError: A fault has a bug, or a verdict on the test.
    """
    controller = Controller(
        schedule, VirtualClock() if clock == "virtual" else RealClock(), probing=probing, own=own
    )
    with _arm_trial(controller, patches, surveyed=surveyed, counted=counted):
        try:
            with time_limit(timeout, controller), controller.resources, controller.process:
                activate_continuous_faults(controller)
                controller.changed()
                try:
                    yield controller
                finally:
                    controller.changed()
        except SimulatedCrash as crash:
            raise CrashNotRestarted(f"{crash}, and nothing restarted it: {crash.cure}") from None
        except KeyboardInterrupt as error:
            if not controller.is_injected(error):
                raise
            raise Interrupted(
                "KeyboardInterrupt (injected by mlchaos) left the test: run the subject under "
                "mlchaos.run(train, ...)"
            ) from error
        except Exception as error:
            if controller.broken is not None and error is not controller.broken:
                raise controller.broken from error
            raise
        if controller.broken is not None:
            raise controller.broken
        if controller.crash is not None:
            raise CrashSwallowed(
                describe_swallower(controller.crash)
                or f"{controller.crash}, in a thread, and nothing restarted it: use mlchaos.run"
            )
