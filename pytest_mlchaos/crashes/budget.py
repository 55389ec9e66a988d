"""Say which crash states a budget left out, and if a verdict is possible without them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from .explore import Exploration
from .model import CrashState
from .sweep import kind_of

__all__ = ["LeftOut", "describe_left_out", "kinds_of"]

_NAMES = {
    "before anything": ("before the first write", "before the first write"),
    "cut at": ("torn file", "torn files"),
    "complete": ("complete file", "complete files"),
    "just renamed": ("renamed file", "renamed files"),
    "rewritten in": ("file rewritten in place", "files rewritten in place"),
    "just put": ("file put in place", "files put in place"),
    "just linked": ("new link", "new links"),
    "removed": ("removed file", "removed files"),
    "empty after": ("file emptied by a power loss", "files emptied by a power loss"),
    "filled with": ("file zeroed by a power loss", "files zeroed by a power loss"),
    "lost by": ("file lost by a power loss", "files lost by a power loss"),
    "removed, and": ("replacement lost by a power loss", "replacements lost by a power loss"),
}
"""The names of the kinds of states, for one and for several."""
_FOLDER = ("new directory", "new directories")
_SECOND = "after a second crash"


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """The states that were not tried.

    Attributes:
        text: How many, of which kinds, and why.
        untried_kinds: The kinds of which none was tried, in words.
    """

    text: str
    untried_kinds: tuple[str, ...]

    def why_inconclusive(self, require_all: bool) -> str:
        """Return why the states that were tried allow no verdict, or an empty text."""
        if self.untried_kinds:
            kinds = ", ".join(self.untried_kinds)
            return f"inconclusive, because no state of these kinds was tried: {kinds}"
        return "inconclusive, because require_all is set" if require_all else ""


def describe_left_out(
    found: Exploration, *, is_over: bool, budget: str, tried: str, max_states: int | None
) -> LeftOut | None:
    """Return the states that were not tried, or None if all were.

    Args:
        found: The result of the search.
        is_over: True if the time budget ran out.
        budget: That budget, in words.
        tried: How many states were tried and how long they took, in words.
        max_states: The largest number of states to try, or None.
    """
    if not found.untried and not found.unlisted:
        return None
    kinds = dict.fromkeys(map(_kind, found.states))
    known = {_kind(outcome.state) for outcome in found.outcomes}
    missing = [_names(kind)[1] for kind in kinds if kind not in known]
    parts = []
    if found.untried:
        each = ", at least one of each kind" if not missing else ""
        parts.append(
            f"{len(found.outcomes)} of {len(found.states)} crash states were tried{each}; not "
            f"tried: {len(found.untried)} ({_counted(found.untried)})"
        )
    if found.unlisted:
        parts.append(f"no second crash was tried after {found.unlisted} crash states")
        if not any(outcome.state.parent for outcome in found.outcomes):
            missing.append("second crashes")
    reason = (
        f"{budget} ran out; raise it ({tried})"
        if is_over or max_states is None
        else f"max_states={max_states}"
    )
    return LeftOut(f"{'; '.join(parts)}: {reason}", tuple(missing))


def kinds_of(states: Sequence[CrashState]) -> tuple[str, ...]:
    """Return the kinds of states in words, each once."""
    return tuple(dict.fromkeys(_names(_kind(state))[1] for state in states))


def _kind(state: CrashState) -> tuple[str, bool]:
    """Return what happened to the file, and True after a second crash."""
    return kind_of(state), state.parent is not None


def _counted(states: Sequence[CrashState]) -> str:
    counts = Counter(map(_kind, states))
    return ", ".join(f"{count} {_names(kind)[count > 1]}" for kind, count in counts.most_common())


def _names(kind: tuple[str, bool]) -> tuple[str, str]:
    """Return the names of one state and of several states."""
    what, second = kind
    one, several = _NAMES.get(what, _FOLDER if what.startswith("directory") else (what, what))
    return (f"{one} {_SECOND}", f"{several} {_SECOND}") if second else (one, several)
