"""Record what happened in a rollout: its answers, the calls of its controller, and its analyses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from ...core.journal import Strike
from ...core.rollouts import Damage, Watched
from .sequential import Verdict

__all__ = ["Answer", "Call", "Check", "Outcome", "Phase", "Trace"]

Phase: TypeAlias = Literal["before", "during", "after"]
Outcome: TypeAlias = Literal["promoted", "rolled back", "paused", "not deployed"]


@dataclasses.dataclass(slots=True)
class Answer:
    """One answer to a user.

    Attributes:
        number: The number of the request, from 0.
        time: The time of its arrival, in seconds from the start of the rollout.
        user: The user that sent it.
        version: The version that answered. None if it is unknown.
        phase: ``before`` the deployment, ``during`` the rollout, or ``after`` its decision.
        error: The exception, or None.
        failed: True if it counts as an error.
        wrong: How wrong it is, from 0 to 1.
        slow: True if it took longer than the limit.
        features: The version of the features, if features have versions.
    """

    number: int
    time: float
    user: Any
    version: str | None = None
    phase: Phase = "before"
    error: BaseException | None = None
    failed: bool = False
    wrong: float = 0.0
    slow: bool = False
    features: str | None = None

    @property
    def is_bad(self) -> bool:
        """Return True for an error, a wrong or a slow answer."""
        return self.failed or self.slow or self.wrong > 0


@dataclasses.dataclass(slots=True)
class Call:
    """One call of the controller's four methods.

    Attributes:
        name: The method.
        time: Seconds from the start of the rollout.
        number: The number of requests before it.
        by: ``controller`` if the controller calls its own method, ``driver`` if the plugin does.
        weights: The weights of a split.
        error: The exception that it raised, or None.
        refused: True if it returned False.
    """

    name: str
    time: float
    number: int
    by: str
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    error: BaseException | None = None
    refused: bool = False

    @property
    def ok(self) -> bool:
        """Return True if it succeeded, as far as the caller can see."""
        return self.error is None and not self.refused


@dataclasses.dataclass(slots=True)
class Check:
    """One analysis.

    Attributes:
        number: The number of requests before it.
        verdict: Its verdict. None if the controller returns none.
        metric: The metric that failed, as far as the plugin knows.
        weight: The weight of the new version.
        seen: The requests of the new version that its metrics counted.
        error: The exception that it raised, or None.
    """

    number: int
    verdict: Verdict | None
    metric: str = ""
    weight: float = 0.0
    seen: int = 0
    error: BaseException | None = None


@dataclasses.dataclass
class Trace:
    """All that happened in one rollout.

    Attributes:
        old: The version that served all users at the start.
        new: The version that was rolled out.
        watched: What the rollout compares.
        answers: The answers, in order.
        mirrored: The number of requests that the new version answered and no user saw.
        calls: The calls of the controller's methods, in order.
        checks: The analyses, in order.
        damages: What faults did to the deployment.
        strikes: The faults that struck.
        config_drifted: The keys of the configuration that are not as they should be at the end.
        decides: The part that decides: ``the controller`` or ``the default analysis``.
        hooked: True if the controller decides by the metrics that the plugin hands over.
        evidence: The verdict of the default test on all answers, and the metric that decided it.
        excess: By how much more often the new version fails by this metric.
        evident_at: The number of requests after which the default test failed the new version.
        is_worse: True or False if the test says so, or None.
        compared: The number of requests that were asked again after a rollback.
        changed: Those whose answer differs from the one before the deployment.
    """

    old: str
    new: str
    watched: tuple[Watched, ...]
    answers: list[Answer] = dataclasses.field(default_factory=list)
    mirrored: int = 0
    calls: list[Call] = dataclasses.field(default_factory=list)
    checks: list[Check] = dataclasses.field(default_factory=list)
    damages: list[Damage] = dataclasses.field(default_factory=list)
    strikes: tuple[Strike, ...] = ()
    config_drifted: tuple[str, ...] = ()
    decides: str = ""
    hooked: bool = False
    evidence: tuple[Verdict, str] = ("inconclusive", "")
    excess: float = 0.0
    margin: float = 0.05
    evident_at: int = 0
    compared: int = 0
    changed: tuple[int, ...] = ()
    is_worse: bool | None = None
