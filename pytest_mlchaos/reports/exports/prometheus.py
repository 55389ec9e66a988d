"""Write metrics for Prometheus: a file for the node exporter, or a push gateway.

The library of the Prometheus project writes the text format, and replaces the file in one step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...core.entries import Exploration, Judgement, State, StrikeEntry, Timing
from ...errors import BadArgument
from ..journal_reader import SessionLog, TestLog
from ..outputs import check_writable
from .findings import fault_name, findings
from .libraries import Journal, require, session_from

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["check", "export", "registry", "write"]

OPTION = "--mlchaos-prometheus"
JOB = "pytest-mlchaos"
PUSH_TIMEOUT = 10.0
"""The most seconds that a push gateway may take."""

Samples = Mapping[tuple[str, ...], float]
"""The value for each combination of labels."""
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mlchaos_tests": ("Chaos tests by outcome.", ("test", "outcome")),
    "mlchaos_trials": ("Trials by outcome.", ("test", "outcome")),
    "mlchaos_visits": ("Visits of sites in all trials.", ("test", "site")),
    "mlchaos_strikes": ("Faults that struck.", ("test", "fault", "site")),
    "mlchaos_judgements": ("Judgements by oracle and verdict.", ("test", "oracle", "verdict")),
    "mlchaos_crash_states": ("Crash states that were tried, by verdict.", ("test", "verdict")),
    "mlchaos_crash_states_untried": ("Crash states that a budget left out.", ("test",)),
    "mlchaos_failures": ("Distinct causes of failures.", ("test", "rule")),
}
"""The counters, without the suffix ``_total``, with its help and labels."""
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mlchaos_session_start_time_seconds": ("Start of the session since 1970.", ()),
    "mlchaos_test_duration_seconds": ("Wall-clock time of a test.", ("test",)),
    "mlchaos_lost_steps_max": ("Most steps that a resumed run took again.", ("test",)),
    "mlchaos_restart_seconds": ("Median time until a resumed run took its first step.", ("test",)),
    "mlchaos_recovery_seconds": ("Longest time from the end of a fault to a recovery.", ("test",)),
    "mlchaos_mttr_seconds": ("Mean time from the end of a fault to a recovery.", ("test",)),
}


def check(target: str) -> None:
    """Raise an error unless the metrics can be written."""
    require("prometheus_client", OPTION, "prometheus_client", "prometheus")
    if _is_url(target):
        address = urlsplit(target)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise BadArgument(f"{OPTION} must be a file or a URL with http, got {target!r}")
    elif not target.endswith(".prom"):
        raise BadArgument(
            f"{OPTION} must end in .prom, because the node exporter reads no other files, got "
            f"{target!r}"
        )
    else:
        check_writable(OPTION, target, "a file")


def write(session: SessionLog, target: str) -> None:
    """Write the metrics to a file or a push gateway."""
    export(session, target)


def export(journal: Journal, target: str, *, job: str = JOB) -> None:
    """Write the metrics of a session to a file or a push gateway.

    Args:
        journal: The path of a journal, several paths, or a session.
        target: A file for the textfile collector of the node exporter, or the URL of a push
            gateway.
        job: The name of the job at the push gateway.
    """
    check(target)
    from prometheus_client import push_to_gateway, write_to_textfile

    metrics = registry(journal)
    if _is_url(target):
        push_to_gateway(target.rstrip("/"), job=job, registry=metrics, timeout=PUSH_TIMEOUT)
    else:
        write_to_textfile(target, metrics)


def registry(journal: Journal) -> CollectorRegistry:
    """Return the metrics of a session, for any exporter of ``prometheus_client``."""
    require(
        "prometheus_client", "pytest_mlchaos.export.prometheus", "prometheus_client", "prometheus"
    )
    from prometheus_client import CollectorRegistry

    metrics = CollectorRegistry()
    metrics.register(_Collector(session_from(journal)))
    return metrics


def _is_url(target: str) -> bool:
    return "://" in target


class _Collector:
    """Yield the metrics of one session."""

    def __init__(self, session: SessionLog) -> None:
        self._session = session

    def collect(self) -> Iterator[Any]:
        """Yield one family for each metric."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        counts, gauges = _counters(self._session), _gauges(self._session)
        for family, table, values in (
            (CounterMetricFamily, COUNTERS, counts),
            (GaugeMetricFamily, GAUGES, gauges),
        ):
            for name, (text, labels) in table.items():
                metric = family(name, text, labels=labels)
                for combination, value in sorted(values[name].items()):
                    metric.add_metric(combination, value)
                yield metric


def _name(test: TestLog) -> str:
    """Return the label of a test. Its parameters are left out, because there may be many."""
    return test.nodeid.partition("[")[0]


def _counters(session: SessionLog) -> Mapping[str, Samples]:
    found: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in COUNTERS}

    def count(name: str, *labels: str, by: int = 1) -> None:
        found[f"mlchaos_{name}"][labels] += by

    for test in session.tests.values():
        name = _name(test)
        for outcome in ("passed", "failed"):  # an alert needs the zero, too
            count("tests", name, outcome, by=0)
        count("tests", name, test.outcome)
        for trial in test.trials.values():
            count("trials", name, trial.outcome)
            for site, number in trial.visits.items():
                # The target of a call fault follows the site's name.
                count("visits", name, site.partition(" ")[0], by=number)
        for strike in test.all(StrikeEntry):
            count("strikes", name, fault_name(strike.fault), strike.site.partition(" ")[0])
        for judgement in test.all(Judgement):
            count("judgements", name, judgement.oracle, judgement.verdict)
        for state in test.all(State):
            count("crash_states", name, state.verdict)
        for exploration in test.all(Exploration):
            untried = exploration.states - exploration.tried
            count("crash_states_untried", name, by=max(untried, 0))
    for finding in findings(session):
        count("failures", _name(finding.test), finding.rule.id)
    return found


def _gauges(session: SessionLog) -> Mapping[str, Samples]:
    tests = session.tests.values()
    timings = [timing for test in tests for timing in test.all(Timing)]
    starts = [timing.start for timing in timings if timing.start]
    return {
        "mlchaos_session_start_time_seconds": {(): min(starts)} if starts else {},
        "mlchaos_test_duration_seconds": _by_name(tests, sum, lambda test: [test.seconds("test")]),
        "mlchaos_lost_steps_max": _by_name(
            tests,
            max,
            lambda test: [one.max_lost_steps for one in test.explorations if one.measured],
        ),
        "mlchaos_restart_seconds": _by_name(
            tests, max, lambda test: [one.restart for one in test.all(Timing)]
        ),
        "mlchaos_recovery_seconds": _by_name(tests, max, lambda test: test.recovery_times),
        "mlchaos_mttr_seconds": _by_name(tests, _mean, lambda test: test.recovery_times),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _by_name(
    tests: Iterable[TestLog],
    join: Callable[[list[float]], float],
    values: Callable[[TestLog], Iterable[float | None]],
) -> Samples:
    """Return one value for each name of a test, joined from those of its parameters."""
    found: dict[tuple[str, ...], list[float]] = {}
    for test in tests:
        for value in values(test):
            if value is not None:
                found.setdefault((_name(test),), []).append(value)
    return {name: join(several) for name, several in found.items()}
