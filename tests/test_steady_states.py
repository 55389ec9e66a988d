"""A steady state holds before, during and after the faults."""

from __future__ import annotations

HEAD = """
import pytest
from pytest_mlchaos import Fault, chaos, visit

STATE = {"healthy": True, "asked": 0}


@pytest.fixture
def service():
    STATE.update(healthy=True, asked=0)
    return STATE


def is_healthy(service):
    service["asked"] += 1
    return service["healthy"]


def work(*, heals=True, breaks=True):
    for step in range(6):
        try:
            visit("shop.order")
        except RuntimeError:
            STATE["healthy"] = not breaks
    if heals:
        STATE["healthy"] = True


@chaos.register
class Boom(Fault):
    site = "shop.order"

    def apply(self, visit):
        visit.fail(RuntimeError("boom"))


"""
SOUND = """
@chaos.boom(at=2)
@chaos.steady_state(is_healthy)
def test_never_broken(service):
    work(breaks=False)
    assert service["asked"] == 7


@chaos.boom(at=2)
@chaos.steady_state(is_healthy, during=False)
def test_heals(service):
    work()
    assert service["asked"] == 1


@chaos.boom
@chaos.steady_state(is_healthy)
def test_search(service):
    work(breaks=False)
"""
UNSOUND = """
@chaos.boom(at=2)
@chaos.steady_state(is_healthy)
def test_during(service):
    work()


@chaos.boom(at=2)
@chaos.steady_state(is_healthy, during=False)
def test_after(service):
    work(heals=False)


@pytest.fixture
def broken(service):
    service["healthy"] = False


@chaos.boom(at=2)
@chaos.steady_state(is_healthy)
def test_before(service, broken):
    work()


@chaos.steady_state(is_healthy)
def test_no_fault(service):
    work()


@chaos.boom(at=2)
@chaos.steady_state(is_healthy)
def test_no_fixture():
    work()
"""


def test_a_steady_state_that_holds_passes(example):
    """It is asked before, before each visit, and after."""
    example.with_file("test_it.py", HEAD + SOUND).run("--mlchaos-max-trials=4", passed=3)


def test_a_steady_state_that_does_not_hold_fails(example):
    """Before any fault it is an error of the set-up, and a verdict later."""
    example.with_file("test_it.py", HEAD + UNSOUND).run(failed=5).has(
        "NotSteady: is_healthy did not hold during the test, after boom(at=2) struck shop.order 2",
        "NotSteady: is_healthy does not hold after the faults",
        "SteadyStateFailed: is_healthy does not hold before any fault",
        "Vacuous: chaos.steady_state: this test declares no fault",
        "whose arguments are fixtures of the test, got service",
    )
