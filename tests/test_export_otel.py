"""OpenTelemetry: a session as a trace, by the conventions for tests and CI."""

from __future__ import annotations

import http.server
import os
import re

import pytest

from pytest_mlchaos.core import entries
from pytest_mlchaos.errors import BadArgument, MissingExtra
from pytest_mlchaos.reports.collector import write_journal
from pytest_mlchaos.reports.exports import otel
from tests.session_logs import CRASHES, OWN, PASSED, SEARCH, START, everything, session
from tests.test_export_prometheus import served

SECOND = 1_000_000_000


@pytest.fixture
def memory():
    """A provider that keeps its spans, as ``(provider, spans)``."""
    pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter.get_finished_spans


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """No variable of a CI system or of OpenTelemetry is set."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "GITHUB_", "CI_", "TRACE")):
            monkeypatch.delenv(name)


def by_name(spans):
    """Return the spans by name, and the children of each."""
    return {span.name: span for span in spans}


def parents(spans):
    """Return the name of each span's parent by the names."""
    names = {span.context.span_id: span.name for span in spans}
    return {(span.name, names.get(span.parent.span_id) if span.parent else None) for span in spans}


def test_spans_are_nested_as_the_session_ran(memory):
    """Session, test, trial, run: one trace."""
    provider, spans = memory
    otel.export(everything(), provider)
    assert {("pytest session", None), ("test_passes", "pytest session")} <= parents(spans())
    assert {("trial", "test_passes"), ("mlchaos.run", "trial")} <= parents(spans())
    assert len({span.context.trace_id for span in spans()}) == 1
    assert sum(span.name == "trial" for span in spans()) == 10


def test_times_are_those_of_the_journal(memory):
    """They are of the session that ran, not of the export."""
    provider, spans = memory
    otel.export(everything(), provider)
    found = by_name(spans())
    begin = round(START * SECOND)
    assert (found["test_passes"].start_time, found["test_passes"].end_time) == (
        begin,
        begin + 2 * SECOND,
    )
    assert found["mlchaos.run"].start_time == pytest.approx(begin + 0.7 * SECOND, abs=1000)
    assert found["mlchaos.run"].end_time - found["mlchaos.run"].start_time == SECOND
    assert found["pytest session"].start_time == begin
    assert found["pytest session"].end_time == begin + 14 * SECOND


def test_tests_follow_the_conventions(memory):
    """The names of attributes are those of OpenTelemetry's own package."""
    from opentelemetry.semconv._incubating.attributes import test_attributes
    from opentelemetry.semconv.attributes import (
        code_attributes,
        error_attributes,
        exception_attributes,
    )

    provider, spans = memory
    otel.export(everything(), provider)
    found = by_name(spans())
    failed = found["test_own_error"]
    assert failed.attributes[test_attributes.TEST_CASE_NAME] == OWN
    assert failed.attributes[test_attributes.TEST_CASE_RESULT_STATUS] == "fail"
    assert failed.attributes[test_attributes.TEST_SUITE_NAME] == "tests/test_job.py"
    assert failed.attributes[code_attributes.CODE_FILE_PATH] == "tests/test_job.py"
    assert failed.attributes[code_attributes.CODE_LINE_NUMBER] == 41
    assert failed.attributes[error_attributes.ERROR_TYPE] == "RuntimeError"
    assert failed.status.status_code.name == "ERROR"
    assert failed.status.description == "RuntimeError: lost"
    (event,) = [event for event in failed.events if event.name == "exception"]
    assert event.attributes[exception_attributes.EXCEPTION_TYPE] == "RuntimeError"
    assert event.attributes[exception_attributes.EXCEPTION_MESSAGE] == "RuntimeError: lost"
    passed = found["test_passes"]
    assert passed.attributes[test_attributes.TEST_CASE_RESULT_STATUS] == "pass"
    assert passed.status.status_code.name == "OK"
    whole = found["pytest session"].attributes
    assert whole[test_attributes.TEST_SUITE_RUN_STATUS] == "failure"


def test_strikes_and_judgements_are_events_of_their_run(memory):
    """A strike belongs to the run that it struck, and to the trial if that is not known."""
    provider, spans = memory
    otel.export(everything(), provider)
    run = by_name(spans())["mlchaos.run"]
    events = {event.name: dict(event.attributes) for event in run.events}
    assert events["mlchaos.strike"] == {
        "mlchaos.fault.name": "crash",
        "mlchaos.fault.text": "crash(at=3)",
        "mlchaos.site": "train.step",
        "mlchaos.visit": 3,
    }
    assert events["mlchaos.judgement"]["mlchaos.verdict"] == "passed"
    trials = [span for span in spans() if span.name == "trial"]
    struck = [
        e.attributes["mlchaos.fault.name"]
        for span in trials
        for e in span.events
        if e.name == "mlchaos.strike"
    ]
    assert sorted(struck) == ["call_failure", "crash", "crash", "gpu_oom", "gpu_oom"]


