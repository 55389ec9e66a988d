"""Make processes that are started afresh (spawn, forkserver, loky) part of the trial.

``multiprocessing`` sends such a process its object in a pickle. An attribute of this object arms
the process when it is unpickled: after the paths and the main module are set up, before any work.
The process opens the file in which forked processes count and report (``forks.py``), through
``/proc``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import multiprocessing
import multiprocessing.process
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.sites import SITES
from .controller import Controller, current
from .forks import Forks, ForksAddress
from .import_hooks import when_imported
from .patching import Patches

__all__ = ["Order", "arm_fresh_processes", "join_trial", "order_for", "site_modules"]

_ATTRIBUTE = "_mlchaos_arming"
_PACKAGE = __name__.partition(".")[0]
REUSED_POOLS = ("joblib.externals.loky.reusable_executor", "loky.reusable_executor")
"""The modules that keep one pool for all calls, in ``_executor``."""


def site_modules() -> list[str]:
    """Return the modules that such a process must import.

    They arm sites, or register with them.
    """
    return sorted(
        {site.arm.__module__ for site in SITES.values()}
        | {name for name in sys.modules if name.startswith(f"{_PACKAGE}.sites.")}
    )


@dataclasses.dataclass(frozen=True)
class Order:
    """Tell a new process how to take part in the trial."""

    modules: list[str]
    schedule: bytes
    forks: ForksAddress
    own: tuple[Path, ...]
    probing: bool
    inside: str


class _Arming:
    """An attribute of a process object. It arms the process in which it is unpickled."""

    def __init__(self, order: Order, arm: Callable[[Order], None]) -> None:
        self._order, self._arm = order, arm

    def __reduce__(self) -> Any:
        return self._arm, (self._order,)


def arm_fresh_processes(
    controller: Controller, patches: Patches, arm: Callable[[Order], None]
) -> None:
    """Let processes that are not forked take part, or record that no fault strikes in them.

    Args:
        controller: The trial's controller.
        patches: The trial's patches.
        arm: The function that a new process calls.
    """
    original = multiprocessing.process.BaseProcess.start

    @functools.wraps(original)
    def start(self: Any) -> None:
        method = getattr(self, "_start_method", None) or multiprocessing.get_start_method()
        if method == "fork":
            original(self)
            return
        order = order_for(controller, site_modules())
        if order is None:
            controller.started_afresh.append(method)
            original(self)
            return
        # First, so that the process is armed before its target and arguments are unpickled.
        content = dict(vars(self))
        vars(self).clear()
        vars(self).update({_ATTRIBUTE: _Arming(order, arm), **content})
        try:
            original(self)
        finally:
            with contextlib.suppress(AttributeError):
                delattr(self, _ATTRIBUTE)

    patches.set(multiprocessing.process.BaseProcess, "start", start)
    for module in REUSED_POOLS:
        end = functools.partial(_end_pool, module)
        end()
        when_imported(module, patches, functools.partial(patches.on_undo, end))


def order_for(controller: Controller, modules: list[str]) -> Order | None:
    """Return the order for a new process, or None if no fault can strike in it.

    ``modules`` are those that the process must import.
    """
    if not controller.scheduled:
        return None
    try:
        schedule = pickle.dumps(controller.schedule)
    except Exception:  # noqa: BLE001  # a predicate of the user
        return None
    controller.share()
    forks = controller.forks
    address = None if forks is None else forks.address()
    if address is None:
        return None
    return Order(
        modules,
        schedule,
        address,
        controller.own,
        controller.probing,
        controller.inside,
    )


def join_trial(order: Order, arm: Callable[[Controller, Patches], None]) -> None:
    """Take part in the trial of a parent process, in a process that was started afresh.

    The patches stay until the process ends. If anything is missing, the process runs as always. A
    process that has joined by the hook of ``start_hook.py`` does not join again.
    """
    if current() is not None:
        return
    with contextlib.suppress(Exception):
        for name in order.modules:
            importlib.import_module(name)
        schedule = pickle.loads(order.schedule)  # our parent process made these bytes
        forks = Forks.at(order.forks)
        if forks is None:
            return
        controller = Controller(schedule, probing=order.probing, own=order.own)
        controller.forks, controller.inside = forks, order.inside
        controller.supervised = 1
        if controller.born():
            arm(controller, Patches())
            controller.activate()


def _end_pool(module: str) -> None:
    """End a pool that outlives its call: its workers belong to the trial that started them."""
    pool = getattr(sys.modules.get(module), "_executor", None)
    if pool is not None:
        with contextlib.suppress(Exception):
            pool.shutdown(wait=True, kill_workers=True)
