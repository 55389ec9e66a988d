"""Check what a test does with the results of the fixture.

A test that judges none has shown nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter, time
from typing import Any

from ..errors import BadArgument, TooManyCalls, Vacuous
from .entries import Entry, ResultEntry, Timing, without_times
from .journal import Strike
from .recording import judged, record
from .records import Attempt
from .validation import NAME, WHOLE, check_arguments, format_value

__all__ = [
    "CallsResult",
    "HandedResult",
    "Result",
    "describe_unjudged",
    "record_result",
    "unstruck",
]

NOT_A_LOOK = {"golden"}
"""Public attributes that say nothing about the run under faults."""


@dataclasses.dataclass
class HandedResult:
    """One result that the test received, with a note of what the test did with it.

    Attributes:
        what: The method that returned it, as you write it (``"mlchaos.run"``).
        each: True if each result of this method must be judged. If False, one of them is enough:
            others may be warm-ups.
        quiet: The reason why no fault can strike in this test. Empty if a fault can strike, or need
            not.
        cure: How to fix that, as a sentence.
        decides: True if no other trial can show more, and nothing else reports that no fault struck.
        struck: True if a fault struck inside the subject.
        passed: True if the subject passed a site that a declared fault is bound to.
        looked: True if the test has read a public attribute, or called an assertion.
        compared: The assertion that compared it with its golden run, if there was one.
        number: Its number in the trial.
        asserted: True if the test has called an assertion of it.
    is_timed: True if its time to recovery is in the journal.
    is_virtual: True if its times are those of the virtual clock.
        calls_elsewhere: Return the number of calls of each counted target in golden runs.
    """

    what: str
    each: bool = False
    quiet: str = ""
    cure: str = "Declare a fault, for example @chaos.crash, or set @chaos.settings(allow_quiet=True) for a fault-free baseline"
    decides: bool = False
    struck: bool = False
    passed: bool = False
    looked: bool = False
    compared: str = ""
    number: int = 0
    asserted: bool = False
    is_timed: bool = False
    is_virtual: bool = True
    calls_elsewhere: Callable[[], Mapping[str, int]] = dict


class Result:
    """A result of the fixture.

    It notes if the test reads a public attribute or calls an assertion.
    """

    _handed: HandedResult | None = None
    _calls_made: Mapping[str, int] | None = None
    """How often each counted target was called. None if it is unknown."""

    def __init_subclass__(cls) -> None:
        for name, method in list(vars(cls).items()):
            if name.startswith("assert_"):
                setattr(cls, name, _recorded(method))

    def _attempted(self) -> Sequence[Attempt]:
        """Return the attempts of the subject, if it may have several."""
        return ()

    def _entries(self, number: int, is_virtual: bool) -> Iterable[Entry]:
        """Return the journal's entries about this result.

        Args:
            number: Its number in the trial.
            is_virtual: True if its times are those of the virtual clock.
        """
        return ()

    def _judged_entries(self, number: int) -> Iterable[Entry]:
        """Return the entries that are known once an assertion has judged this result."""
        return ()

    def _late_entries(self, number: int, is_virtual: bool) -> Iterable[Entry]:
        """Return the entries that are known at the end of the trial. See ``_entries``."""
        return ()

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in NOT_A_LOOK:
            handed = object.__getattribute__(self, "_handed")
            if handed is not None:
                handed.looked = True
        return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        return self._unseen(self._about)

    def _about(self) -> str:
        """Return the text for ``repr``."""
        return object.__repr__(self)

    def _unseen(self, text: Callable[[], str]) -> str:
        """Return a text about the result. Printing a result does not count as judging it."""
        handed = self._handed
        looked = handed is not None and handed.looked
        try:
            return text()
        finally:
            if handed is not None:
                handed.looked = looked

    def _compare_under_faults(self, judgement: str) -> None:
        """Raise ``Vacuous`` if no fault can have struck the run that is about to be compared."""
        handed = self._handed
        if handed is None:
            return
        handed.looked, handed.compared = True, judgement
        if handed.quiet:
            raise Vacuous(
                f"{judgement}: {handed.quiet}, so the run is compared with itself. {handed.cure}"
            )


def record_result(
    result: Result, handed: HandedResult, struck: int, start: float, *, is_virtual: bool
) -> None:
    """Record a result that the test is about to receive.

    Args:
        result: The result.
        handed: The note about it.
        struck: The number of strikes in it.
        start: The time at which its method was called, by ``perf_counter``.
        is_virtual: True if its times are those of the virtual clock.
    """
    attempts, seconds = result._attempted(), perf_counter() - start
    handed.is_virtual = is_virtual
    record(
        ResultEntry(
            number=handed.number,
            method=handed.what,
            struck=struck,
            attempts=tuple(without_times(attempt.ended) for attempt in attempts),
            steps=tuple(attempt.steps for attempt in attempts),
        )
    )
    record(
        Timing(of="result", number=handed.number, start=round(time() - seconds, 6), seconds=seconds)
    )
    for number, attempt in enumerate(attempts):
        if attempt.start:
            start = round(attempt.start, 6)
            took = Timing(of="attempt", number=handed.number, name=str(number), start=start)
            record(dataclasses.replace(took, seconds=attempt.seconds))
    for entry in result._entries(handed.number, is_virtual):
        record(entry)


def _recorded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return an assertion whose verdict is recorded."""

    @functools.wraps(method)
    def judge(self: Result, *args: object, **kwargs: object) -> Any:
        handed = self._handed
        if handed is not None:
            handed.asserted = True
        name = f"{type(self).__name__}.{method.__name__}"
        number = None if handed is None else handed.number
        try:
            return judged(name, number, method, self, *args, **kwargs)
        finally:
            if handed is not None:
                for entry in self._judged_entries(handed.number):
                    record(entry)

    return judge


