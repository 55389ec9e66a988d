"""Evaluate Prometheus rules on the replies of a load, with ``promtool``."""

from __future__ import annotations

import bisect
import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..core.replies import Reply
from ..core.validation import format_value, parse_positive_duration
from ..engine.scopes import INTERNAL_OPERATION, within
from ..errors import BadArgument, MissingProgram, MlchaosError

__all__ = ["AlertRule", "all_failing"]

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, math.inf)
"""The upper bounds of the histogram, as the client libraries of Prometheus have them."""
MOST_SAMPLES = 20_000
TIMEOUT_SECONDS = 120.0
SLOW_SECONDS = 60.0
_TIME = re.compile(r"alertname: *(?P<name>\S+), *time: *(?P<time>[0-9a-z]+)")
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536e3}
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclasses.dataclass(frozen=True)
class AlertRule:
    """An alert of a rule file, and how the load is measured for it.

    Attributes:
        name: The name of the alert.
        rules: The rule file.
        interval: The seconds between two scrapes and between two evaluations.
        labels: Further labels of each series.
        requests: The name of the counter of requests.
        duration: The name of the histogram of latencies.
    """

    name: str
    rules: Path
    interval: float
    labels: Mapping[str, str]
    requests: str
    duration: str

    @classmethod
    def of(
        cls,
        name: str,
        rules: str | os.PathLike[str],
        interval: object,
        labels: Mapping[str, str] | None,
        requests: str,
        duration: str,
    ) -> AlertRule:
        """Return the rule. Raise ``BadArgument`` if it cannot be there."""
        path = Path(rules).absolute()
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise BadArgument(
                f"assert_alert: rules must be a rule file, got {path}: {error}"
            ) from None
        if not re.search(
            rf"alert['\"]?\s*:\s*['\"]?{re.escape(name)}['\"]?\s*(?:[,}}#]|$)", text, re.M
        ):
            raise BadArgument(
                f"assert_alert: the alert must be in {path.name}, got {format_value(name)}"
            )
        for metric in (requests, duration):
            if not _METRIC.fullmatch(metric):
                raise BadArgument(
                    f"assert_alert: a metric must have a name such as http_requests_total, got "
                    f"{format_value(metric)}"
                )
        for label in labels or {}:
            if not _LABEL.fullmatch(label):
                raise BadArgument(
                    f"assert_alert: a label must have a name such as job, got {format_value(label)}"
                )
        seconds = parse_positive_duration(interval, "assert_alert: interval")
        return cls(name, path, max(seconds, 1e-3), dict(labels or {}), requests, duration)

    def firing(self, replies: Sequence[Reply], until: float) -> list[float]:
        """Return the times at which the alert fires, in seconds from the start of the load.

        After the load, the counters stay as they are.
        """
        number = math.ceil(until / self.interval) + 1
        if number > MOST_SAMPLES:
            raise BadArgument(
                f"assert_alert: interval must give at most {MOST_SAMPLES} samples, got {number}. "
                f"Give a longer interval="
            )
        times = [place * self.interval for place in range(number)]
        test = {
            "rule_files": [str(self.rules)],
            "evaluation_interval": self._at(1),
            "tests": [
                {
                    "interval": self._at(1),
                    "input_series": [
                        {"series": name, "values": " ".join(f"{value:g}" for value in values)}
                        for name, values in self._series(replies, times)
                    ],
                    "alert_rule_test": [
                        {"eval_time": self._at(place), "alertname": self.name, "exp_alerts": []}
                        for place in range(number)
                    ],
                }
            ],
        }
        return self._evaluate(test)

    def _at(self, place: int) -> str:
        return f"{round(place * self.interval * 1000)}ms"

    def _series(
        self, replies: Sequence[Reply], times: Sequence[float]
    ) -> Iterator[tuple[str, list[float]]]:
        """Yield the counters of the requests that had ended at each time."""
        by_code: dict[str, list[Reply]] = {"200": [], "500": []}
        for reply in replies:
            by_code.setdefault(_code(reply), []).append(reply)
        for code, some in sorted(by_code.items()):
            labels = {**self.labels, "code": code, "status": code}
            ends = sorted(reply.start + reply.latency for reply in some)
            yield _series_name(self.requests, labels), _counts(ends, times)
            for bound in BUCKETS:
                fast = sorted(one.start + one.latency for one in some if one.latency <= bound)
                le = "+Inf" if math.isinf(bound) else f"{bound:g}"
                name = _series_name(f"{self.duration}_bucket", {**labels, "le": le})
                yield name, _counts(fast, times)
            yield _series_name(f"{self.duration}_count", labels), _counts(ends, times)
            sums = [
                sum(one.latency for one in some if one.start + one.latency <= time)
                for time in times
            ]
            yield _series_name(f"{self.duration}_sum", labels), sums

    def _evaluate(self, test: Mapping[str, object]) -> list[float]:
        program = shutil.which("promtool")
        if program is None:
            raise MissingProgram(
                "assert_alert needs promtool, which is not on the PATH. It is part of Prometheus "
                "(https://prometheus.io/download). To skip the test without it, use "
                "pytest.mark.skipif(shutil.which('promtool') is None, reason='no promtool')"
            )
        with within(INTERNAL_OPERATION), tempfile.TemporaryDirectory() as folder:
            checked = _run(program, "check", "rules", str(self.rules))
            if checked.returncode:
                raise BadArgument(
                    f"assert_alert: promtool cannot read {self.rules.name}:\n  "
                    + "\n  ".join(_words(checked))
                )
            path = Path(folder, "test.json")  # JSON is YAML
            path.write_text(json.dumps(test), encoding="utf-8")
            ran = _run(program, "test", "rules", str(path))
        times = [
            seconds
            for match in _TIME.finditer(ran.stdout + ran.stderr)
            if match["name"] == self.name and (seconds := _parse_time(match["time"])) is not None
        ]
        if ran.returncode and not times:
            raise MlchaosError(
                "promtool failed in a way that is not known here:\n  " + "\n  ".join(_words(ran))
            )
        return sorted(set(times))


def all_failing(replies: Sequence[Reply]) -> list[Reply]:
    """Return the load with all replies slow errors from its second quarter on.

    It is the positive control of an alert that must be quiet.
    """
    begin = max(reply.start for reply in replies) / 4
    return [
        dataclasses.replace(reply, status=500, ok=False, latency=reply.latency + SLOW_SECONDS)
        if reply.start >= begin
        else reply
        for reply in replies
    ]


def _code(reply: Reply) -> str:
    if reply.status is not None:
        return str(reply.status)
    return "200" if reply.ok else "500"


def _series_name(metric: str, labels: Mapping[str, str]) -> str:
    pairs = ",".join(f"{name}={json.dumps(str(value))}" for name, value in labels.items())
    return f"{metric}{{{pairs}}}"


def _counts(ends: Sequence[float], times: Sequence[float]) -> list[float]:
    return [float(bisect.bisect_right(ends, time)) for time in times]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


def _words(ran: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines of what a program wrote."""
    return [line.strip() for line in (ran.stdout + ran.stderr).splitlines() if line.strip()][:10]


def _parse_time(text: str) -> float | None:
    """Return the seconds of ``2m15s``."""
    parts = _PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        return None
    return float(sum(int(number) * _UNITS[unit] for number, unit in parts))
