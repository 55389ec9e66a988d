"""Send a session as a trace of OpenTelemetry: session, test, trial, run, attempt, strike.

Spans and attributes have the names of OpenTelemetry's conventions for tests, CI and exceptions.
Everything else begins with ``mlchaos.``.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...core.entries import (
    Exploration,
    Judgement,
    ResultEntry,
    State,
    StrikeEntry,
    Timing,
    Trial,
)
from ...errors import BadArgument
from ..journal_reader import SessionLog, TestLog
from .findings import fault_name, first_line, name_of, spot_of_test
from .libraries import Journal, require, session_from

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["check", "export", "write"]

OPTION = "--mlchaos-otel"
NAME = "pytest-mlchaos"
NANOSECONDS = 1_000_000_000
SPANS_AT_ONCE = 512
"""The number of spans in one message, as in the SDK's own batches."""
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_RESULTS = {"passed": "pass", "failed": "fail"}
_SUITE = {"passed": "success", "failed": "failure", "aborted": "aborted"}
_CI = {
    "cicd.pipeline.name": ("GITHUB_WORKFLOW", "CI_PIPELINE_NAME", "CI_PROJECT_PATH"),
    "cicd.pipeline.run.id": ("GITHUB_RUN_ID", "CI_PIPELINE_ID"),
    "cicd.pipeline.run.url.full": ("CI_PIPELINE_URL",),
    "cicd.pipeline.task.name": ("GITHUB_JOB", "CI_JOB_NAME"),
    "cicd.pipeline.task.run.id": ("CI_JOB_ID",),
    "cicd.pipeline.task.run.url.full": ("CI_JOB_URL",),
    "vcs.ref.head.name": ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME"),
    "vcs.ref.head.revision": ("GITHUB_SHA", "CI_COMMIT_SHA"),
}
"""Variables of GitHub Actions and GitLab CI, by attribute. The first that is set counts."""

Attributes = Mapping[str, Any]


def check(target: str = "") -> None:
    """Raise an error unless spans can be sent as the ``OTEL_`` variables say."""
    require("opentelemetry.sdk.trace", OPTION, "opentelemetry-sdk", "otel")
    _exporters()


def write(session: SessionLog, target: str = "") -> None:
    """Send a session as the ``OTEL_`` variables say."""
    export(session)


def export(journal: Journal, tracer_provider: TracerProvider | None = None) -> None:
    """Send a session as a trace.

    Args:
        journal: The path of a journal, several paths, or a session.
        tracer_provider: It receives the spans. Without one, the exporters of
            ``OTEL_TRACES_EXPORTER`` send them, by default OTLP over HTTP.

    Raises:
        OSError: An exporter could not send the spans.
    """
    require("opentelemetry.sdk.trace", "pytest_mlchaos.export.otel", "opentelemetry-sdk", "otel")
    session = session_from(journal)
    if tracer_provider is not None:
        _Tracer(tracer_provider).session(session)
        return
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as Provider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    resource = Resource.create(_ci())  # reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": NAME}))
    memory = InMemorySpanExporter()
    provider = Provider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    _Tracer(provider).session(session)
    spans = memory.get_finished_spans()
    for name, exporter in _exporters().items():
        _send(name, exporter(), spans)


def _send(name: str, exporter: SpanExporter, spans: Sequence[Any]) -> None:
    from opentelemetry.sdk.trace.export import SpanExportResult

    try:
        for start in range(0, len(spans), SPANS_AT_ONCE):
            if exporter.export(spans[start : start + SPANS_AT_ONCE]) != SpanExportResult.SUCCESS:
                raise ConnectionError(
                    f"the exporter {name} sent {start} of {len(spans)} spans. Check "
                    f"OTEL_EXPORTER_OTLP_ENDPOINT"
                )
    finally:
        exporter.shutdown()


def _exporters() -> dict[str, type[SpanExporter]]:
    """Return the exporters of ``OTEL_TRACES_EXPORTER``. Packages register them by name."""
    names = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    found: dict[str, type[SpanExporter]] = {}
    for name in (part.strip() for part in names.split(",")):
        if name == "none":
            continue
        entry = _entry_name(name)
        points = importlib.metadata.entry_points(group="opentelemetry_traces_exporter", name=entry)
        if not points:
            raise BadArgument(
                f"{OPTION}: no installed package has the exporter {entry!r} of "
                f"OTEL_TRACES_EXPORTER={names}: python -m pip install 'pytest-mlchaos[otel]'"
            )
        found[name] = next(iter(points)).load()
    return found


