"""The fault coverage of sessions whose answer is known by construction."""

from __future__ import annotations

import re

import pytest

from tests.example import Example

PRODUCT = """
import json
import subprocess
import sys


def one():
    return 1


def two():
    return 2


def three():
    return 3


def save(path, number):
    with open(path / f"ckpt-{number}.json", "w") as file:
        json.dump({}, file)


def log(path):
    with open(path / "log.txt", "a") as file:
        file.write("done")


def ask():
    return subprocess.run([sys.executable, "-c", "pass"], check=True)


def work():
    json.loads("{}")
"""
TESTS = """
import pytest
import product

@chaos.call_failure(target="product:one", error=OSError(5, "no"), at=0)
def test_judged():
    with pytest.raises(OSError):
        product.one()

@chaos.call_failure(target="product:two", error=OSError(5, "no"), at=0)
def test_not_judged():
    try:
        product.two()
    except OSError:
        pass

@chaos.call_failure(target="product:three", error=OSError(5, "no"), at=5)
@chaos.settings(allow_quiet=True)
def test_never_struck():
    assert product.three()

@chaos.call_failure(target="product:work", error=OSError(5, "no"), at=0)
@chaos.settings(allow_quiet=True)
def test_never_visited():
    assert True

@chaos.flaky_storage(path="ckpt-*", at=0)
def test_storage(tmp_path):
    product.log(tmp_path)
    with pytest.raises(OSError):
        product.save(tmp_path, 3)
    product.work()
    product.ask()
"""
ROWS = {
    "call product:one": ("judged", "call_failure 1"),
    "call product:three": ("never struck", "call_failure never struck"),
    "call product:two": ("not judged", "call_failure 1 (not judged)"),
    "call product:work": ("never visited", "call_failure never visited"),
    "call subprocess:run": ("never struck", ""),
    "storage ckpt-*.json": ("judged", "flaky_storage 1"),
    "storage log.txt": ("never struck", ""),
}


@pytest.fixture
def project(example: Example) -> Example:
    """A project with one fault point of each state, and some that no test declares."""
    return example.with_file("product.py", PRODUCT.strip() + "\n").with_tests(TESTS)


def rows(text: str) -> dict[str, tuple[str, str]]:
    """The rows of the table: the state and the faults of each fault point."""
    found = re.findall(
        r"^(judged|not judged|never struck|never visited) +((?:call |storage )?\S+) *(.*)$",
        text,
        re.M,
    )
    return {point: (state, faults) for state, point, faults in found}


@pytest.mark.parametrize("more", [(), pytest.param(("-n2",), marks=pytest.mark.slow)])
def test_table_is_right_on_a_known_project(project, more):
    """Each fault point has its state, and the list of what was never faulted is exact."""
    outcome = project.run("--mlchaos-cov", *more, passed=5)
    assert rows(outcome.text) == ROWS
    outcome.has("fault coverage: 28 % (2 of 7 fault points struck and judged)")
    never = outcome.text.partition("never faulted there:\n")[2].partition("\n\n")[0]
    assert never.split("\n")[:2] == [
        "  product.py:ask   call subprocess:run",
        "  product.py:log   storage log.txt",
    ]
    outcome.has("note: coverage.py does not measure this session. Run pytest with --cov")


@pytest.mark.slow
def test_session_fails_under_a_percentage(project):
    """The exit code is that of failed tests, and a line says why."""
    outcome = project.run("--mlchaos-cov-fail-under=28.6", passed=5)
    outcome.has(
        "FAIL mlchaos: the fault coverage is 28 %, and --mlchaos-cov-fail-under asks for 28.6 %"
    )
    assert outcome.exit_code == 1
    assert project.run("--mlchaos-cov-fail-under=28", passed=5).exit_code == 0
    assert project.run("-n2", "--mlchaos-cov-fail-under=80%", passed=5).exit_code == 1


@pytest.mark.slow
def test_ini_options_do_the_same(project):
    """The command line wins over the ini file."""
    project = project.with_ini("mlchaos_cov = true\nmlchaos_cov_fail_under = 80")
    assert project.run(passed=5).exit_code == 1
    assert project.run("--mlchaos-cov-fail-under=10", passed=5).exit_code == 0


@pytest.mark.parametrize("given", ["101", "-1", "much", "nan", ""])
def test_wrong_percentages_are_usage_errors(project, given):
    """At the start, in one line."""
    outcome = project.run(f"--mlchaos-cov-fail-under={given}")
    if given:
        outcome.has("--mlchaos-cov-fail-under must be a percentage from 0 to 100, got")
        assert outcome.exit_code == 4


@pytest.mark.slow
def test_selected_tests_alone_count(project):
    """A subset is judged by its own fault points, and one without chaos tests by none."""
    outcome = project.run("--mlchaos-cov-fail-under=100", "-k", "test_judged", passed=1)
    assert outcome.exit_code == 0
    assert list(rows(outcome.text)) == ["call product:one"]
    plain = project.with_file("test_plain.py", "def test_plain():\n    pass\n")
    outcome = plain.run("--mlchaos-cov-fail-under=100", "-k", "plain", passed=1)
    outcome.has("fault coverage: nothing was measured, because no chaos test ran")
    assert outcome.exit_code == 0


