"""Define the promises that every fault keeps, and a suite that checks them, also for your faults.

from pytest_mlchaos.testing import Case, conformance

test_my_faults_keep_their_promises = conformance(Case(StuckSensor(value=1.0), payload=lambda: [0.5,
0.7]))
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from ..core.faults import EVERY, Fault, type_hints
from ..core.schedule import Schedule
from ..core.validation import format_value, type_matches
from ..engine.controller import NO_ATTRIBUTES
from ..errors import BadArgument, PayloadMismatch
from ..oracles.state import first_difference
from ..processes.subprocess_runner import fresh_processes
from .striking import StrikeResult, strike

__all__ = ["PROMISES", "Case", "check_fault", "conformance"]

VISITS = 8
UNREACHED_VISIT = 10**6
SEED = 1
MIN_DELAY_SECONDS = 1e-4
"""The smallest delay that counts as an effect, in seconds. It is longer than reading the clock
takes.
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """A fault, and what the suite needs to strike it.

    Attributes:
        fault: The fault.
        payload: A function that returns a fresh payload for it, the same one each time.
        operation: As for ``strike``.
        stream: As for ``strike``.
        attributes: As for ``strike``.
        sticky: True if everything differs after a strike, until the process ends.
        bad: Keywords that it must refuse, one set at a time. Values that do not fit an annotation
            are tried in any case.
        wrong: Functions that return payloads which it must refuse.
        neutral: A function that returns a payload which the fault does not change.
    """

    fault: Fault
    payload: Callable[[], Any]
    operation: Callable[[Any], Any] | None = None
    stream: bool = False
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=lambda: NO_ATTRIBUTES)
    sticky: bool = False
    bad: Sequence[Mapping[str, Any]] = ()
    wrong: Sequence[Callable[[], Any]] = ()
    neutral: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.fault, Fault):
            raise BadArgument(
                f"Case: fault must be an instance of a fault class, got {format_value(self.fault)}"
            )

    @property
    def due(self) -> list[int]:
        """Return the visits that it must strike."""
        return [VISITS - 2] if self.sticky else [1, VISITS - 3]

    def at(self, *visits: int) -> Fault:
        """Return the fault at these visits."""
        return dataclasses.replace(
            self.fault, at=visits or (UNREACHED_VISIT,), p=None, times=None, where=None
        )

    def strike(self, payloads: Sequence[Any], *visits: int) -> StrikeResult:
        """Return the result of these payloads if it strikes at these visits."""
        return strike(
            self.at(*visits),
            payloads,
            seed=SEED,
            operation=self.operation,
            stream=self.stream,
            attributes=self.attributes,
        )

    def payloads(self) -> list[Any]:
        """Return enough payloads for two strikes and visits between them."""
        return [self.payload() for _ in range(VISITS)]

    def outcomes(self, *visits: int) -> list[Any]:
        """Return what comes out, in a form that can be compared and sent to a process."""
        return [_comparable(outcome) for outcome in self.strike(self.payloads(), *visits).outcomes]


def exact_visits(case: Case) -> None:
    """It strikes exactly at the visits scheduled, and says so in the journal."""
    struck = [entry.visit for entry in case.strike(case.payloads(), *case.due).journal]
    assert struck == case.due, f"{case.fault!r} struck at the visits {struck} instead of {case.due}"


def same_object(case: Case) -> None:
    """A payload at which nothing is due stays the very same object."""
    payloads = case.payloads()
    outcomes = strike(
        case.at(), payloads, seed=SEED, stream=case.stream, attributes=case.attributes
    ).outcomes
    for number, (given, got) in enumerate(zip(payloads, outcomes, strict=True)):
        assert got is given, (
            f"{case.fault!r} changed the payload of visit {number}, at which it was not due"
        )


def same_seed(case: Case) -> None:
    """The same seed gives the same result, bit for bit."""
    found = first_difference(case.outcomes(*case.due), case.outcomes(*case.due), name="outcomes")
    assert found is None, f"{case.fault!r} gives two results with one seed: {found}"


def same_elsewhere(case: Case) -> None:
    """The same seed gives the same result in a different process, too."""
    if importlib.util.find_spec("cloudpickle") is None:
        pytest.skip("needs cloudpickle, to send the case to a different process")
    here = case.outcomes(*case.due)  # first, as it may skip the test
    ended = fresh_processes().run(_outcomes, case, timeout=120)
    trouble = ended.error or ended.started
    assert trouble is None, f"{case.fault!r} fails in a different process: {trouble}"
    found = first_difference(ended.value, here, name="outcomes")
    assert found is None, (
        f"{case.fault!r} gives a different result in a different process with one seed: {found}"
    )


def input_kept(case: Case) -> None:
    """The payload is not modified, or is as before once the process has ended."""
    payloads = case.payloads()
    before = copy.deepcopy(payloads)
    case.strike(payloads, *case.due)
    found = first_difference(payloads, before, name="payloads")
    assert found is None, f"{case.fault!r} modified its input: {found}"


def undone(case: Case) -> None:
    """Its effects are reverted at the end."""
    before = case.outcomes()
    case.strike(case.payloads(), *case.due)
    found = first_difference(case.outcomes(), before, name="outcomes")
    assert found is None, f"{case.fault!r} is not undone at the end: {found}"


