"""``--mlchaos-incidents``: a report on each failing test, with timeline and blast radius."""

from __future__ import annotations

import random

from pytest_mlchaos.__main__ import main
from pytest_mlchaos.core import entries
from pytest_mlchaos.reports import incidents
from pytest_mlchaos.reports.journal_reader import session_of
from pytest_mlchaos.reports.outputs import OUTPUTS

from . import synthetic_journal
from .session_logs import CRASHES, SEARCH, everything, session

TEST = "t.py::test_it"


def told(log, test=TEST):
    """Return the report on a test."""
    return incidents.incident_text(log.tests[test])


def section(text, title):
    """Return the lines of one section."""
    return [
        line
        for line in text.partition(f"## {title}\n")[2].partition("\n## ")[0].split("\n")
        if line
    ]


def failing(*parts, **end):
    """Return the session of a failing test with these entries in its first trial."""
    ended = entries.Test(outcome="failed", error="Boom", **end)
    trial = entries.Trial(outcome="failed", error="Boom", cause="Boom: it broke")
    return session(*((TEST, 1, part) for part in (*parts, trial)), (TEST, 0, ended))


def strike(visit, **details):
    """Return a strike of a call."""
    return entries.StrikeEntry(
        fault=f"call_failure(at={visit})", site="call", visit=visit, details=details
    )


def test_it_says_what_failed_and_how_to_repeat_it():
    """The smallest schedule, the line to paste, the command, and the versions."""
    text = told(everything(), SEARCH)
    assert f"# {SEARCH} fails: NotRecovered" in text
    assert section(text, "Smallest schedule")[1] == "@chaos.gpu_oom(at=7)"
    assert "3 of 4 trials failed. This is the smallest schedule among them." in text
    assert f'pytest {SEARCH} --mlchaos-replay "gpu_oom(at=7)"' in text
    assert section(text, "Environment")


def test_the_timeline_is_in_the_order_of_the_clock():
    """Strikes are in a fixed order in the journal, which need not be that of time."""
    log = failing(
        strike(0, target="a:b"),
        strike(3),
        entries.Timing(of="strike", number=0, seconds=2.0),
        entries.Timing(of="strike", number=1, seconds=0.5),
        entries.Detection(
            result=0,
            monitor="alarm",
            fault="call_failure",
            outcome="detected",
            visits=4,
            seconds=1.0,
        ),
        entries.ResultEntry(number=0, method="mlchaos.run", attempts=("crashed", "finished")),
        entries.RecoveryTime(result=0, seconds=7.0),
        entries.Judgement(oracle="Run.assert_recovered", verdict="failed", error="Boom"),
    )
    assert section(told(log), "Timeline") == [
        "Seconds since the start of the trial, on its virtual clock.",
        "| time | event |",
        "|---|---|",
        "| 0.500 s | strike: `call_failure(at=3)` at `call` 3 |",
        "| 2.000 s | strike: `call_failure(at=0)` at `call` 0 (target=a:b) |",
        "| 1.500 s | detection: alarm detected call_failure, 4 visits later |",
        "| – | attempt 1 of mlchaos.run: crashed |",
        "| – | attempt 2 of mlchaos.run: finished |",
        "| 9.000 s | recovery: 7.000 s after the end of the last fault |",
        "| – | verdict: Run.assert_recovered failed (Boom) |",
        "| – | end: Boom: it broke |",
    ]


def test_times_that_are_not_known_are_not_made_up():
    """A strike of a different process has no time, so neither has what is relative to it."""
    log = failing(
        strike(0),
        strike(1),
        entries.Timing(of="strike", number=0, seconds=2.0),
        entries.Detection(result=0, monitor="alarm", fault="x", outcome="missed"),
        entries.RecoveryTime(result=0, seconds=7.0),
        real_clock=True,
    )
    rows = section(told(log), "Timeline")
    assert rows[0].endswith("on its real clock.")
    assert "| – | recovery: 7.000 s after the end of the last fault |" in rows
    assert "| – | detection: alarm did not detect x |" in rows