def _entry_name(name: str) -> str:
    if name != "otlp":
        return name
    variables = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((os.environ[one] for one in variables if os.environ.get(one)), "http/protobuf")
    if protocol not in _PROTOCOLS:
        raise BadArgument(
            f"{OPTION}: OTEL_EXPORTER_OTLP_PROTOCOL must be {' or '.join(_PROTOCOLS)}, got "
            f"{protocol!r}"
        )
    return _PROTOCOLS[protocol]


def _ci() -> dict[str, str]:
    """Return the attributes of the CI job, if there is one."""
    found = {
        name: os.environ[variable]
        for name, variables in _CI.items()
        for variable in variables[::-1]
        if os.environ.get(variable)
    }
    if "cicd.pipeline.run.id" in found:
        found["cicd.pipeline.task.type"] = "test"
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    if server and repository and "cicd.pipeline.run.id" in found:
        run = f"{server}/{repository}/actions/runs/{found['cicd.pipeline.run.id']}"
        found["cicd.pipeline.run.url.full"] = run
    return found


# -- spans -----------------------------------------------------------------------------------------


class _Tracer:
    """Make the spans of a session. All times are those of the journal."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(NAME, importlib.metadata.version(NAME))

    def session(self, session: SessionLog) -> None:
        """Make the span of a session, and of all that is in it."""
        from opentelemetry.trace import StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # A CI tool that traces its jobs passes the span of the job in these variables.
        carrier = {name: os.environ.get(name.upper(), "") for name in ("traceparent", "tracestate")}
        parent = TraceContextTextMapPropagator().extract(carrier)
        tests = list(session.tests.values())
        times = [_time(test.timing("test")) for test in tests]
        known = [time for time in times if time is not None]
        start = min((time[0] for time in known), default=0)
        end = max((time[1] for time in known), default=start)
        outcomes = {test.outcome for test in tests}
        outcome = "failed" if "failed" in outcomes else "passed"
        if outcomes & {"interrupted", "running"}:
            outcome = "aborted"
        attributes = {
            **_ci(),
            "test.suite.name": NAME,
            "test.suite.run.status": _SUITE[outcome],
            "mlchaos.tests": len(tests),
        }
        span, context = self._begin("pytest session", start, attributes, parent)
        for test, time in zip(tests, times, strict=True):
            self._test(test, time or (start, start), context)
        span.set_status(StatusCode.OK if outcome == "passed" else StatusCode.ERROR)
        span.end(end)

    def _begin(
        self, name: str, start: int, attributes: Attributes, context: Context | None
    ) -> tuple[Span, Context]:
        from opentelemetry.trace import set_span_in_context

        kept = {key: value for key, value in attributes.items() if value not in (None, "")}
        span = self._tracer.start_span(name, context, attributes=kept, start_time=start)
        return span, set_span_in_context(span)

    def _test(self, test: TestLog, time: tuple[int, int], context: Context) -> None:
        from opentelemetry.trace import StatusCode

        spot, end = spot_of_test(test), test.end
        attributes = {
            "test.case.name": test.nodeid,
            "test.case.result.status": _RESULTS.get(test.outcome, test.outcome),
            "test.suite.name": spot.file,
            "code.file.path": spot.file,
            "code.line.number": spot.line,
            "mlchaos.trials": len(test.trials),
            "mlchaos.strikes": len(test.all(StrikeEntry)),
            "mlchaos.faults": [] if end is None else list(end.faults),
            "error.type": "" if end is None else end.error,
            "mlchaos.place": "" if end is None else end.place,
            "mlchaos.reproduce": "" if end is None else end.reproduce,
        }
        span, inside = self._begin(name_of(test), time[0], attributes, context)
        for number, trial in test.trials.items():
            self._trial(test, number, trial, time, inside)
        if test.outcome == "failed" and end is not None:
            _add_exception(span, end.error, end.message, time[1])
            span.set_status(StatusCode.ERROR, first_line(end.message) or end.error)
        elif test.outcome == "passed":
            span.set_status(StatusCode.OK)
        span.end(time[1])

    def _trial(
        self, test: TestLog, number: int, trial: Trial, outer: tuple[int, int], context: Context
    ) -> None:
        from opentelemetry.trace import StatusCode

        time = _time(test.timing("trial", number)) or outer
        attributes = {
            "mlchaos.trial.number": number,
            "mlchaos.trial.outcome": trial.outcome,
            "mlchaos.schedule": trial.schedule,
            "mlchaos.probing": trial.probing,
            "mlchaos.visits": sum(trial.visits.values()),
            "error.type": trial.error,
            "mlchaos.place": trial.place,
        }
        span, inside = self._begin("trial", time[0], attributes, context)
        results, strikes = test.all(ResultEntry, number), test.all(StrikeEntry, number)
        # A strike does not name its result, so it belongs to one only if no other can have it.
        owner = next((one.number for one in results if one.struck == len(strikes)), None)
        for result in results:
            own = strikes if result.number == owner else []
            self._result(test, number, result, own, time, inside)
        _add_events(
            span, time[0], "mlchaos.strike", map(_of_strike, strikes if owner is None else [])
        )
        loose = [one for one in test.all(Judgement, number) if one.result is None]
        _add_events(span, time[1], "mlchaos.judgement", map(_of_judgement, loose))
        if trial.outcome == "failed":
            _add_exception(span, trial.error, trial.cause, time[1])
            span.set_status(StatusCode.ERROR, first_line(trial.cause) or trial.error)
        span.end(time[1])

    def _result(
        self,
        test: TestLog,
        trial: int,
        result: ResultEntry,
        strikes: Sequence[StrikeEntry],
        outer: tuple[int, int],
        context: Context,
    ) -> None:
        from opentelemetry.trace import StatusCode

        time = _time(test.timing("result", trial, result.number)) or outer
        explored = [one for one in test.all(Exploration, trial) if one.number == result.number]
        attributes = {
            "mlchaos.result.number": result.number,
            "mlchaos.strikes": result.struck,
            "mlchaos.attempts": len(result.attempts),
            "mlchaos.recovery_seconds": test.recovery_time(trial, result.number),
            **{key: value for one in explored for key, value in _of_exploration(one).items()},
        }
        span, inside = self._begin(result.method, time[0], attributes, context)
        self._attempts(test, trial, result, span, time, inside)
        states = [one for one in test.all(State, trial) if one.exploration == result.number]
        # The SDK keeps a limited number of events, so the failures come first.
        states.sort(key=lambda state: state.verdict == "recovered")
        judged = [one for one in test.all(Judgement, trial) if one.result == result.number]
        _add_events(span, time[0], "mlchaos.strike", map(_of_strike, strikes))
        _add_events(span, time[1], "mlchaos.judgement", map(_of_judgement, judged))
        _add_events(span, time[1], "mlchaos.crash_state", map(_of_state, states))
        if any(one.verdict != "passed" for one in judged):
            span.set_status(StatusCode.ERROR)
        span.end(time[1])

    def _attempts(
        self,
        test: TestLog,
        trial: int,
        result: ResultEntry,
        span: Span,
        outer: tuple[int, int],
        context: Context,
    ) -> None:
        """Make a span for each attempt, or an event if its time is not known."""
        for number, ended in enumerate(result.attempts):
            steps = result.steps[number] if number < len(result.steps) else None
            attributes = {
                "mlchaos.attempt.number": number,
                "mlchaos.attempt.ended": ended,
                "mlchaos.steps": steps,
            }
            time = _time(test.timing("attempt", trial, result.number, str(number)))
            if time is None:
                _add_events(span, outer[0], "mlchaos.attempt", [attributes])
            else:
                self._begin("attempt", time[0], attributes, context)[0].end(time[1])


def _time(timing: Timing | None) -> tuple[int, int] | None:
    """Return the start and the end in nanoseconds, or None if they are not known."""
    if timing is None or not timing.start:
        return None
    start = round(timing.start * NANOSECONDS)
    return start, start + round(timing.seconds * NANOSECONDS)


def _add_exception(span: Span, error: str, message: str, time: int) -> None:
    attributes = {"exception.type": error, "exception.message": message}
    _add_events(span, time, "exception", [attributes])


def _add_events(span: Span, time: int, name: str, several: Iterable[Attributes]) -> None:
    for attributes in several:
        kept = {key: value for key, value in attributes.items() if value not in (None, "")}
        span.add_event(name, kept, time)


def _of_strike(strike: StrikeEntry) -> Attributes:
    return {
        "mlchaos.fault.name": fault_name(strike.fault),
        "mlchaos.fault.text": strike.fault,
        "mlchaos.site": strike.site,
        "mlchaos.visit": strike.visit,
        "mlchaos.rank": strike.details.get("rank"),
    }


def _of_judgement(judgement: Judgement) -> Attributes:
    return {
        "mlchaos.oracle": judgement.oracle,
        "mlchaos.verdict": judgement.verdict,
        "error.type": judgement.error,
    }


def _of_exploration(one: Exploration) -> Attributes:
    return {
        "mlchaos.crash_states.total": one.states,
        "mlchaos.crash_states.tried": one.tried,
        "mlchaos.crash_states.bad": one.bad,
        "mlchaos.steps": one.steps,
        "mlchaos.max_lost_steps": one.max_lost_steps if one.measured else None,
    }


def _of_state(state: State) -> Attributes:
    return {
        "mlchaos.crash_state.name": state.state,
        "mlchaos.verdict": state.verdict,
        "mlchaos.step": state.step,
        "mlchaos.lost_steps": state.lost_steps,
        "mlchaos.component": state.component,
        "mlchaos.cause": state.cause,
    }
