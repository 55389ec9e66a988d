"""The outputs of a session as its users see them: options, errors, xdist, the command line."""

from __future__ import annotations

import importlib.util
import json
import re
import textwrap
import time
import xml.etree.ElementTree as ET

import pytest

from pytest_mlchaos.__main__ import main
from pytest_mlchaos.reports.exports import junit
from pytest_mlchaos.reports.journal_reader import read_journals
from tests.session_logs import CRASHES, WRONG, everything

HAS_XDIST = importlib.util.find_spec("xdist") is not None
TESTS = """
    import json
    from pathlib import Path

    def save(folder):
        path = folder / "state.json"
        if path.exists():
            json.loads(path.read_text())
        path.write_text(json.dumps([1] * 9))
        return path.read_text()

    def test_any_moment(mlchaos, tmp_path):
        mlchaos.explore_crashes(save, tmp_path).assert_recovers()

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    def test_passes(mlchaos):
        def subject():
            try:
                return json.dumps(1)
            except ConnectionError:
                return "1"
        mlchaos.run(subject).assert_recovered()

    @chaos.call_failure(target="json:dumps", error="ConnectionError")
    def test_search():
        json.dumps(1)
        json.dumps(2)

    def test_plain():
        pass
"""
WITHOUT_CHAOS = "def test_plain(): pass\ndef test_fails(): assert 0"
MODES = [
    pytest.param(("-p", "no:xdist"), id="alone"),
    pytest.param(
        ("-n", "2"),
        id="xdist",
        marks=[pytest.mark.slow, pytest.mark.skipif(not HAS_XDIST, reason="needs xdist")],
    ),
]


@pytest.fixture
def project(example):
    """A project with a passing test, a failing search and a failing exploration."""
    return example.with_tests(TESTS)


