"""The controller strikes exactly what is due, and leaves everything else alone."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlchaos import faults
from pytest_mlchaos.core.clock import RealClock
from pytest_mlchaos.core.faults import EVERY, Fault, create, register
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import (
    BadArgument,
    CrashNotRestarted,
    CrashSwallowed,
    FaultError,
    TrialTimeout,
)
from pytest_mlchaos.sites.calls import wrap_function

faults.load()


@register
class Marked(Fault):
    """Puts a mark on what passes."""

    site = "box.passed"
    mark: str = "!"

    def apply(self, visit):
        """Mark it."""
        visit.note(mark=self.mark)
        return f"{visit.payload}{self.mark}"


def passed(schedule, count=20, **keywords):
    """Return the payloads of ``count`` visits, and the controller."""
    with Controller(Schedule(tuple(schedule)), **keywords) as controller:
        return [controller.visit("box.passed", str(number)) for number in range(count)], controller


@given(st.sets(st.integers(0, 30), min_size=1))
def test_a_fault_strikes_exactly_the_scheduled_visits(visits):
    """No visit before, after or between."""
    out, controller = passed([create("marked", at=sorted(visits))])
    assert out == [f"{n}!" if n in visits else str(n) for n in range(20)]
    assert [strike.visit for strike in controller.journal] == sorted(n for n in visits if n < 20)


def test_with_nothing_due_the_payload_is_the_very_same_object():
    """Not an equal one."""
    payload = object()
    with Controller(Schedule((create("marked", at=100),))) as controller:
        assert all(controller.visit("box.passed", payload) is payload for _ in range(50))
        assert controller.visit("another.site", payload) is payload


@given(st.floats(0.01, 0.99), st.integers(0, 2**40))
def test_a_probability_is_decided_by_seed_and_visit(p, seed):
    """Two runs strike at the same visits."""
    struck = []
    for _ in range(2):
        with Controller(Schedule((create("marked", p=p),), seed)) as controller:
            struck.append([controller.visit("box.passed", "x") for _ in range(100)])
    assert struck[0] == struck[1]


def test_times_bounds_the_strikes():
    """``times=2`` of every visit are the first two."""
    out, _ = passed([create("marked", at=EVERY, times=2)], 5)
    assert out == ["0!", "1!", "2", "3", "4"]


def test_a_rare_probability_costs_no_endless_search():
    """A probability that hits nothing for a long time is looked up in pieces."""
    out, _ = passed([create("marked", p=1e-9)], 50)
    assert out == [str(number) for number in range(50)]


def test_where_sees_the_visit_and_decides():
    """A predicate on the visit narrows the strikes; it does not renumber the visits."""
    out, _ = passed([create("marked", at=[1, 2, 3], where=lambda visit: visit.payload != "2")], 5)
    assert out == ["0", "1!", "2", "3!", "4"]


def test_several_faults_strike_one_visit_in_the_order_of_the_schedule():
    """The second sees what the first made."""
    out, controller = passed([create("marked", at=1), create("marked", at=1, mark="?")], 3)
    assert out == ["0", "1!?", "2"]
    assert [strike.details for strike in controller.journal] == [{"mark": "!"}, {"mark": "?"}]


def test_each_of_many_threads_gets_its_own_visit_number():
    """Every scheduled visit strikes once, whichever thread it falls to."""
    out = []
    with Controller(Schedule((create("marked", at=range(0, 4000, 2)),))) as controller:
        threads = [
            threading.Thread(
                target=lambda: out.extend(controller.visit("box.passed", "") for _ in range(1000))
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert out.count("!") == 2000
    assert sorted(strike.visit for strike in controller.journal) == list(range(0, 4000, 2))


def test_nothing_strikes_after_the_trial():
    """A wrapper that outlives its trial is harmless."""
    with Controller(Schedule((create("marked", at=EVERY),))) as controller:
        assert controller.visit("box.passed", "a") == "a!"
    assert controller.visit("box.passed", "a") == "a"


def test_in_the_probing_trial_nothing_strikes_and_the_possible_visits_are_noted():
    """Exploration starts from the visits that really exist."""
    out, controller = passed(
        [create("marked", where=lambda visit: visit.index % 3 == 0)], 10, probing=True
    )
    assert out == [str(number) for number in range(10)]
    assert controller.scheduled[0].eligible == [0, 3, 6, 9]


def test_a_golden_run_inside_a_trial_is_counted_for_itself():
    """Visits without faults do not move the trial's own numbers."""
    with Controller(Schedule((create("marked", at=2),))) as controller:
        controller.visit("box.passed", "a")
        with controller.without_faults():
            assert [controller.visit("box.passed", "g") for _ in range(5)] == ["g"] * 5
        assert [controller.visit("box.passed", "a") for _ in range(2)] == ["a", "a!"]