def does_something(case: Case) -> None:
    """A strike has an effect: it raises, changes what comes out, or takes time."""
    payloads = case.payloads()
    struck = case.strike(payloads, *case.due)
    if struck.duration > MIN_DELAY_SECONDS:
        return
    if case.stream and [id(payload) for payload in payloads] != [
        id(outcome) for outcome in struck.outcomes
    ]:
        return
    found = first_difference(
        [_comparable(outcome) for outcome in struck.outcomes], case.outcomes(), name="outcomes"
    )
    assert found is not None, f"{case.fault!r} struck, but changed nothing"


def pickles(case: Case) -> None:
    """It can be sent to a process."""
    try:
        same = pickle.loads(pickle.dumps(case.at(1))) == case.at(1)  # our own bytes
    except (pickle.PicklingError, TypeError, AttributeError):
        same = False
    assert same, f"{case.fault!r} does not pickle"


def reads_back(case: Case) -> None:
    """Its ``repr`` recreates it."""
    for fault in (
        case.at(1),
        dataclasses.replace(case.at(1), at=EVERY, times=2),
        dataclasses.replace(case.at(1), at=None, p=0.5),
    ):
        assert Schedule.parse(repr(fault)).faults == (fault,), (
            f"{fault!r} cannot be read back from its repr"
        )


def refuses_parameters(case: Case) -> None:
    """Parameters that make no sense get an error that names the fault and the parameter."""
    common: list[Mapping[str, Any]] = [
        {"at": -1},
        {"at": "x"},
        {"at": 1, "p": 0.5},
        {"p": 2.0, "at": None},
        {"times": 0},
        {"where": 3},
    ]
    misfits = [
        {name: _NOTHING}
        for name, hint in type_hints(type(case.fault)).items()
        if not type_matches(_NOTHING, hint)
    ]
    for keywords in (*common, *misfits, *case.bad):
        try:
            made = dataclasses.replace(case.fault, **keywords)
        except BadArgument as error:
            text = str(error)
            named = case.fault.name in text and any(
                name in text or repr(value) in text for name, value in keywords.items()
            )
            assert named, (
                f"{keywords} is refused, but the error does not name the fault and the parameter: "
                f"{text}"
            )
        else:
            raise AssertionError(f"{made!r} is accepted, although {keywords} is wrong")


def refuses_payloads(case: Case) -> None:
    """A payload that it cannot work on gets an error that names the fault."""
    for wrong in case.wrong:
        struck = strike(
            case.at(0),
            [wrong()],
            seed=SEED,
            operation=case.operation,
            stream=case.stream,
            attributes=case.attributes,
        )
        outcome = next(iter(struck.outcomes), None)
        told = isinstance(outcome, PayloadMismatch) and case.fault.name in str(outcome)
        assert told, (
            f"{case.fault!r} got a payload that it cannot work on, and gave {outcome!r} instead of "
            f"an error that names the fault"
        )


def neutral_is_no_strike(case: Case) -> None:
    """A visit that changed nothing does not count as a strike."""
    assert case.neutral is not None
    struck = case.strike([case.neutral() for _ in range(VISITS)], *case.due).journal
    assert not struck, (
        f"{case.fault!r} changed nothing, but counts as struck: "
        f"{[str(strike) for strike in struck]}"
    )


PROMISES: tuple[Callable[[Case], None], ...] = (
    exact_visits,
    same_object,
    same_seed,
    same_elsewhere,
    input_kept,
    undone,
    does_something,
    pickles,
    reads_back,
    refuses_parameters,
    refuses_payloads,
    neutral_is_no_strike,
)
_NEEDS: Mapping[Callable[[Case], None], Callable[[Case], object]] = {
    refuses_payloads: lambda case: case.wrong,
    neutral_is_no_strike: lambda case: case.neutral,
}
"""The part of a case without which a promise is not checked."""

"""The promises of every fault, one check for each. A check raises ``AssertionError`` if the promise
is broken.
"""


def conformance(*cases: Case) -> Callable[..., None]:
    """Return a parametrised test of these faults. Assign it to a name that begins with ``test_``."""
    chosen = [
        pytest.param(case, promise, id=f"{case.fault.name}-{promise.__name__}")
        for case in cases
        for promise in _promises_of(case)
    ]

    @pytest.mark.parametrize(("case", "promise"), chosen)
    def test_conformance(case: Case, promise: Callable[[Case], None]) -> None:
        promise(case)

    return test_conformance


def check_fault(fault: Fault, payload: Callable[[], Any], **more: Any) -> None:
    """Raise ``AssertionError`` unless a fault keeps every promise. The keywords are those of
    ``Case``.
    """
    case = Case(fault, payload, **more)
    for promise in _promises_of(case):
        promise(case)


def _promises_of(case: Case) -> list[Callable[[Case], None]]:
    return [promise for promise in PROMISES if promise not in _NEEDS or _NEEDS[promise](case)]


_NOTHING = object()


def _outcomes(case: Case) -> list[Any]:
    return case.outcomes(*case.due)


def _comparable(outcome: object) -> Any:
    return (type(outcome).__name__, str(outcome)) if isinstance(outcome, BaseException) else outcome