def properties(path):
    """Return the properties in a JUnit file, by test."""
    return {
        case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")}
        for case in ET.parse(path).iter("testcase")
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_sarif_names_the_users_lines(project, mode):
    """The cause of an exploration is in the subject, that of a search in the test."""
    project.run("--mlchaos-sarif=x.sarif", *mode, passed=2, failed=2)
    log = json.loads((project.pytester.path / "x.sarif").read_text())
    if importlib.util.find_spec("sarif_kit"):
        from sarif_kit.validate import validation_errors

        assert validation_errors(log) == []
    lines = (project.pytester.path / "test_it.py").read_text().splitlines()
    found, prints = {}, set()
    for result in log["runs"][0]["results"]:
        where = result["locations"][0]["physicalLocation"]
        assert where["artifactLocation"]["uri"] == "test_it.py"
        line = lines[where["region"]["startLine"] - 1].strip()
        test = result["properties"]["test"].partition("::")[2]
        found.setdefault((test, result["ruleId"]), []).append(line)
        prints.add(result["partialFingerprints"]["mlchaosCause/v1"])
    assert found == {
        ("test_any_moment", "crash-failed"): ["json.loads(path.read_text())"],
        ("test_search", "call_failure"): ["json.dumps(1)", "json.dumps(2)"],
    }
    assert len(prints) == 3
    texts = [result["message"]["text"] for result in log["runs"][0]["results"]]
    assert any('@chaos.crash(state="state.json@' in text for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_junit_has_properties_by_name(project, mode):
    """On each chaos test, whether it passes or fails, and on no other."""
    project.run("--junitxml=junit.xml", *mode, passed=2, failed=2)
    found = properties(project.pytester.path / "junit.xml")
    assert found["test_plain"] == {}
    faults = "call_failure(at=0, target='json:dumps', error='ConnectionError')"
    assert found["test_passes"] == {
        "mlchaos": "1 trials, 1 faults struck",
        "mlchaos.verdict": "passed",
        "mlchaos.trials": "1",
        "mlchaos.strikes": "1",
        "mlchaos.faults": faults,
    }
    failed = found["test_search"]
    assert failed["mlchaos"] == "6 trials, 5 faults struck"
    assert failed["mlchaos.verdict"] == "failed"
    assert failed["mlchaos.causes"] == "2"
    assert failed["mlchaos.rule"] == "call_failure"
    assert failed["mlchaos.place"] == "test_it.py:27"
    assert failed["mlchaos.reproduce"] == f"@chaos.{faults}"
    assert failed["mlchaos.replay"] == faults
    explored = found["test_any_moment"]
    assert explored["mlchaos.states"] == explored["mlchaos.states.tried"] == "3"
    assert explored["mlchaos.states.bad"] == "1"
    assert "mlchaos.lost_steps" not in explored  # no step of torch was seen
    assert explored["mlchaos.reproduce"] == '@chaos.crash(state="state.json@0#0")'
    assert explored["mlchaos.help"].endswith("howto/crashes/#read-the-report")


def test_lost_steps_are_a_property():
    """If steps were seen."""
    found = dict(junit.properties(everything().tests[CRASHES]))
    assert found["mlchaos.lost_steps"] == "3"
    assert found["mlchaos.restart_seconds"] == "0.090"
    assert found["mlchaos.states.bad"] == "4"
    assert dict(junit.properties(everything().tests[WRONG]))["mlchaos.verdict"] == "inconclusive"


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_github_gets_a_summary_and_annotations(project, monkeypatch, mode):
    """GitHub Actions needs no option. The annotations are lines of their own."""
    summary = project.pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    outcome = project.run(*mode, "-q")
    lines = [line for line in outcome.text.splitlines() if "::error" in line]
    assert len(lines) == 3
    assert all(
        re.match(r"::error file=test_it\.py,line=\d+,title=test_\w+%3A [\w-]+::", x) for x in lines
    )
    text = summary.read_text()
    assert text.startswith("## Chaos tests: 1 passed, 2 failed\n")
    assert text.count("<details>") == len(lines)
    assert "test&#95;plain" not in text


@pytest.mark.slow
def test_github_can_be_switched_off(project, monkeypatch):
    """By the ini option."""
    summary = project.pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    outcome = project.with_ini("mlchaos_github = false").run(passed=2, failed=2)
    assert "::error" not in outcome.text
    assert not summary.exists()


@pytest.mark.slow
def test_sessions_without_chaos_tests_are_left_alone(example, monkeypatch):
    """Also on GitHub Actions."""
    summary = example.pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    outcome = example.with_tests(WITHOUT_CHAOS).run(passed=1, failed=1)
    assert "::error" not in outcome.text
    assert not summary.exists()


def test_an_unwritable_summary_does_not_end_the_session(project, monkeypatch):
    """GitHub's file is not the user's choice, so this is not a usage error."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.pytester.path))
    outcome = project.run("-k", "passes", passed=1)
    outcome.has("mlchaos: --mlchaos-github: the output was not written: ")


@pytest.mark.parametrize("option", ["sarif", "github"])
def test_a_directory_is_refused_at_the_start(project, option):
    """In one line, before a test runs."""
    (project.pytester.path / "folder").mkdir()
    outcome = project.run(f"--mlchaos-{option}=folder")
    assert outcome.exit_code == 4
    assert not outcome.outcomes
    outcome.has(f"ERROR: --mlchaos-{option} must be a file, got 'folder'")


@pytest.mark.parametrize(
    ("option", "module", "extra"),
    [
        ("--mlchaos-otel", "opentelemetry.sdk.trace", "otel"),
        ("--mlchaos-prometheus=x.prom", "prometheus_client", "prometheus"),
    ],
)
def test_a_missing_library_is_named_at_the_start(project, monkeypatch, option, module, extra):
    """In one line, with the command that installs it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == module else find(name, *rest),
    )
    outcome = project.run(option)
    assert outcome.exit_code == 4
    outcome.has(f"python -m pip install 'pytest-mlchaos[{extra}]'")


def test_metrics_of_a_session(project):
    """From the trials that ran."""
    pytest.importorskip("prometheus_client", reason="needs prometheus_client")
    project.run("--mlchaos-prometheus=x.prom", passed=2, failed=2)
    text = (project.pytester.path / "x.prom").read_text()
    strikes = (
        'mlchaos_strikes_total{fault="call_failure",site="call",test="test_it.py::test_passes"}'
    )
    assert f"{strikes} 1.0" in text
    judged = 'oracle="Run.assert_recovered",test="test_it.py::test_passes",verdict="passed"'
    assert f"mlchaos_judgements_total{{{judged}}} 1.0" in text
    assert 'mlchaos_crash_states_total{test="test_it.py::test_any_moment",verdict="failed"}' in text


@pytest.mark.slow
def test_a_trace_of_a_session(project, monkeypatch):
    """The exporter of the console shows the spans."""
    pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    outcome = project.run("--mlchaos-otel", ".", interpreter=True, passed=2, failed=2)
    outcome.has('"name": "mlchaos.run"', '"test.case.name": "test_it.py::test_passes"')


@pytest.mark.slow
def test_the_commands_write_the_same_outputs(project, capsys, monkeypatch):
    """From the journal, later."""
    monkeypatch.chdir(project.pytester.path)
    project.run("--mlchaos-journal=j.jsonl", "--mlchaos-sarif=one.sarif", passed=2, failed=2)
    assert main(["report", "j.jsonl", "--sarif=two.sarif", "--github=summary.md"]) == 0
    one, two = ((project.pytester.path / name).read_text() for name in ("one.sarif", "two.sarif"))
    assert one == two
    assert "::error file=test_it.py" in capsys.readouterr().out
    assert (project.pytester.path / "summary.md").read_text().startswith("## Chaos tests: 1 passed")


ATTEMPTS = """
    import time

    @chaos.call_failure(target="json:dumps", error="ConnectionError", at=0)
    @pytest.mark.parametrize("isolation", ISOLATIONS)
    def test_restarts(mlchaos, isolation):
        seconds = 3600 if isolation == "in-process" else 0.05
        run = mlchaos.run(subject, seconds, isolation=isolation)
        assert run.restarts == 1

    def subject(seconds):
        time.sleep(seconds)
        return json.dumps(1)
"""


@pytest.mark.slow
def test_attempts_have_real_times(example):
    """Each attempt is timed on the wall clock, inside its run, also if the clock is virtual."""
    isolations = (
        ["in-process", "process"] if importlib.util.find_spec("cloudpickle") else ["in-process"]
    )
    tests = f"import json\nimport pytest\nISOLATIONS = {isolations}\n" + textwrap.dedent(ATTEMPTS)
    began = time.time()
    run = example.with_tests(tests).run("--mlchaos-journal=j.jsonl", passed=len(isolations))
    session = read_journals([example.pytester.path / "j.jsonl"])
    for test in session.tests.values():
        whole = test.timing("result", 1, 0)
        first, second = (test.timing("attempt", 1, 0, name) for name in ("0", "1"))
        assert began < whole.start <= first.start < second.start
        assert second.start >= first.start + first.seconds - 0.01
        assert second.start + second.seconds <= whole.start + whole.seconds + 0.01
        assert whole.seconds < 600, run.text
