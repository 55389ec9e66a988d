"""Every fault keeps the promises that all faults make; so can yours. Torch-free payloads."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlchaos import Fault, faults
from pytest_mlchaos.core.faults import FAULTS, create, register
from pytest_mlchaos.core.storage import Operation
from pytest_mlchaos.reports.catalogue import catalogue, sections
from pytest_mlchaos.testing import check_fault, strike

faults.load()

BUILT_IN = sorted(name for name, cls in FAULTS.items() if cls.__module__.startswith("pytest_mlchaos"))
STRIKING_AT_ONCE = {
    "crash": (create("crash"), object),
    "corrupt_batch": (create("corrupt_batch", kind="noise", fraction=0.3), lambda: {"x": np.ones((4, 3)), "y": np.arange(4)}),
    "call_failure": (create("call_failure", target="a:b", error=OSError(5, "I/O")), lambda: ((), {})),
    "latency_spike": (create("latency_spike", delay="1ms"), object),
    "dependency_failure": (create("dependency_failure", target="a:b"), lambda: ((), {})),
    "slow_storage": (create("slow_storage", delay="1ms", bandwidth="1MB/s"), lambda: Operation("read", "a/b")),
    "flaky_storage": (create("flaky_storage", error="ENOSPC"), lambda: Operation("rename", "a/b", "a/c")),
    "truncated_read": (create("truncated_read", keep=100), lambda: Operation("read", "a/b")),
    "call_delay": (create("call_delay", target="a:b", delay="1ms"), lambda: ((), {})),
}
KEEPS_A_CONTEXT_OPEN = {"gpu_oom"}  # needs its site: test_torch_sites.py
NEEDS_ITS_WORLD = {"rank_failure"}  # strikes in ranks alone: test_world.py


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_fault_is_checked(name):
    """A new fault needs a line here."""
    assert sum(name in kinds for kinds in (STRIKING_AT_ONCE, KEEPS_A_CONTEXT_OPEN, NEEDS_ITS_WORLD)) == 1


@pytest.mark.parametrize("name", sorted(set(STRIKING_AT_ONCE) - {"crash"}))
def test_a_fault_keeps_its_promises(name):
    """Exact visits, same object when not due, same result for one seed, input untouched, prints and reads back."""
    check_fault(*STRIKING_AT_ONCE[name])


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


def broken(apply_):
    """A registered fault with this apply."""

    class Suspect(Fault):
        """Does something."""

        site = "some.site"
        name = "suspect"
        apply = apply_

    FAULTS.pop("suspect", None)
    return register(Suspect)()


@pytest.mark.parametrize(
    ("apply", "promise"),
    [
        (lambda self, visit: visit.payload.append(1), "modified what it was given"),
        (lambda self, visit: [np.random.default_rng().random()], "not the same twice with one seed"),
    ],
)
def test_the_check_finds_what_breaks_a_promise(apply, promise):
    """A check that cannot fail is no check."""
    with pytest.raises(AssertionError, match=promise):
        check_fault(broken(apply), list)
