"""What authors of faults use to test theirs: strike one by hand, and check that it keeps the promises that all faults make."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from ..core.faults import Fault
from ..core.journal import Journal
from ..core.schedule import Schedule
from ..engine.controller import Controller
from ..oracles.state import first_difference

__all__ = ["Struck", "check_fault", "strike"]


@dataclasses.dataclass(frozen=True)
class Struck:
    """What became of some visits: the payload that came out of each (or the exception that it ended in), and the journal."""

    outcomes: Sequence[Any]
    journal: Journal


def strike(fault: Fault, payloads: Sequence[Any], *, seed: int = 0) -> Struck:
    """Pass the fault's site once for each payload, under a schedule of this fault alone."""
    outcomes: list[Any] = []
    with Controller(Schedule((fault,), seed)) as controller:
        for payload in payloads:
            try:
                outcomes.append(controller.visit(fault.key, payload))
            except BaseException as error:  # noqa: BLE001  # how the visit ended is the outcome
                outcomes.append(error)
    return Struck(outcomes, controller.journal)


def check_fault(fault: Fault, payload: Callable[[], Any], *, visits: int = 8) -> None:
    """Raise ``AssertionError`` unless a fault does what every fault promises.

    It strikes exactly at the visits scheduled; where it is not due the payload is the very same object; the same seed gives the
    same result; the payload that it was given is not modified; it pickles, prints, and reads back. ``payload()`` makes a
    payload that the fault can work on. For faults that strike at once; one that keeps a context open needs its site.
    """
    due = [1, visits - 2]
    pinned = dataclasses.replace(fault, at=due, p=None, times=None)
    payloads = [payload() for _ in range(visits)]
    before = copy.deepcopy(payloads)
    first, second = strike(pinned, payloads, seed=1), strike(pinned, payloads, seed=1)
    assert [entry.visit for entry in first.journal] == due, f"{fault!r} struck {[e.visit for e in first.journal]} instead of {due}"
    for number, (given, got) in enumerate(zip(payloads, first.outcomes, strict=True)):
        assert number in due or got is given, f"{fault!r} changed the payload of visit {number}, where it was not due"
    assert (found := first_difference(payloads, before, name="payloads")) is None, f"{fault!r} modified what it was given: {found}"
    outcomes = [[_comparable(outcome) for outcome in run.outcomes] for run in (first, second)]
    assert (found := first_difference(*outcomes, name="outcomes")) is None, f"{fault!r} is not the same twice with one seed: {found}"
    assert pickle.loads(pickle.dumps(pinned)) == pinned, f"{fault!r} does not pickle"  # our own bytes
    assert Schedule.parse(repr(pinned)).faults == (pinned,), f"{fault!r} does not read back from what it prints"


def _comparable(outcome: Any) -> Any:
    return (type(outcome).__name__, str(outcome)) if isinstance(outcome, BaseException) else outcome