class CallsResult(Result):
    """A result whose subject may be held to a number of calls."""

    @check_arguments("assert_calls", target=NAME, at_most=WHOLE)
    def assert_calls(self, target: str, *, at_most: int) -> None:
        """Raise ``TooManyCalls`` if the subject called a function too often, as in a retry storm.

        Calls are counted from the start of the test, because the plugin finds the target in the
        test's code: write it there as a text, or give it by ``parametrize``. Calls that a fault
        made fail count. A subject that a fault ended before its first call passes.

        Args:
            target: The function, for example ``"pkg.mod:Store.get"``.
            at_most: The largest number of calls.

        Raises:
            TooManyCalls: There were more calls.
            BadArgument: The target is never called, also not without faults, or the plugin did not
                find it in the test.

        Fidelity: calls in processes that the subject starts are not counted.
        """
        if self._handed is not None:
            self._handed.looked = True  # a bound on the calls is a judgement without faults, too
        made = (self._calls_made or {}).get(target)
        if made is None:
            raise BadArgument(
                f"assert_calls: target must be a text in the test function, so that its calls are "
                f"counted from the start, got {format_value(target)}"
            )
        if made > at_most:
            raise TooManyCalls(
                f"{target} was called {_times(made)}, more than {at_most}"
                f"{self._usual_calls(target)}"
            )
        if not made and not self._golden_calls(target):
            raise BadArgument(
                f"assert_calls: target must be called in the test's own process, got "
                f"{format_value(target)}, which is never called, also not without faults"
            )

    def _golden_calls(self, target: str) -> int:
        """Return the number of calls in golden runs."""
        golden: Result = getattr(self, "golden")  # noqa: B009  # each subclass has its own type
        known = (golden._calls_made or {}).get(target)
        handed = self._handed
        if known is not None or handed is None:
            return known or 0
        return handed.calls_elsewhere().get(target, 0)

    def _usual_calls(self, target: str) -> str:
        golden: Result = getattr(self, "golden")  # noqa: B009
        known = (golden._calls_made or {}).get(target)
        return "" if known is None else f". The golden run called it {_times(known)}"


def _times(number: int) -> str:
    return f"{number} time{'' if number == 1 else 's'}"


def describe_unjudged(results: Sequence[HandedResult]) -> str:
    """Explain which results the test never judged.

    Return an empty text if it judged all that it must.
    """
    judged = {result.what for result in results if result.looked}
    missed = dict.fromkeys(
        result.what
        for result in results
        if not result.looked and (result.each or result.what not in judged)
    )
    if not missed:
        return ""
    names = " and ".join(f"{name}(...)" for name in missed)
    return (
        f"nothing judged the result of {names}, so this test passes whatever happens. Call one of "
        f"its assert_... methods, "
        "or check its attributes"
    )


def unstruck(results: Sequence[HandedResult], strikes: Sequence[Strike]) -> str:
    """Explain that all strikes fell outside the judged subjects.

    Return an empty text if one fell inside, or if the test judged nothing.
    """
    judged = [result for result in results if result.compared or (result.looked and result.passed)]
    if not strikes or not judged or any(result.struck for result in results if result.looked):
        return ""
    first, what = strikes[0], judged[0]
    return (
        f"{'the only strike' if len(strikes) == 1 else f'all {len(strikes)} strikes'} fell outside "
        f"the code that {what.what}(...) ran: "
        f"{first} in the test's own body. {what.compared or 'The test'} judged a run that no fault "
        f"had struck. "
        "Move set-up code into a fixture (no fault strikes there), or choose later visits with at="
    )