def test_attempts_are_spans_if_their_times_are_known(memory):
    """And events otherwise."""
    provider, spans = memory
    lines = [(line.test, line.trial, line.entry) for line in everything().lines()]
    times = [
        (
            PASSED,
            2,
            entries.Timing(of="attempt", number=0, name="0", start=START + 0.7, seconds=0.4),
        ),
        (
            PASSED,
            2,
            entries.Timing(of="attempt", number=0, name="1", start=START + 1.1, seconds=0.5),
        ),
    ]
    otel.export(session(*lines, *times), provider)
    attempts = [span for span in spans() if span.name == "attempt"]
    assert [span.attributes["mlchaos.attempt.ended"] for span in attempts] == [
        "SimulatedCrash at train.step 3",
        "finished",
    ]
    assert [span.attributes["mlchaos.steps"] for span in attempts] == [3, 4]
    assert attempts[0].end_time - attempts[0].start_time == 0.4 * SECOND
    assert ("attempt", "mlchaos.run") in parents(spans())


def test_attempts_without_times_are_events(memory):
    """A span without a time would be a guess."""
    provider, spans = memory
    otel.export(everything(), provider)
    run = by_name(spans())["mlchaos.run"]
    ended = [
        event.attributes["mlchaos.attempt.ended"]
        for event in run.events
        if "ended" in str(event.attributes)
    ]
    assert ended == ["SimulatedCrash at train.step 3", "finished"]


def test_crash_states_are_events_the_failures_first(memory):
    """The SDK keeps 128 events of a span."""
    provider, spans = memory
    lines = [(line.test, line.trial, line.entry) for line in everything().lines()]
    result = (CRASHES, 1, entries.ResultEntry(number=0, method="mlchaos.explore_crashes"))
    otel.export(session(*lines, result), provider)
    explored = by_name(spans())["mlchaos.explore_crashes"]
    verdicts = [
        event.attributes["mlchaos.verdict"]
        for event in explored.events
        if event.name == "mlchaos.crash_state"
    ]
    assert verdicts == ["failed", "failed", "diverged", "diverged", "recovered"]
    assert explored.attributes["mlchaos.crash_states.total"] == 5
    assert explored.attributes["mlchaos.max_lost_steps"] == 3


def test_the_span_of_the_ci_job_is_the_parent(memory, monkeypatch):
    """A CI tool passes it in TRACEPARENT. The job's name and number are attributes."""
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    monkeypatch.setenv("TRACEPARENT", f"00-{trace}-{span}-01")
    monkeypatch.setenv("GITHUB_WORKFLOW", "Tests")
    monkeypatch.setenv("GITHUB_RUN_ID", "77")
    monkeypatch.setenv("GITHUB_JOB", "night")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "a/b")
    provider, spans = memory
    otel.export(everything(), provider)
    whole = by_name(spans())["pytest session"]
    assert f"{whole.context.trace_id:032x}" == trace
    assert f"{whole.parent.span_id:016x}" == span
    told = {key: value for key, value in whole.attributes.items() if key.startswith("cicd.")}
    assert told == {
        "cicd.pipeline.name": "Tests",
        "cicd.pipeline.run.id": "77",
        "cicd.pipeline.run.url.full": "https://github.com/a/b/actions/runs/77",
        "cicd.pipeline.task.name": "night",
        "cicd.pipeline.task.type": "test",
    }


def test_a_killed_session_is_aborted(memory):
    """A test that did not end has no result."""
    provider, spans = memory
    otel.export(session((PASSED, 1, entries.Trial(outcome="passed"))), provider)
    found = by_name(spans())
    assert found["pytest session"].attributes["test.suite.run.status"] == "aborted"
    assert found["test_passes"].attributes["test.case.result.status"] == "running"


def test_a_journal_is_read_from_its_file(memory, tmp_path):
    """The dotted call takes the path that pytest wrote."""
    from pytest_mlchaos.export import otel as public

    provider, spans = memory
    write_journal(everything(), tmp_path / "journal.jsonl")
    public.export(tmp_path / "journal.jsonl", tracer_provider=provider)
    assert by_name(spans())[SEARCH.rpartition("::")[2]].attributes["mlchaos.trials"] == 4


def test_otlp_is_sent_where_the_variables_say(monkeypatch):
    """Without a provider, the exporter of the SDK sends the spans."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the OTLP exporter")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with served(Collector) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=night")
        otel.check()
        otel.write(everything())
    assert {path for path, _ in received} == {"/v1/traces"}
    (resource,) = received[0][1].resource_spans
    told = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert told["service.name"] == "pytest-mlchaos"
    assert told["deployment.environment"] == "night"
    names = [span.name for scope in resource.scope_spans for span in scope.spans]
    assert names.count("trial") == 10
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    otel.write(everything())
    assert len(received) == 1


def test_a_collector_that_refuses_is_an_error(monkeypatch):
    """The session reports it in one line, and does not fail."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the OTLP exporter")

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(400)
            self.end_headers()

        def log_message(self, *args):
            pass

    with served(Refuses) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        with pytest.raises(OSError, match="the exporter otlp sent 0 of"):
            otel.write(everything())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "no installed package has the exporter 'zipkin'"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon", "must be http/protobuf or grpc, got"),
    ],
)
def test_a_wrong_variable_is_refused_at_the_start(memory, monkeypatch, name, value, message):
    """In one line."""
    monkeypatch.setenv(name, value)
    with pytest.raises(BadArgument, match=message):
        otel.check()


def test_a_missing_library_is_named(monkeypatch):
    """The error has the command that installs it."""
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(MissingExtra, match=re.escape("install 'pytest-mlchaos[otel]'")):
        otel.check()
    with pytest.raises(MissingExtra, match=r"export\.otel needs opentelemetry-sdk"):
        otel.export(everything())