def test_only_the_failing_trial_is_told():
    """A search has many trials. It is the one with the schedule that is reported."""
    rows = section(told(everything(), SEARCH), "Timeline")
    assert sum("strike:" in row for row in rows) == 1
    assert any("`gpu_oom(at=7)` at `train.step` 7" in row for row in rows)


def test_many_strikes_are_counted():
    """The last one is named."""
    log = failing(*(strike(visit) for visit in range(30)))
    rows = [row for row in section(told(log), "Timeline") if "strike" in row]
    assert len(rows) == 11
    assert "20 more strikes, the last one: `call_failure(at=29)`" in rows[-1]


def test_the_blast_radius_names_what_else_was_harmed():
    """Requests that no fault struck, ranks, restarts, clients, and crash states by file."""
    log = failing(
        strike(0, target="a:b", path="x.pt"),
        entries.Requests(result=0, failed=(2, 3, 5), struck=(2,), starts=(0.0,) * 9),
        entries.Rank(result=1, rank=0, outcome="halted"),
        entries.Rank(result=1, rank=1, outcome="hung"),
        entries.Rank(result=1, rank=2, outcome="hung"),
        entries.ResultEntry(number=2, method="mlchaos.run", attempts=("a", "b", "c")),
        entries.FederationRound(result=3, number=4, failed=(1, 2), restarted=True),
    )
    assert section(told(log), "Blast radius") == [
        "- struck: `call` (1 time)",
        "- files that were struck: `x.pt` (1 time)",
        "- functions that were struck: `a:b` (1 time)",
        "- mlchaos.run: 2 restarts",
        "- round 4: 2 clients failed and the server died and the round was repeated",
        "- requests: 3 of 9 requests failed. No fault struck 2 of these",
        "- ranks: 1 halted, 2 hung",
    ]
    assert section(told(everything(), CRASHES), "Blast radius") == [
        "- crash states: 4 of 5 do not recover, at `last.ckpt` (2 states)",
        "- lost work: at most 3 steps",
    ]


def test_each_failing_test_gets_a_file(tmp_path):
    """Those of tests that pass now are removed."""
    dice = random.Random(1)
    test = "tests/test_api.py::test_slo"
    bad = session_of(synthetic_journal.serving(test, dice, slow=True))
    incidents.write(bad, str(tmp_path / "incidents"))
    (path,) = (tmp_path / "incidents").iterdir()
    assert path.name == "tests.test_api.py.test_slo.md"
    assert "the first that failed, 1.200 s after the start of its load" in path.read_text()
    incidents.write(session_of(synthetic_journal.serving(test, dice)), str(tmp_path / "incidents"))
    assert not path.exists()


def test_the_issue_of_a_bundle_is_the_same_report(tmp_path, monkeypatch):
    """With what the bundle has besides."""
    monkeypatch.chdir(tmp_path)
    bundle = next(output for output in OUTPUTS if output.name == "bundle").load()
    bundle.write(everything(), "bundle")
    issue = next(tmp_path.glob("bundle/*test_search/ISSUE.md")).read_text()
    assert [line for line in told(everything(), SEARCH).split("\n") if line not in issue] == []
    assert "`python repro.py` does it without a checkout." in issue


TIMED = """
    import json
    import time

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=1)
    def test_late():
        json.dumps(1)
        time.sleep(5)
        json.dumps(2)
"""


def test_a_session_and_its_journal_write_the_same(example, pytester):
    """Strikes have their times on the virtual clock."""
    project = example.with_tests(TIMED)
    project.run("--mlchaos-incidents=a", "--mlchaos-journal=j.jsonl", failed=1)
    text = (pytester.path / "a" / "test_it.py.test_late.md").read_text()
    assert "| 5.000 s | strike: `call_failure(" in text
    assert main(["report", "j.jsonl", "--incidents", "b"]) == 0
    assert (pytester.path / "b" / "test_it.py.test_late.md").read_text() == text
