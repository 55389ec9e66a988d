"""Write a session as one HTML file that needs no network."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BadArgument

if TYPE_CHECKING:
    from ..journal_reader import SessionLog

__all__ = ["check", "check_libraries", "write"]

OPTION = "--mlchaos-report"
LIBRARIES = {"jinja2": "jinja2", "vl_convert": "vl-convert-python"}
"""The modules of the extra, and their packages."""


def check(target: str = "") -> None:
    """Raise BadArgument if the report cannot be written."""
    check_libraries(OPTION)


def check_libraries(option: str) -> None:
    """Raise BadArgument if a library of the extra ``report`` is missing."""
    missing = [
        name for module, name in LIBRARIES.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise BadArgument(
            f"{option} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
            "not installed: python -m pip install 'pytest-mlchaos[report]'"
        )


def write(session: SessionLog, target: str) -> None:
    """Write the report of a session to ``target``. Equal sessions give equal bytes.

    Raises:
        BadArgument: The file cannot be written, or a library of the extra is missing.
    """
    check()
    from .page import render

    path = Path(target)
    if path.is_dir():
        raise BadArgument(f"{OPTION} must be a file, got the directory '{target}'")
    text = render(session)
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise BadArgument(f"{OPTION}: '{target}' cannot be written: {error.strerror}") from None
