"""Which code is the user's own: what a report names."""

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["INSTALLED", "PACKAGE", "is_users", "user_place"]

PACKAGE = str(Path(__file__).resolve().parents[1])
"""This package's folder."""
INSTALLED = tuple({text for path in sysconfig.get_paths().values() for text in (path, str(Path(path).resolve())) if path})
"""Where the standard library and installed packages lie."""


def is_users(filename: str) -> bool:
    """Whether code of this file is neither the standard library's, nor an installed package's, nor ours, nor generated."""
    return not filename.startswith((*INSTALLED, PACKAGE, "<"))


def user_place(error: BaseException) -> str:
    """The innermost line of the user's own code in an error's traceback; nothing where there is none."""
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_users(code.co_filename):
            place = f"{Path(code.co_filename).name}:{trace.tb_lineno} in {code.co_name}"
        trace = trace.tb_next
    return place