@pytest.mark.parametrize(
    "broken",
    [
        lambda visit: visit.nonsense,
        lambda visit: 1 / 0,
        lambda visit: int("x"),
        lambda visit: pytest.fail.__nothing__,
    ],
)
def test_a_mistake_in_a_fault_is_an_error_of_the_fault(broken):
    """It names the class, where it broke, and says that the subject is not to blame; the subject
    cannot swallow it.
    """

    @register
    class Careless(Fault):
        """Breaks."""

        site = "box.passed"

        def apply(self, visit):
            """Break."""
            return broken(visit)

    with (
        pytest.raises(FaultError, match="the fault Careless has a bug") as caught,
        trial(Schedule((Careless(at=0),)), Patches()) as c,
    ):
        try:
            c.visit("box.passed", "x")
        except Exception:  # noqa: BLE001  # what a careless subject does
            pass
    assert "says nothing about the subject" in str(caught.value)


def test_an_exception_that_a_fault_raises_on_purpose_reaches_the_subject():
    """A ``raise`` in ``apply`` is how a fault makes an operation fail."""

    @register
    class Refusing(Fault):
        """Refuses."""

        site = "box.passed"

        def apply(self, visit):
            """Refuse."""
            raise ConnectionRefusedError("no")

    with Controller(Schedule((Refusing(at=1),))) as controller:
        controller.visit("box.passed")
        with pytest.raises(ConnectionRefusedError) as caught:
            controller.visit("box.passed")
        controller.visit("box.passed")
    assert controller.is_injected(caught.value)
    assert len(controller.journal) == 1


def test_a_predicate_that_breaks_is_named():
    """``where=`` is the user's code too."""
    with (
        pytest.raises(
            BadArgument, match=r"marked: where= raised AttributeError: .* at visit 0 of box\.passed"
        ),
        trial(Schedule((create("marked", at=0, where=lambda v: v.nope),)), Patches()) as c,
    ):
        c.visit("box.passed")


def test_a_context_needs_a_site_with_a_duration():
    """A fault that keeps something open at a point in time is told so."""

    @register
    class Holding(Fault):
        """Holds."""

        site = "box.passed"

        def apply(self, visit):
            """Hold."""
            visit.keep_open(threading.Lock())

    with (
        pytest.raises(FaultError, match="has no duration"),
        Controller(Schedule((Holding(at=0),))) as controller,
    ):
        controller.visit("box.passed")


def test_a_dead_process_passes_no_site():
    """After a crash each visit ends in the crash, until a restart."""
    from pytest_mlchaos.errors import SimulatedCrash

    with Controller(Schedule((create("crash", site="box.passed", at=1),))) as controller:
        controller.visit("box.passed")
        for site in ("box.passed", "box.passed", "other"):
            with pytest.raises(SimulatedCrash):
                controller.visit(site)
        controller.restart()
        controller.visit("box.passed")


def test_a_crash_that_reaches_the_test_says_what_would_restart_it():
    """The message names mlchaos.run."""
    with (
        pytest.raises(CrashNotRestarted, match=r"died at box.passed 0 .*mlchaos\.run"),
        trial(Schedule((create("crash", site="box.passed", at=0),)), Patches()) as c,
    ):
        c.visit("box.passed")


def test_a_crash_that_the_test_swallows_is_found_out():
    """A bare except in the body is named with its line."""
    with (
        pytest.raises(
            CrashSwallowed, match=r"died at box.passed 0 .*swallowed it at .*test_controller\.py"
        ),
        trial(Schedule((create("crash", site="box.passed", at=0),)), Patches()) as c,
    ):
        try:
            c.visit("box.passed")
        except:  # noqa: E722  # the mistake under test
            pass


def test_a_trial_that_hangs_is_ended_wherever_it_stands():
    """A sleep, a lock, or a loop that swallows errors: the time-out names the line."""
    import time

    def stubborn():
        while True:
            try:
                time.sleep(0.01)
            except Exception:  # noqa: BLE001  # the mistake under test
                pass

    for hang in (lambda: time.sleep(60), threading.Event().wait, stubborn):
        with (
            pytest.raises(TrialTimeout, match=r"longer than 0\.2 s"),
            trial(Schedule(), Patches(), timeout=0.2),
        ):
            hang()


def test_a_wrapped_callable_is_a_target_by_hand():
    """``mlchaos.call(fn)`` reaches what no import does."""
    double = wrap_function(lambda x: 2 * x, "model.double")
    assert double(4) == 8
    with Controller(
        Schedule((create("call_failure", target="model.double", error=KeyError, at=1),))
    ):
        assert double(4) == 8
        with pytest.raises(KeyError):
            double(4)


@register
class Standstill(Fault):
    """Never comes to an end."""

    site = "box.passed"

    def apply(self, visit):
        """Wait for ever."""
        visit.sleep(math.inf)


def test_nothing_strikes_behind_a_wait_that_never_ends():
    """A process that hangs must not fail as well."""
    clock = RealClock()
    clock.sleep = lambda seconds: None
    _, controller = passed(
        [create("standstill", at=1), create("marked", at=[1, 2])], 4, clock=clock
    )
    assert [(strike.fault, strike.visit) for strike in controller.journal] == [
        ("standstill(at=1)", 1),
        ("marked(at=[1, 2])", 2),
    ]
