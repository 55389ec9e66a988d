"""Seed, save and restore the global random number generators of the imported libraries."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import Any

from ..core.interrupts import uninterruptible
from ..core.sites import derive_seed

__all__ = ["capture_state", "preserve_state", "seed_all", "seed_as_new_process"]

_TORCH_SEED = 67280421310721  # torch seeds each new process with it (c10's default_rng_seed_val)


def _numpy() -> Any:
    return getattr(sys.modules.get("numpy"), "random", None)


def _torch() -> Any:
    torch = sys.modules.get("torch")
    return torch if torch is not None and hasattr(torch, "get_rng_state") else None


def seed_all(*parts: object) -> None:
    """Seed Python, NumPy and torch (with CUDA) from ``parts`` only."""
    seed = derive_seed(*parts)
    random.seed(seed)
    if numpy := _numpy():
        numpy.seed(seed % 2**32)
    if torch := _torch():
        # Do not call torch.manual_seed. For each kind of device that is not in use, it queues a
        # call with a stack trace (8 ms).
        torch.default_generator.manual_seed(seed % 2**63)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed % 2**63)


def seed_as_new_process(*parts: object) -> None:
    """Seed the generators as in a new process.

    torch starts from its fixed seed. Python's and NumPy's generators start from a different seed
    for each of ``parts``.
    """
    seed = derive_seed("process", *parts)
    random.seed(seed)
    if numpy := _numpy():
        numpy.seed(seed % 2**32)
    if torch := _torch():
        torch.default_generator.manual_seed(_TORCH_SEED)


def capture_state() -> dict[str, Any]:
    """Return the states of the generators of the imported libraries."""
    states: dict[str, Any] = {"python": random.getstate()}
    if numpy := _numpy():
        states["numpy"] = numpy.get_state()
    if torch := _torch():
        states["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore(states: dict[str, Any]) -> None:
    """Restore captured states."""
    random.setstate(states["python"])
    if "numpy" in states:
        _numpy().set_state(states["numpy"])
    if "torch" in states:
        _torch().set_rng_state(states["torch"])
    if "cuda" in states:
        _torch().cuda.set_rng_state_all(states["cuda"])


@uninterruptible
def preserve_state() -> Iterator[None]:
    """Restore the generators at the end, also after an error."""
    states = capture_state()
    try:
        yield
    finally:
        restore(states)
