"""Every fault keeps the promises that all faults make; so can yours."""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path

import numpy as np
import pytest

from conftest import HAS_TORCH
from pytest_mlchaos import Fault, faults
from pytest_mlchaos.core.composites import CompositeFault
from pytest_mlchaos.core.faults import FAULTS, create, register
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.reports.catalogue import catalogue, layers, sections
from pytest_mlchaos.testing import PROMISES, Case, conformance, strike

faults.load()

CASES = {}
for file in sorted(Path(__file__).parent.glob("cases_*.py")):
    if HAS_TORCH or "needs torch" not in file.read_text().partition("\n")[0]:
        CASES |= importlib.import_module(f"tests.{file.stem}").CASES
BUILT_IN = sorted(
    name
    for name, cls in FAULTS.items()
    if cls.__module__.startswith("pytest_mlchaos") and not issubclass(cls, CompositeFault)
)
# They strike real processes and collectives.
NEEDS_ITS_WORLD = {"rank_failure", "store_failure", "node_loss", "rank_rejoin"}
NEEDS_ITS_WORLD |= {"corrupt_result", "desync"}

test_every_fault_keeps_its_promises = conformance(*CASES.values())


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.skipif(not HAS_TORCH, reason="some cases need torch")
def test_every_built_in_fault_is_checked(name):
    """A new fault needs a case."""
    assert name in NEEDS_ITS_WORLD or CASES[name].fault.name == name


def test_after_a_crash_every_visit_ends():
    """The one fault that cannot strike twice without a restart."""
    outcomes = strike(create("crash", at=2), [1, 2, 3, 4]).outcomes
    assert outcomes[:2] == [1, 2]
    assert [type(outcome).__name__ for outcome in outcomes[2:]] == ["SimulatedCrash"] * 2


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_fault_says_what_it_imitates_and_what_it_does_not(name):
    """The catalogue shows both."""
    parts = sections(FAULTS[name])
    assert parts["summary"]
    assert parts["Imitates"]
    assert parts["Fidelity"]
    assert f"chaos.{name}(" in catalogue()
    assert FAULTS[name] not in layers().get("Yours", ())


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.skipif(not HAS_TORCH, reason="some cases need torch")
def test_the_example_of_each_fault_strikes(name):
    """The catalogue's example, read as it stands there, on what the fault is checked on."""
    (fault,) = Schedule.parse(sections(FAULTS[name])["Example"]).faults
    assert type(fault) is FAULTS[name]
    if name not in NEEDS_ITS_WORLD:
        case = dataclasses.replace(CASES[name], fault=fault)
        assert (
            next(entry.visit for entry in case.strike(case.payloads(), *case.due).journal)
            == case.due[0]
        )
        CHECKS["does_something"](case)


left = []
CHECKS = {promise.__name__: promise for promise in PROMISES}


def broken(apply_, **members):
    """A registered fault with this apply."""
    FAULTS.pop("suspect", None)
    suspect = type(
        "Suspect",
        (Fault,),
        {
            "site": "some.site",
            "name": "suspect",
            "apply": apply_,
            "__module__": __name__,
            **members,
        },
    )
    globals()["Suspect"] = suspect  # where pickle looks for it
    return register(suspect)()


@pytest.mark.parametrize(
    ("promise", "apply", "members", "says"),
    [
        (
            "exact_visits",
            lambda self, visit: [7],
            {"strikes_at": lambda self, visit, seed, place=0: visit == 1},
            "struck at the visits",
        ),
        (
            "same_seed",
            lambda self, visit: [np.random.default_rng().random()],
            {},
            "gives two results with one seed",
        ),
        ("input_kept", lambda self, visit: visit.payload.append(1), {}, "modified its input"),
        ("undone", lambda self, visit: left.append(1), {}, "not undone"),
        ("does_something", lambda self, visit: None, {}, "struck, but changed nothing"),
        ("pickles", lambda self, visit: [7], {"__module__": "nowhere"}, "does not pickle"),
        (
            "reads_back",
            lambda self, visit: [7],
            {"__repr__": lambda self: "suspect()"},
            "cannot be read back",
        ),
        (
            "refuses_parameters",
            lambda self, visit: [7],
            {"__post_init__": lambda self: None},
            "is accepted, although",
        ),
        ("refuses_payloads", lambda self, visit: [7], {}, "cannot work on"),
        (
            "neutral_is_no_strike",
            lambda self, visit: visit.record_injection(),
            {},
            "changed nothing, but counts as struck",
        ),
    ],
)
def test_the_check_finds_what_breaks_a_promise(promise, apply, members, says):
    """A check that cannot fail does not check anything."""
    case = Case(
        broken(apply, **members),
        list,
        operation=lambda payload: payload + left,
        wrong=[list],
        neutral=list,
    )
    if promise == "input_kept":
        case = dataclasses.replace(case, operation=None)
    left.clear()
    with pytest.raises(AssertionError, match=says):
        CHECKS[promise](case)


@register
class OfItsProcess(Fault):
    """Gives what no other process gives."""

    site = "some.site"

    def apply(self, visit):
        """Its own number."""
        return [os.getpid()]


def test_the_check_of_another_process_can_fail():
    """A fault that looks at something else than its seed."""
    pytest.importorskip("cloudpickle")
    with pytest.raises(AssertionError, match="a different result in a different process"):
        CHECKS["same_elsewhere"](Case(OfItsProcess(), list))


def test_the_check_of_a_payload_that_is_another_object_can_fail():
    """A site that copies its payload breaks its promise to all code."""
    with pytest.raises(AssertionError, match="at which it was not due"):
        CHECKS["same_object"](
            Case(broken(None, observe=lambda self, visit: setattr(visit, "payload", [])), list)
        )


@pytest.mark.slow
def test_authors_run_the_suite_on_their_own_faults(example):
    """One assignment makes a parametrised test of all promises."""
    pytest.importorskip("cloudpickle")
    example.with_tests("""
        from pytest_mlchaos import Fault, chaos
        from pytest_mlchaos.testing import PROMISES, Case, conformance, strike

        @chaos.register
        class StuckSensor(Fault):
            '''A sensor repeats its last reading.'''
            site = "sensor.read"
            value: float = 0.0

            def apply(self, visit):
                return [self.value] * len(visit.payload)

        test_my_fault = conformance(Case(StuckSensor(value=1.0), lambda: [0.5, 0.7]))
    """).run(fresh=True, passed=len(PROMISES) - 2)


@pytest.mark.parametrize(
    "name", ["call_delay", "latency_spike", "delay_batch", "slow_storage", "slow_phase"]
)
def test_no_delay_is_no_strike(name):
    """A delay of nothing changes nothing."""
    if name not in FAULTS:
        pytest.skip(f"there is no {name}")
    case = CASES[name] if name in CASES else pytest.skip("its case needs torch")
    keywords = {"delay": 0.0, **({"bandwidth": None} if name == "slow_storage" else {})}
    still = dataclasses.replace(case, fault=dataclasses.replace(case.fault, **keywords))
    assert not still.strike(still.payloads(), *still.due).journal