def test_nothing_is_measured_when_switched_off(project):
    """A session without faults has nothing to measure, and does not fail because of it."""
    off = project.with_tests("@chaos.crash(at=0)\ndef test_it():\n    assert True\n")
    outcome = off.run("--mlchaos-off", "--mlchaos-cov-fail-under=80", passed=1)
    outcome.has("fault coverage: not measured, because of --mlchaos-off")
    assert outcome.exit_code == 0


@pytest.mark.slow
def test_quiet_sessions_show_the_total_alone(project):
    """``-q`` shows one line, and ``-qq`` none."""
    quiet = project.run("--mlchaos-cov", "-q").text
    assert rows(quiet) == {}
    assert quiet.count("fault coverage: 28 %") == 1
    assert "fault coverage" not in project.run("--mlchaos-cov", "-qq").text


@pytest.mark.slow
def test_journal_is_the_same_with_workers(project):
    """The entries of the fault coverage do not depend on the order of the tests."""
    texts = []
    for more in ((), ("-n2",)):
        options = ("--mlchaos-cov", "--mlchaos-journal=j.jsonl", *more)
        project.run(*options, interpreter=True, passed=5)
        texts.append((project.pytester.path / "j.jsonl").read_text())
    assert texts[0] == texts[1]
    assert '"kind": "scope"' in texts[0]


def test_results_are_judged_by_their_own_assertions(example):
    """A judgement on one run says nothing about the other, in the same test."""
    outcome = example.with_tests(
        """
        @chaos.register
        class Nudge(Fault):
            site = "other.place"
            def apply(self, visit):
                return 1

        def send():
            return 1

        def subject():
            try:
                return send()
            except OSError:
                return 1

        def other():
            visit("other.place")
            return 2

        @chaos.call_failure(target="test_it:send", error=OSError(5, "no"), at=0)
        @chaos.nudge(at=0)
        def test_both(mlchaos):
            first = mlchaos.run(subject)
            second = mlchaos.run(other)
            second.assert_recovered()
        """
    ).run("--mlchaos-cov", passed=1)
    assert rows(outcome.text) == {
        "other.place": ("judged", "nudge 1"),
        "call test_it:send": ("not judged", "call_failure 1 (not judged)"),
    }


def test_failing_trials_judge_their_strikes(example):
    """A test that fails has judged, and the check that saw the fault is named."""
    outcome = example.with_tests(
        """
        def send():
            return 1

        def check(value):
            if value != 1:
                raise ValueError("bad")

        @chaos.call_failure(target="test_it:send", error=OSError(5, "no"), at=0)
        def test_raises():
            send()

        @chaos.call_failure(target="test_it:send", error=OSError(5, "no"), at=0)
        def test_validator():
            try:
                value = send()
            except OSError:
                value = 2
            check(value)
        """
    ).run("--mlchaos-cov", "-v", failed=2)
    assert rows(outcome.text) == {"call test_it:send": ("judged", "call_failure 2")}
    outcome.has(
        "call_failure  OSError (the fault's own)            2 of 2 trials",
        "call_failure  ValueError at test_it.py:",
    )


@pytest.mark.slow
def test_checks_are_seen_where_they_end(example):
    """An exception that the test expects, one of a pipeline, and one of a request."""
    outcome = example.with_tests(
        """
        import pytest

        def send():
            return 1

        def checked(*_):
            try:
                value = send()
            except OSError:
                value = 2
            if value != 1:
                raise ValueError("bad")

        @chaos.call_failure(target="test_it:send", error=OSError(5, "no"), at=0)
        def test_expected():
            with pytest.raises(ValueError):
                checked()

        @chaos.call_failure(target="test_it:send", error=OSError(5, "no"), at=0)
        def test_pipeline(mlchaos):
            assert mlchaos.pipeline(checked).error is not None

        @chaos.call_failure(target="test_it:send", error=OSError(5, "no"), at=0)
        def test_service(mlchaos):
            service = mlchaos.serve(checked)
            assert service.drive([1, 2]).error_rate == 0.5
        """
    ).run("--mlchaos-cov", passed=3)
    outcome.has("ValueError at test_it.py:14 in checked  3 of 3 trials")
    assert rows(outcome.text)["call test_it:send"] == ("judged", "call_failure 3")


@pytest.mark.slow
def test_each_load_is_judged_by_itself(example):
    """A judgement on the first load says nothing about a strike in the second."""
    outcome = example.with_tests(
        """
        def send():
            return 1

        def handler(request):
            try:
                return send()
            except OSError:
                return 1

        @chaos.call_failure(target="test_it:send", error=OSError(5, "no"), at=3)
        @chaos.settings(allow_quiet=True)
        def test_service(mlchaos):
            service = mlchaos.serve(handler)
            service.drive([1, 2]).assert_slo(error_rate=0.5)
            service.drive([1, 2])
        """
    ).run("--mlchaos-cov", passed=1)
    assert rows(outcome.text)["call test_it:send"] == ("not judged", "call_failure 1 (not judged)")


def test_report_command_shows_the_coverage_of_a_journal(project, capsys):
    """Later, from the journal alone."""
    from pytest_mlchaos.__main__ import main

    project.run("--mlchaos-cov", "--mlchaos-journal=j.jsonl", passed=5)
    main(["report", str(project.pytester.path / "j.jsonl"), "--sarif", "s.json"])
    assert rows(capsys.readouterr().out) == ROWS
