"""The fault coverage that follows from a journal, without a session."""

from __future__ import annotations

from pytest_mlchaos.core.coverage_entries import Guard, Recovery, Scope, Touch
from pytest_mlchaos.core.entries import Exploration, Judgement, Line, State, StrikeEntry, Trial
from pytest_mlchaos.core.entries import Test as TestEnd
from pytest_mlchaos.reports.coverage_table import coverage_rows
from pytest_mlchaos.reports.fault_coverage import coverage_of
from pytest_mlchaos.reports.guards import guards_of
from pytest_mlchaos.reports.journal_reader import session_of

TEST = "test_it.py::test_one"
END = TestEnd(outcome="passed")


def session(*entries, trial=1, scope=None, test=TEST):
    """The session with one trial of one test."""
    lines = [Line(test, trial, entry) for entry in entries]
    return session_of([*lines, Line(test, 0, scope or Scope()), Line(test, 0, END)])


def strike(fault="crash(at=3)", site="train.step", **more):
    """A strike."""
    return StrikeEntry(fault=fault, site=site, visit=3, **{"point": site, **more})


def states(found):
    """The state of each fault point."""
    return {point.name: point.state for point in found.points}


def test_points_have_the_four_states():
    """Each state has its fault point, and the percentage counts the judged ones."""
    found = coverage_of(
        session(
            strike(result=0),
            strike("gpu_oom(at=1)", "train.forward"),
            Judgement(oracle="Run.assert_recovered", verdict="passed", result=0),
            Trial(outcome="passed", visits={"train.step": 5, "train.forward": 5, "data.batch": 5}),
            scope=Scope(declared=(("crash", "train.step"), ("flaky_storage", "storage *.pt"))),
        )
    )
    assert states(found) == {
        "data.batch": "unstruck",
        "storage *.pt": "unvisited",
        "train.forward": "unjudged",
        "train.step": "judged",
    }
    assert (found.percent, found.shown_percent, found.count("judged")) == (25.0, 25, 1)
    assert [point.visits for point in found.points] == [5, 0, 5, 5]


def test_strike_is_judged_by_its_own_result_only():
    """A judgement on a different result, or in a different trial, says nothing about a strike."""
    other = Judgement(oracle="Run.assert_recovered", verdict="passed", result=1)
    one = session(strike(result=0), other, Trial(outcome="passed"))
    assert states(coverage_of(one)) == {"train.step": "unjudged"}
    lines = [
        Line(TEST, 1, strike(result=0)),
        Line(TEST, 1, Trial(outcome="passed")),
        Line(TEST, 2, Judgement(oracle="a", verdict="passed", result=0)),
        Line(TEST, 2, Trial(outcome="passed")),
        Line(TEST, 0, Scope()),
    ]
    assert states(coverage_of(session_of(lines))) == {"train.step": "unjudged"}


def test_strike_is_judged_by_a_later_check_of_the_test():
    """The line of the strike decides. A strike at an unknown line is not judged by a check."""
    for line, state in ((7, "judged"), (9, "judged"), (10, "unjudged"), (0, "unjudged")):
        found = coverage_of(
            session(strike(line=line), Trial(outcome="passed"), scope=Scope(last_check=9))
        )
        assert states(found) == {"train.step": state}, line


def test_strike_is_judged_by_a_failed_trial_not_by_a_skipped_one():
    """A failure is a judgement. A skip is none."""
    for outcome, state in (("failed", "judged"), ("skipped", "unjudged"), ("passed", "unjudged")):
        found = coverage_of(session(strike(), Trial(outcome=outcome)))
        assert states(found) == {"train.step": state}, outcome


def test_explorations_are_points():
    """The crash states that were tried count as strikes, and their assertion judges them."""
    entries = [Exploration(number=0, states=9, tried=7, bad=0), Trial(outcome="passed")]
    assert states(coverage_of(session(*entries))) == {"crash.state": "unjudged"}
    judged = Judgement(oracle="CrashReport.assert_recovers", verdict="passed", result=0)
    found = coverage_of(session(*entries, judged))
    assert states(found) == {"crash.state": "judged"}
    assert [(cell.fault, cell.strikes) for cell in found.points[0].cells] == [("crash", 7)]


def test_crash_states_strike_the_files_that_they_are_about():
    """The path of a state is relative to the work directory, which may be below the test's."""
    found = coverage_of(
        session(
            Touch(point="storage run/ckpt-*.pt", function="a.py:save"),
            Touch(point="storage run/best.pt", function="a.py:save"),
            Exploration(number=0, states=3, tried=3, bad=0),
            *(
                State(
                    exploration=0, state=f"ckpt-{n}.pt#1", verdict="recovered", path=f"ckpt-{n}.pt"
                )
                for n in (1, 2)
            ),
            Judgement(oracle="CrashReport.assert_recovers", verdict="passed", result=0),
            Trial(outcome="passed"),
        )
    )
    assert states(found) == {
        "crash.state": "judged",
        "storage run/best.pt": "unstruck",
        "storage run/ckpt-*.pt": "judged",
    }
    assert [one.points for one in found.never_faulted] == [("storage run/best.pt",)]


