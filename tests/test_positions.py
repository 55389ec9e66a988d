"""Bare faults are tried at every position at which the event can happen, and what was not tried is
said.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings

from pytest_mlchaos import faults
from pytest_mlchaos.core.faults import OneOf, create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.core.sites import Visit
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.search.space import Probe, Space, variants

faults.load()


def declared(name, given=frozenset(), **keywords):
    """The variants of one declaration."""
    return variants(
        dataclasses.replace(create(name, **keywords), _origin=0), frozenset(given) | keywords.keys()
    )


def space(found, visits=6, **keywords):
    """A space in which each variant may strike at so many visits."""
    return Space(
        [Probe(fault, frozenset(), tuple(range(visits)), {}) for fault in found], 3, 0, **keywords
    )


def test_a_given_position_is_kept():
    """A parameter that the user wrote has the one value that was written."""
    assert [fault.when for fault in declared("call_failure", target="a:b", when="before")] == [
        "before"
    ]


def test_pinned_faults_have_one_position():
    """A fault with at= or p= is not searched, so it has the defaults that the documentation names."""
    assert [fault.site for fault in declared("preempt", at=3)] == ["train.step"]
    assert [fault.when for fault in declared("call_failure", target="a:b", p=0.5)] == ["before"]


def test_a_predicate_keeps_the_site_it_was_written_for():
    """A where= is asked at the visits of the default site alone: at others it may raise."""
    assert {fault.site for fault in declared("preempt", where=lambda visit: True)} == {"train.step"}
    assert len(declared("call_failure", target="a:b", where=lambda visit: True)) == 2


def test_a_signal_at_a_step_may_come_behind_it():
    """A step that was given without a visit is searched at both of its ends."""
    sites = [
        fault.site
        for fault in declared("preempt", site=OneOf(("train.step", "data.batch")), signal="SIGTERM")
    ]
    assert sites == ["train.step", "train.step.end", "data.batch"]


def test_the_likeliest_positions_are_tried_first_and_most():
    """With too few trials for all positions each is tried, the earlier ones more often."""
    schedules = list(space(declared("interrupt"), visits=200).sweep(30))
    tried = [schedule.faults[0].site for schedule in schedules]
    assert len(tried) == 30
    assert set(tried) == {fault.site for fault in declared("interrupt")}
    assert tried.count("train.step") > tried.count("train.step.end") > tried.count("storage.open")


def test_a_search_lets_no_more_faults_end_the_process_than_may_be():
    """Every schedule of a sweep and of the search is one that the run can survive."""
    small = space(declared("preempt"), visits=50, restarts=1)
    assert {len(fault.at) for schedule in small.sweep(30) for fault in schedule.faults} == {1}

    @settings(max_examples=60, database=None, deadline=None)
    @given(small.strategy())
    def check(schedule):
        assert sum(len(fault.at) for fault in schedule.faults) == 1

    check()


@pytest.mark.slow
def test_an_error_behind_the_call_is_tried(example):
    """A bare call_failure also loses the reply of a call that has taken effect."""
    outcome = example.with_tests(
        """
        paid = []

        def pay(amount):
            paid.append(amount)

        @chaos.call_failure(target="test_it:pay", error="ConnectionError")
        def test_pays_once():
            paid.clear()
            try:
                pay(1)
            except ConnectionError:
                pay(1)
            assert paid == [1]
        """
    ).run(failed=1)
    assert outcome.reproduce == [
        "@chaos.call_failure(at=0, target='test_it:pay', error='ConnectionError', when='after')"
    ]


@pytest.mark.slow
def test_a_signal_inside_a_write_is_tried(example):
    """A handler that exits inside a checkpoint's write leaves half a file: a bare preempt finds
    that, without torch.
    """
    outcome = example.with_tests(
        """
        import json, signal, sys

        def train(workdir):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            path = workdir / "state"
            at = json.loads(path.read_text())["at"] if path.exists() else 0
            while at < 2:
                at += 1
                with open(path, "w") as file:
                    json.dump({"at": at}, file)
            return at

        @chaos.preempt
        def test_it(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()
        """
    ).run(failed=1)
    outcome.has("JSONDecodeError", "@chaos.preempt(site='storage.write'")


@pytest.mark.slow
def test_signals_that_the_subject_handles_are_tried(example):
    """A bare preempt also sends the signals for which the subject installed a handler."""
    outcome = example.with_tests(
        """
        import signal, sys

        def train(workdir):
            path = workdir / "log"
            lines = path.read_text().split() if path.exists() else []

            def save(*_):
                path.write_text("lost " * len(lines))
                sys.exit(0)

            signal.signal(signal.SIGUSR1, save)
            while len(lines) < 3:
                (workdir / "note").write_text("reading")
                lines.append("a")
            return lines

        @chaos.preempt
        def test_it(mlchaos, tmp_path):
            mlchaos.run(train, tmp_path).assert_recovered()
        """
    ).run(failed=1)
    outcome.has("signal='SIGUSR1'", "SIGUSR1 at storage.")


def test_signals_that_nothing_handles_are_not_tried():
    """A visit where the test's own process would handle the signal is not a position."""
    with trial(Schedule(), Patches()):
        possible = {
            fault.signal for fault in declared("preempt") if fault.possible(Visit("train.step", 0))
        }
    assert possible == {"SIGTERM"}
    assert [fault.signal for fault in declared("preempt", signal="SIGHUP", site="a")] == ["SIGHUP"]


@pytest.mark.slow
def test_what_was_not_tried_is_said(example):
    """A passed test whose trials were used up names the positions that were left."""
    outcome = example.with_tests(
        """
        def call():
            pass

        @chaos.settings(max_trials=3, max_faults=1)
        @chaos.call_failure(target="test_it:call")
        def test_it():
            for _ in range(9):
                try:
                    call()
                except RuntimeError:
                    pass
        """
    ).run(passed=1)
    outcome.has(
        "not tried in test_it.py::test_it (max_trials, budget): "
        "call_failure(target='test_it:call') at "
    )
    outcome.has("of 9 visits, call_failure(target='test_it:call', when='after') at ")


RESTARTED = """
    import json

    def call():
        pass

    def train(workdir):
        path = workdir / "state"
        done = json.loads(path.read_text()) if path.exists() else 0
        while done < 6:
            call()
            visit("step")
            done += 1
            (workdir / "tmp").write_text(json.dumps(done))
            (workdir / "tmp").rename(path)
        return done
"""


@pytest.mark.slow
def test_a_search_does_not_exhaust_the_restarts(example):
    """A sound job that may restart once is not blamed for two strikes: crashes, and errors that end
    it, are limited to one.
    """
    example.with_tests(
        RESTARTED
        + """
    @chaos.crash(site="step")
    def test_crash(mlchaos, tmp_path):
        mlchaos.run(train, tmp_path, max_restarts=1).assert_recovered()

    @chaos.call_failure(target="test_it:call")
    def test_error(mlchaos, tmp_path):
        mlchaos.run(train, tmp_path, max_restarts=1).assert_recovered()

    @chaos.call_failure(target="test_it:call")
    @chaos.crash(site="step")
    def test_both(mlchaos, tmp_path):
        mlchaos.run(train, tmp_path, max_restarts=1).assert_recovered()
    """
    ).run(passed=3)


@pytest.mark.slow
def test_declared_strikes_beyond_the_restarts_give_up_with_the_reason(example):
    """Pinned strikes that exceed the restarts are GaveUp, and the message names the limit, not the
    job.
    """
    example.with_tests(
        RESTARTED
        + """
    @chaos.crash(site="step", at=[1, 3])
    def test_it(mlchaos, tmp_path):
        mlchaos.run(train, tmp_path, max_restarts=1).assert_recovered()
    """
    ).run(failed=1).has(
        "GaveUp: the subject did not finish within 1 restart: faults ended it 2 times, and "
        "max_restarts=1 allows for 1"
    )


@pytest.mark.slow
def test_a_run_that_may_not_restart_is_still_judged(example):
    """With max_restarts=0 one strike is tried, and gives up."""
    example.with_tests(
        RESTARTED
        + """
    @chaos.crash(site="step")
    def test_it(mlchaos, tmp_path):
        mlchaos.run(train, tmp_path, max_restarts=0).assert_recovered()
    """
    ).run(failed=1).has(
        "GaveUp", "max_restarts=0 allows for 0", "reproduce: @chaos.crash(site='step', at=0)"
    )
