"""Check that a process saved its state between SIGTERM and SIGKILL."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..core.records import Preemption

__all__ = ["emergency_save_missing"]

SHOWN_FILES = 3


def emergency_save_missing(
    preemptions: Sequence[Preemption], lost_steps: Callable[[], int] | None
) -> str | None:
    """Describe the first missing or useless save after a SIGTERM, or return None.

    Args:
        preemptions: The signals, with the effects of each.
        lost_steps: A function that returns the number of steps that were taken again, if it is
            known.
    """
    for one in preemptions:
        end = f"{'SIGKILL' if one.killed else 'its end'}, {_later(one)} after {one.signal} at {one.where}"
        if one.cut:
            return f"the emergency save was cut off: {_names(one.cut)} still open for writing at {end} (grace {one.grace:g} s)"
        if one.unmoved:
            return f"the emergency save was cut off: {_names(one.unmoved)} written, but not moved to its place before {end}"
    lost, done_again = 1, ""
    if lost_steps is not None and preemptions:
        lost = lost_steps()
        done_again = f": {lost} step{'' if lost == 1 else 's'} had to be done again"
        if lost <= sum(one.more_steps for one in preemptions if one.saved):
            return None
    for one in preemptions:
        if not one.saved and not one.handled:
            return f"no emergency save: the process has no handler for {one.signal}, which ended it at {one.where}{done_again}"
        if not one.saved:
            how = f"{'SIGKILL' if one.killed else 'its own end'}, {_later(one)} later"
            return f"no emergency save: no file changed between {one.signal} at {one.where} and {how}{done_again}"
    if not done_again:
        return None
    saved = dict.fromkeys(name for one in preemptions for name in one.saved)
    allowed = sum(one.more_steps for one in preemptions)
    return f"the emergency save ({_names(tuple(saved), verb=False)}) was not used{done_again}, and {allowed} were taken after it"


def _later(one: Preemption) -> str:
    return f"{round(one.lasted, 2):g} s"


def _names(names: Sequence[str], *, verb: bool = True) -> str:
    shown = ", ".join(names[:SHOWN_FILES]) + (
        f" and {len(names) - SHOWN_FILES} more" if len(names) > SHOWN_FILES else ""
    )
    return shown + (f" {'was' if len(names) == 1 else 'were'}" if verb else "")
