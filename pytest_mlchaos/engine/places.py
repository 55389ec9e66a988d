"""Which code is the user's own: what a report names."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from types import CodeType

__all__ = ["is_users"]

_OTHERS = tuple(str(Path(path).resolve()) for path in {*sysconfig.get_paths().values(), str(Path(__file__).parents[1])} if path)


def is_users(code: CodeType) -> bool:
    """Whether code is neither the standard library's, nor an installed package's, nor generated."""
    return not code.co_filename.startswith((*_OTHERS, "<"))
