"""The time from the end of a fault to a recovery, in the journal and in each report."""

from __future__ import annotations

import pytest

from pytest_mlchaos.core.entries import Line, RecoveryTime, Requests, Test, Timing, Trial
from pytest_mlchaos.reports.exports import figures, junit
from pytest_mlchaos.reports.html import test_view
from pytest_mlchaos.reports.journal_reader import session_of
from pytest_mlchaos.reports.rows import rows_of
from tests.example import entries_in

NAME = "test_it.py::test_it"


def session(*recoveries):
    """Return a session of one test with these recoveries."""
    entries = [
        *recoveries,
        Requests(result=0, struck=(0,), starts=(0.0,), latencies=(0.1,)),
        Trial(outcome="passed"),
    ]
    lines = [Line(NAME, 1, entry) for entry in entries]
    return session_of([*lines, Line(NAME, 0, Test(outcome="passed"))])


def recovery(seconds):
    """Return a recovery on the virtual clock."""
    return RecoveryTime(result=0, seconds=seconds)


def test_each_report_shows_the_longest_and_the_mean():
    """Those on the real clock count, too."""
    one = session(recovery(1.0), Timing(of="recovery", number=1, seconds=3.0))
    test = one.tests[NAME]
    assert rows_of(test)[0][3] == "recovers in 3.00 s"
    facts = dict(junit.properties(test))
    assert (facts["mlchaos.recovery_seconds"], facts["mlchaos.mttr_seconds"]) == ("3.000", "2.000")
    metrics = figures.of_session(one).metrics
    assert (metrics["recovery_seconds"], metrics["mttr_seconds"]) == (3.0, 2.0)
    assert ("Time to recovery", "1 s") in test_view.TestView(test).loads[0].rows


def test_a_recovery_that_did_not_take_place_is_counted():
    """It has no time."""
    one = session(recovery(1.0), recovery(None))
    test = one.tests[NAME]
    assert rows_of(test)[0][3] == "1 not recovered"
    assert dict(junit.properties(test))["mlchaos.not_recovered"] == "1"
    assert figures.of_session(one).metrics["not_recovered"] == 1


def test_prometheus_has_both():
    """One gauge for each."""
    pytest.importorskip("prometheus_client")
    from pytest_mlchaos.reports.exports import prometheus

    registry = prometheus.registry(session(recovery(1.0), recovery(3.0)))
    labels = {"test": NAME}
    assert registry.get_sample_value("mlchaos_mttr_seconds", labels) == 2.0
    assert registry.get_sample_value("mlchaos_recovery_seconds", labels) == 3.0


TESTS = """
import time

def fetch(day):
    return [day]

def load(folder):
    for _ in range(5):
        try:
            return fetch(3)
        except OSError:
            time.sleep(20)

async def app(x):
    return fetch(x)

@chaos.zone_outage(zone="eu", heal_after="30s", at=0)
def test_pipeline(mlchaos, tmp_path):
    mlchaos.zones({"eu": ["test_it:fetch"]})
    mlchaos.pipeline(load, tmp_path).assert_same_output()

@chaos.zone_outage(zone="eu", heal_after="1s", at=5)
def test_service(mlchaos):
    mlchaos.zones({"eu": ["test_it:fetch"]})
    load = mlchaos.serve(app).drive(range(30), rate=10)
    load.assert_recovered(within="1s", error_rate=0)
    assert 0 <= load.recovery_time <= 0.1

@chaos.zone_outage(zone="eu", heal_after="1h", at=5)
def test_no_time_to_recover(mlchaos):
    mlchaos.zones({"eu": ["test_it:fetch"]})
    mlchaos.serve(app).drive(range(30), rate=10).assert_slo(error_rate=0.9)
"""


@pytest.mark.slow
def test_services_and_pipelines_note_it_in_the_journal(example):
    """A load that ends before the fault does notes nothing."""
    outcome = example.with_tests(TESTS).run("--mlchaos-journal=j.jsonl", passed=3)
    outcome.has("recovers in 10.00 s")
    entries = entries_in(example.pytester.path / "j.jsonl", "recovery_time")
    times = {entry["test"].rpartition("::")[2]: entry["seconds"] for entry in entries}
    assert times == {"test_pipeline": 10.0, "test_service": pytest.approx(0.1, abs=0.1)}
