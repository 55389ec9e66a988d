"""Make visits happen.

Each file registers its sites, and imports its library only when it arms them.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

__all__ = ["load"]


@functools.cache
def load() -> None:
    """Import all modules of this folder and its subfolders, so that their sites are registered."""
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)
