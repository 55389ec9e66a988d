"""Check what a test does with the results of the fixture.

A test that judges none has shown nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import Vacuous
from .journal import Strike

__all__ = ["HandedResult", "Result", "describe_unjudged", "unstruck"]

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
        struck: True if a fault struck inside the subject.
        passed: True if the subject passed a site that a declared fault is bound to.
        looked: True if the test has read a public attribute, or called an assertion.
        compared: The assertion that compared it with its golden run, if there was one.
    """

    what: str
    each: bool = False
    quiet: str = ""
    cure: str = "Declare a fault, for example @chaos.crash, or set @chaos.settings(allow_quiet=True) for a fault-free baseline"
    struck: bool = False
    passed: bool = False
    looked: bool = False
    compared: str = ""


class Result:
    """A result of the fixture.

    It notes if the test reads a public attribute or calls an assertion.
    """

    _handed: HandedResult | None = None

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