def test_functions_with_points_that_were_never_faulted():
    """A fault at the same point in a different function does not count."""
    found = coverage_of(
        session(
            Touch(point="call client:Client.get", function="a.py:load"),
            Touch(point="call client:Client.get", function="b.py:load"),
            Touch(point="storage c-*.pt", function="a.py:save"),
            Touch(point="call web:get", function="a.py:load"),
            strike(
                "slow_call(at=0)",
                "call",
                point="call socket:send",
                through=("call client:Client.get",),
                function="a.py:load",
                result=0,
            ),
            Judgement(oracle="x", verdict="passed", result=0),
            Trial(outcome="passed", visits={"call socket:send": 3}),
        )
    )
    assert [(one.function, one.points) for one in found.never_faulted] == [
        ("a.py:load", ("call web:get",)),
        ("a.py:save", ("storage c-*.pt",)),
        ("b.py:load", ("call client:Client.get",)),
    ]
    assert states(found)["call client:Client.get"] == "judged"


def test_recovery_code_is_reached_if_any_test_reached_it():
    """Tests add up."""
    one = Recovery(file="a.py", line=4, what="except OSError", function="load")
    two = Recovery(file="a.py", line=9, what="finally", function="load")
    reached = Recovery(file="a.py", line=4, what="except OSError", function="load", reached=True)
    lines = [
        *(Line("a", 0, entry) for entry in (Scope(), one, two)),
        *(Line("b", 0, entry) for entry in (Scope(), reached)),
    ]
    assert [(one.line, one.what) for one in coverage_of(session_of(lines)).unreached] == [
        (9, "finally")
    ]


def test_tests_without_coverage_do_not_count():
    """A journal that was written without --mlchaos-cov has no fault coverage."""
    lines = [Line(TEST, 1, strike()), Line(TEST, 1, Trial(outcome="passed", visits={"a": 1}))]
    assert coverage_of(session_of(lines)).points == ()


def test_declared_pattern_meets_the_files_that_it_matches():
    """A pattern is not a fault point of its own if a file matches it."""
    found = coverage_of(
        session(
            Touch(point="storage out/ckpt-*.pt", function="a.py:save"),
            Trial(outcome="passed"),
            scope=Scope(declared=(("flaky_storage", "storage *.pt"), ("slow_call", "call a:b"))),
        )
    )
    assert states(found) == {"call a:b": "unvisited", "storage out/ckpt-*.pt": "unstruck"}


def test_guards_name_what_saw_each_fault():
    """Oracles, exceptions, and the trials in which nothing failed."""
    lines = [
        Line(TEST, 1, strike("nan(at=1)")),
        Line(TEST, 1, Judgement(oracle="Run.assert_recovered", verdict="failed", error="Diverged")),
        Line(TEST, 1, Trial(outcome="failed", error="Diverged")),
        Line(TEST, 2, strike("nan(at=2)")),
        Line(TEST, 2, Guard(error="ValueError", place="a.py:3 in check")),
        Line(TEST, 2, Trial(outcome="failed", error="ValueError", place="a.py:3 in check")),
        Line(TEST, 3, strike("nan(at=3)")),
        Line(TEST, 3, Trial(outcome="passed")),
        Line(TEST, 4, Trial(outcome="failed", error="KeyError")),
    ]
    assert [
        (one.fault, one.check, one.seen, one.trials) for one in guards_of(session_of(lines))
    ] == [
        ("nan", "Run.assert_recovered", 1, 3),
        ("nan", "ValueError at a.py:3 in check", 1, 3),
        ("nan", "no check", 1, 3),
    ]


def test_rows_fit_narrow_terminals():
    """No line of the table is wider than the terminal, unless one name alone is."""
    data = session(
        strike(),
        strike("flaky_storage(at=1)", "storage", point="storage out/deep/checkpoint-*.safetensors"),
        Touch(point="storage out/deep/checkpoint-*.safetensors", function="a.py:save"),
        Recovery(file="a.py", line=4, what="except OSError", function="load"),
        Trial(outcome="passed", visits={"train.step": 3}),
    )
    for width in (200, 80, 50):
        rows = coverage_rows(coverage_of(data), guards_of(data), width=width)
        assert max(len(row.text) for row in rows) <= max(width, 62), width
    text = "\n".join(row.text for row in rows)
    for part in ("not judged", "a.py:4", "except OSError", "a.py:save", "no check"):
        assert part in text
    assert "fault coverage: 0 % (0 of 2 fault points struck and judged)" in text


def test_rows_are_limited_unless_all_are_wanted():
    """A long list is cut, and says so."""
    data = session(Trial(outcome="passed", visits={f"site.{n}": 1 for n in range(60)}))
    short, long = (
        coverage_rows(coverage_of(data), [], width=80, everything=everything)
        for everything in (False, True)
    )
    assert len(short) == 42
    assert "... and 20 more fault points" in short[40].text
    assert len(long) == 61
