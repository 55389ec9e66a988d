"""The worker processes of torch's DataLoaders."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
from typing import Any

from ...core.sites import Visit
from ...engine.controller import Controller

__all__ = ["claim_deaths", "claim_timeout", "terminate_workers", "workers_of"]


def workers_of(loader: Any) -> list[Any]:
    """The processes behind a DataLoader's iterator; none where it loads in the process itself."""
    return list(getattr(loader, "_workers", ()))


def claim_deaths(controller: Controller, pids: set[int]) -> None:
    """What a DataLoader raises because of the death of one of these processes is the fault's doing."""

    def is_about(error: BaseException | None) -> bool:
        while error is not None:
            if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
                return bool(pids & set(map(int, re.findall(r"\d+", str(error)))))
            error = error.__cause__
        return False

    controller.claims.append(is_about)


def claim_timeout(controller: Controller) -> None:
    """What a DataLoader raises when its time-out is over is the fault's doing."""
    controller.claims.append(lambda error: isinstance(error, RuntimeError) and "DataLoader timed out" in str(error))


def terminate_workers(controller: Controller, visit: Visit) -> int:
    """Send SIGTERM to the workers of all loaders that are being iterated; gives how many there are."""
    if "torch.utils.data.dataloader" not in sys.modules:
        return 0
    from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

    loaders = [one for one in gc.get_objects() if isinstance(one, _MultiProcessingDataLoaderIter)]
    pids = {worker.pid for loader in loaders for worker in workers_of(loader) if worker.is_alive()}
    claim_deaths(controller, pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return len(pids)
