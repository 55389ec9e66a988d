"""Which code is the user's own: what a report names."""

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["INSTALLED", "PACKAGE", "is_users"]

PACKAGE = str(Path(__file__).resolve().parents[1])
"""This package's folder."""
INSTALLED = tuple({text for path in sysconfig.get_paths().values() for text in (path, str(Path(path).resolve())) if path})
"""Where the standard library and installed packages lie."""


def is_users(filename: str) -> bool:
    """Whether code of this file is neither the standard library's, nor an installed package's, nor ours, nor generated."""
    return not filename.startswith((*INSTALLED, PACKAGE, "<"))
