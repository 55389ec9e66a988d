"""Define the faults, one file per layer, which register themselves.

No file here imports a heavy library at its top.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

__all__ = ["load"]


@functools.cache
def load() -> None:
    """Import every file of this folder and its subfolders, which registers their faults."""
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)
