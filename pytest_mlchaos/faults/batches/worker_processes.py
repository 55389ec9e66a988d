"""Handle the worker processes of torch's DataLoaders."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

from ...core.sites import Visit
from ...engine.controller import Controller

if TYPE_CHECKING:
    import torch

__all__ = ["claim_deaths", "claim_timeout", "terminate_workers", "workers_of"]


def workers_of(loader: torch.utils.data.DataLoader[Any]) -> list[Any]:
    """Return the worker processes of a DataLoader's iterator. It has none if it loads in this
    process.
    """
    return list(getattr(loader, "_workers", ()))


def claim_deaths(controller: Controller, pids: set[int]) -> None:
    """Attribute to the fault any error that a DataLoader raises because one of these processes
    died.
    """

    def is_about(error: BaseException | None) -> bool:
        while error is not None:
            if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
                return bool(pids & set(map(int, re.findall(r"\d+", str(error)))))
            error = error.__cause__
        return False

    controller.claims.append(is_about)


def claim_timeout(controller: Controller) -> None:
    """Attribute to the fault any error that a DataLoader raises because its timeout has passed."""
    controller.claims.append(
        lambda error: isinstance(error, RuntimeError) and "DataLoader timed out" in str(error)
    )


def terminate_workers(controller: Controller, visit: Visit) -> int:
    """Send SIGTERM to the workers of all active loaders, and return the number of workers."""
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
