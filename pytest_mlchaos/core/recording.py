"""Record what happens as entries of the journal. The plugin listens, and an area need not know."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from ..errors import BadArgument, FaultError, Inconclusive, Vacuous
from .entries import Entry, Judgement, Verdict

__all__ = ["is_recording", "judged", "oracle", "record", "recorded_by"]

P = ParamSpec("P")
R = TypeVar("R")
NO_VERDICT = (BadArgument, FaultError, Vacuous)
"""Errors that say nothing about the subject."""
_LIMIT = re.compile(r"[\d.]+ ?(?:[num]?s|m|min|h|%)")
"""A limit as text, for example ``150ms``. A number without a unit may be data."""
EXPECTED = frozenset({"json", "text", "value"})
"""Arguments of oracles that are data: the reply that is expected."""

_sink: Callable[[Entry], None] | None = None
_judging = False  # True inside an oracle, which may call a different one


@contextlib.contextmanager
def recorded_by(sink: Callable[[Entry], None]) -> Iterator[None]:
    """Let ``sink`` receive the entries that are recorded inside."""
    global _sink  # A session runs one trial at a time.
    before, _sink = _sink, sink
    try:
        yield
    finally:
        _sink = before


def record(entry: Entry) -> None:
    """Record an entry, if a trial is running."""
    sink = _sink
    if sink is not None:
        sink(entry)


def is_recording() -> bool:
    """Return True if a trial is running."""
    return _sink is not None


def judged(
    name: str, result: int | None, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> R:
    """Call an oracle, and record its verdict.

    An oracle that calls a different one makes one judgement. This is not a context manager of
    contextlib, because its frames would appear in the traceback of the verdict.

    Args:
        name: The oracle's name.
        result: The number of the result that it judges, or None.
        function: The oracle.
        *args: Its arguments.
        **kwargs: Its keyword arguments.
    """
    global _judging
    if _judging or _sink is None:
        return function(*args, **kwargs)
    _judging = True
    verdict: Verdict = "passed"
    error: BaseException | None = None
    try:
        return function(*args, **kwargs)
    except Exception as raised:
        verdict, error = "inconclusive" if isinstance(raised, Inconclusive) else "failed", raised
        raise
    finally:
        _judging = False
        if not isinstance(error, NO_VERDICT):
            record(
                Judgement(
                    oracle=name,
                    verdict=verdict,
                    result=result,
                    error="" if error is None else type(error).__qualname__,
                    arguments=_limits(kwargs),
                )
            )


def _limits(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that are limits. Others may hold values of the user's data."""
    return {
        name: value
        for name, value in arguments.items()
        if name not in EXPECTED
        and (
            isinstance(value, (bool, int, float))
            or (isinstance(value, str) and _LIMIT.fullmatch(value))
        )
    }


def oracle(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function an oracle, whose verdicts are recorded."""

    @functools.wraps(function)
    def judge(*args: P.args, **kwargs: P.kwargs) -> R:
        return judged(function.__name__, None, function, *args, **kwargs)

    return judge
