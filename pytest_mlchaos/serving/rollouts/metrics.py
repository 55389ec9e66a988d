"""Measure the versions of a rollout, and make the metrics that an analysis receives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..bounds import quantile

__all__ = ["Metrics", "Tally", "make_metrics"]


class Metrics(dict[str, Any]):
    """A dict whose values are also attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Tally:
    """Count the answers of one version."""

    __slots__ = ("errors", "latencies", "requests", "slow", "users", "wrong")

    def __init__(self) -> None:
        self.requests = self.errors = self.slow = 0
        self.wrong = 0.0
        self.latencies: list[float] = []
        self.users: set[Any] = set()

    def add(self, *, error: bool, wrong: float, slow: bool, latency: float, user: Any) -> None:
        """Add an answer."""
        self.requests += 1
        self.errors += error
        self.wrong += wrong
        self.slow += slow
        self.latencies.append(latency)
        self.users.add(user)

    def metrics(self, *, quality: bool) -> Metrics:
        """Return the metrics. Rates over no requests are NaN, as a query over nothing gives."""
        number = self.requests

        def share(count: float) -> float:
            return count / number if number else math.nan

        def at(q: float) -> float:
            return quantile(self.latencies, q) if number else math.nan

        answered = number - self.errors
        found = Metrics(
            total=number,
            failures=self.errors,
            failure_rate=share(self.errors),
            availability=share(number - self.errors),
            requests=number,
            errors=self.errors,
            error_rate=share(self.errors),
            success_rate=share(number - self.errors),
            latency=share(sum(self.latencies)),
            p50=at(0.5),
            p95=at(0.95),
            p99=at(0.99),
            slow=self.slow,
            users=len(self.users),
        )
        if quality:
            right = 1 - self.wrong / answered if answered else math.nan
            found.update(wrong=self.wrong, quality=right, accuracy=right)
        return found


def make_metrics(
    old: str,
    new: str,
    window: Mapping[str, Tally],
    baseline: Tally,
    *,
    quality: bool,
    **more: Any,
) -> Metrics:
    """Return the metrics of one analysis.

    Those of the new version are at the top, and both versions are there by name.

    Args:
        old: The version that serves all users at the start.
        new: The version that is rolled out.
        window: The answers of each version since the last analysis.
        baseline: The last answers of the old version.
        quality: True if answers can be compared with labels.
        **more: More values.
    """
    stable = baseline.metrics(quality=quality)
    candidate = window.get(new, Tally()).metrics(quality=quality)
    shares = {name: tally.requests for name, tally in window.items() if tally.requests}
    found = Metrics(candidate)
    found.update(more)
    found.update(
        version=new,
        candidate=candidate,
        canary=candidate,
        stable=stable,
        baseline=stable,
        versions=shares,
    )
    found[old], found[new] = stable, candidate
    return found
