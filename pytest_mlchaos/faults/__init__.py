"""What goes wrong: one file per layer. Files here register their faults; none imports a heavy library at its top."""

from __future__ import annotations

import functools
import importlib
import pkgutil

__all__ = ["load"]


@functools.cache
def load() -> None:
    """Import every file of this folder, so that its faults are registered."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
