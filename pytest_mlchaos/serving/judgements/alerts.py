"""Judge the alert rules of a service on a load."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ...core.validation import NAME, PATH, check_arguments, format_seconds, parse_duration
from ...errors import FalseAlarm, Inconclusive, Unnoticed
from ..alert_rules import AlertRule, all_failing
from .load_result import LoadResult

__all__ = ["AlertVerdicts"]

REQUESTS = "http_requests_total"
DURATION = "http_request_duration_seconds"


class AlertVerdicts(LoadResult):
    """Judge if Prometheus would have raised an alert."""

    @check_arguments("assert_alert", alert=NAME, rules=PATH, requests=NAME, duration=NAME)
    def assert_alert(
        self,
        alert: str,
        *,
        rules: str | os.PathLike[str],
        within: float | str | None = None,
        interval: float | str = "15s",
        labels: Mapping[str, str] | None = None,
        requests: str = REQUESTS,
        duration: str = DURATION,
    ) -> None:
        """Raise ``Unnoticed`` unless an alert of a Prometheus rule file fires under the faults.

        The load is written as the metrics of a service, and ``promtool`` evaluates the rules on
        them. In the golden load, the alert must be quiet.

        Args:
            alert: The name of the alert.
            rules: The rule file.
            within: The largest time from the first strike until it fires: seconds, or ``"60s"``.
                Without it, until the end of the load.
            interval: The time between two scrapes, and between two evaluations.
            labels: Further labels of each series, for example ``{"job": "api"}``.
            requests: The name of the counter of requests, which has the labels ``code`` and
                ``status``.
            duration: The name of the histogram of latencies in seconds, with the buckets that are
                usual in the client libraries.

        Raises:
            Unnoticed: It did not fire, or too late.
            FalseAlarm: It fires in the golden load, or before the first strike.
            MissingProgram: ``promtool`` is not on the ``PATH``.
            BadArgument: The rule file has an error, or does not have this alert.

        Fidelity: a request counts when its reply has ended. After the load, the counters stay as
        they are. Labels that a gateway would add are missing, unless you give them.
        """
        rule = AlertRule.of(alert, rules, interval, labels, requests, duration)
        limit = None if within is None else parse_duration(within, "assert_alert: within")
        self._compare_under_faults("assert_alert")
        strikes = self._strike_times
        if not self._is_judged("assert_alert", bool(strikes)):
            return
        first = min(begun for begun, _ in strikes)
        end = max(reply.start + reply.latency for reply in self.replies)
        until = max(end, first + (limit or 0.0)) + rule.interval
        if rule.firing(self.golden.replies, until):
            raise FalseAlarm(
                f"{alert} fires in the golden load, in which no fault strikes. An alert that is "
                f"always on notices nothing"
            )
        times = rule.firing(self.replies, until)
        if early := [time for time in times if time < first]:
            raise FalseAlarm(
                f"{alert} fired {format_seconds(early[0])} into the load, before the first strike "
                f"at {format_seconds(first)}"
            )
        if not times:
            raise Unnoticed(
                f"{alert} did not fire: the first fault struck {format_seconds(first)} into the "
                f"load, and the rule was evaluated each {format_seconds(rule.interval)} until "
                f"{format_seconds(until)}"
            )
        if limit is not None and times[0] - first > limit:
            raise Unnoticed(
                f"{alert} fired too late: {format_seconds(times[0] - first)} after the first "
                f"strike, and within={format_seconds(limit)} was asked"
            )

    @check_arguments("assert_no_alert", alert=NAME, rules=PATH, requests=NAME, duration=NAME)
    def assert_no_alert(
        self,
        alert: str,
        *,
        rules: str | os.PathLike[str],
        interval: float | str = "15s",
        labels: Mapping[str, str] | None = None,
        requests: str = REQUESTS,
        duration: str = DURATION,
    ) -> None:
        """Raise ``FalseAlarm`` if an alert of a Prometheus rule file fires in this load.

        As a positive control, the rule is also evaluated on the same load with slow errors as
        replies. If it is quiet there, too, its silence proves nothing.

        Args:
            alert: The name of the alert.
            rules: See ``assert_alert``.
            interval: See ``assert_alert``.
            labels: See ``assert_alert``.
            requests: See ``assert_alert``.
            duration: See ``assert_alert``.

        Raises:
            FalseAlarm: It fired.
            Inconclusive: It is quiet in the positive control, too. A rule with a long ``for:``
                needs a longer load.
        """
        rule = AlertRule.of(alert, rules, interval, labels, requests, duration)
        if self._handed is not None:
            self._handed.looked = True
        end = max(reply.start + reply.latency for reply in self.replies) + rule.interval
        if times := rule.firing(self.replies, end):
            raise FalseAlarm(f"{alert} fired {format_seconds(times[0])} into the load")
        if not rule.firing(all_failing(self.replies), end):
            raise Inconclusive(
                f"{alert} was quiet, and also in the positive control, in which most replies of "
                f"this load ({format_seconds(end)}) are slow errors. An alert that was never seen "
                f"firing proves nothing. Drive a longer load, or check its labels and metrics"
            )
