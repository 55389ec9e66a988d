"""Describe the end of a test for the journal."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Mapping

import pytest

from ..core.entries import Test, without_times
from ..core.privacy import error_text
from ..core.schedule import Schedule
from ..errors import MlchaosError
from .launched import rank_of_session
from .trial_runner import EXPLORED, cause_of, is_failure

__all__ = ["end_of_test", "message_of"]

OUR_NOTES = ("mlchaos:", "help:")
"""The beginnings of this plugin's notes on an error. Other notes may hold values."""
DISTRIBUTIONS = ("pytest-mlchaos", "pytest", "hypothesis", "numpy", "torch")


def end_of_test(
    item: pytest.Item, failing: Schedule | None, outcome: str, error: BaseException | None
) -> Test:
    """Return the entry of a test that has ended.

    Args:
        item: The test.
        failing: The schedule that repeats its failure, or None.
        outcome: How it ended.
        error: The error that ended it, or None.
    """
    file, line, _ = item.location
    reproduce, replay = "", ""
    cause = cause_of(error) if error is not None and is_failure(error) else None
    place = cause.place if cause else ""
    if failing is not None and failing.faults and not any(one.opaque for one in failing.faults):
        reproduce, replay = repr(failing), failing.line
    if outcome in ("failed", "interrupted"):
        for report in item.stash.get(EXPLORED, []):
            if (first := report.first_failure) is not None and not replay:
                reproduce = f'@chaos.crash(state="{first.state.id}")'
                replay = f"crash(state={first.state.id!r})"
                place = first.place or place
    return Test(
        outcome=outcome,
        file=file,
        line=(line or 0) + 1,
        error=type(error).__qualname__ if cause and error is not None else "",
        message=without_times(message_of(error)),
        place=place,
        reproduce=reproduce,
        replay=replay,
        environment=environment(),
        rank=_rank(),
    )


def _rank() -> str:
    session = rank_of_session()
    return "" if session is None else f"{session[0]} of {session[1]}"


def message_of(error: BaseException | None) -> str:
    """Return what the terminal shows of a failure, without values of the user."""
    if error is None or not is_failure(error):
        return ""
    head = str(error) if isinstance(error, MlchaosError) else error_text(error)
    notes = [note for note in getattr(error, "__notes__", ()) if note.strip().startswith(OUR_NOTES)]
    return "\n".join([head, *notes])


@functools.cache
def environment() -> Mapping[str, str]:
    """Return the versions of Python and of installed packages.

    They do not depend on what was imported, so that each worker of xdist finds the same.
    """
    found = {"python": platform.python_version(), "system": platform.system()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
