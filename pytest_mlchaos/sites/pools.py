"""Define ``pool.task``: each task that a worker of a process pool takes.

A worker of any pool gets its tasks from a queue. The function that a worker runs is wrapped, so
that each task is a visit in the worker's process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..core.sites import Key, site
from ..engine.controller import Controller, current
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches
from ..engine.stand_ins import Proxy

__all__: list[str] = []

SITE = "pool.task"
WORKERS = (
    ("multiprocessing.pool", "worker"),
    ("multiprocess.pool", "worker"),
    ("concurrent.futures.process", "_process_worker"),
    ("loky.process_executor", "_process_worker"),
    ("joblib.externals.loky.process_executor", "_process_worker"),
)
"""The modules of pools, and the function that a worker runs. Its first argument is the queue."""
DEATH_TEXTS = ("abruptly died", "terminated abruptly", "was terminated", "unexpectedly")
"""Parts of the error that a pool raises if a worker has died."""


@site(SITE, "A task, about to run in a worker of a process pool. Payload: its worker's queue.")
def arm(controller: Controller, patches: Patches, key: Key) -> None:
    """Make each task a visit, in pools of ``multiprocessing``, executors, and their kind."""
    for module, name in WORKERS:
        when_imported(module, patches, functools.partial(_wrap, module, name, patches))
    controller.claims.append(functools.partial(_is_about_death, controller))


def _wrap(module: str, name: str, patches: Patches) -> None:
    import sys

    loaded = sys.modules[module]
    original: Callable[..., Any] = getattr(loaded, name)

    @functools.wraps(original)
    def worker(queue: Any, *args: Any, **kwargs: Any) -> Any:
        return original(_Tasks(queue), *args, **kwargs)

    patches.set(loaded, name, worker)


class _Tasks(Proxy):
    """The queue from which a worker takes its tasks."""

    __slots__ = ()

    def get(self, *args: object, **kwargs: object) -> Any:
        """Take the next task, which is a visit. None ends the worker."""
        task = self._mlchaos.get(*args, **kwargs)
        controller = current()
        if task is not None and controller is not None:
            controller.visit(SITE, self._mlchaos)
        return task


def _is_about_death(controller: Controller, error: BaseException | None) -> bool:
    """Return True for an error that a pool raises because a fault has killed its worker."""
    controller.hear()
    if not any(one.total and one.fault.key == SITE for one in controller.scheduled):
        return False
    while error is not None:
        words = f"{type(error).__name__}: {error}"
        if "BrokenProcessPool" in words or "TerminatedWorker" in words:
            return True
        if any(text in words for text in DEATH_TEXTS):
            return True
        error = error.__cause__
    return False
