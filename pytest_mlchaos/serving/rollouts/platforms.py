"""Give a program of the user's a platform: versions, traffic and metrics."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import NeverAnswered
from .driver import RunningRollout
from .metrics import Metrics
from .options import Options
from .records import Check

__all__ = ["Platform"]


class Platform:
    """A deployment system for a controller that is a function: ``controller(platform)``.

    Attributes:
        versions: The old and the new version.
    """

    def __init__(self, rollout: RunningRollout, options: Options) -> None:
        self._rollout = rollout
        self._options = options
        self.versions = (rollout.old, rollout.new)

    def deploy(self, version: str | None = None) -> None:
        """Make a version ready, without traffic."""
        self._rollout.subject.deploy(self._rollout.new if version is None else version)

    def split(self, weights: Mapping[str, float] | float) -> None:
        """Route shares of the traffic to the versions."""
        self._rollout.subject.split(weights)

    def promote(self) -> None:
        """Give all users the new version."""
        self._rollout.subject.promote()

    def rollback(self) -> None:
        """Give all users the old version."""
        self._rollout.subject.rollback()

    def metrics(self, requests: int | None = None) -> Metrics:
        """Let the next requests pass, and return their metrics.

        Args:
            requests: Their number. Without it, the option ``per_check``.

        Raises:
            NeverAnswered: All requests of the rollout have been sent.
        """
        rollout = self._rollout
        if rollout.left <= 0:
            raise NeverAnswered(
                f"the controller hangs: it asks for metrics after {len(rollout.trace.answers)} "
                f"requests, which are all. Send more with requests="
            )
        rollout.send(self._options.per_check if requests is None else requests)
        found = rollout.metrics(stage="rollout")
        seen = found.get("candidate", {}).get("requests", 0)
        weight = rollout.weights.get(rollout.new, 0.0)
        verdict, metric = rollout.comparison.verdict()
        sent = len(rollout.trace.answers)
        if verdict == "fail" and not rollout.trace.evident_at:
            rollout.trace.evident_at = sent
        rollout.trace.checks.append(Check(sent, None, metric, weight, seen))
        return found
