"""Detect when a program reads, sets or seeds a global random number generator.

Checkpoints do so.
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable
from typing import Any

from ..engine.import_hooks import when_imported
from ..engine.patching import Patches

__all__ = ["watch_generators"]


def watch_generators(
    patches: Patches, on_read: Callable[[str], object], on_set: Callable[[str], object]
) -> None:
    """Call ``on_read(name)`` before each read of a state, and ``on_set(name)`` after each change.

    The generators are those of ``random``, NumPy and torch. Calls of a generator object's own
    methods are not detected.
    """

    def watch(owner: object, name: str, reads: str, sets: tuple[str, ...]) -> None:
        _before(patches, owner, reads, lambda: on_read(name))
        for function in sets:
            _after(patches, owner, function, lambda: on_set(name))

    def numpy() -> None:
        watch(sys.modules["numpy.random"], "rng.numpy", "get_state", ("set_state", "seed"))

    def torch() -> None:
        for owner in (sys.modules["torch"], sys.modules["torch.random"]):
            watch(owner, "rng.torch", "get_rng_state", ("set_rng_state", "manual_seed", "seed"))

    watch(random, "rng.python", "getstate", ("setstate", "seed"))
    when_imported("numpy.random", patches, numpy)
    when_imported("torch", patches, torch)


def _before(patches: Patches, owner: object, name: str, action: Callable[[], object]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*args: object, **kwargs: object) -> Any:
        action()
        return original(*args, **kwargs)

    patches.set(owner, name, call)


def _after(patches: Patches, owner: object, name: str, action: Callable[[], object]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*args: object, **kwargs: object) -> Any:
        value = original(*args, **kwargs)
        action()
        return value

    patches.set(owner, name, call)
