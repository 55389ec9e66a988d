"""Define what faults of deployments see and change: an operation, and what it does to a version."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

__all__ = ["OPERATIONS", "Damage", "Effect", "Operation", "Watched"]

OPERATIONS = ("deploy", "split", "promote", "rollback")
"""The methods of a controller. Each call is a visit of the site ``rollout.<name>``."""

Watched: TypeAlias = Literal["errors", "quality", "latency"]
"""What a rollout compares between two versions."""
Effect: TypeAlias = Literal[
    "worse", "not_ready", "partial", "skew", "config", "raises", "ignored", "reply_lost"
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """The effect of one fault on a deployment.

    Attributes:
        fault: The fault's name.
        effect: ``worse``: answers of the new version fail, are wrong or slow. ``not_ready``: they
            fail for some seconds. ``partial``: a share of them comes from the old version.
            ``skew``: one version gets the features of the other. ``config``: a value of the
            configuration differs. ``raises``, ``ignored``, ``reply_lost``: a call fails, has no effect,
            or fails after it took effect.
        on: The call during which it takes effect, if that is a later one: the first of this name.
        error: The exception that a failing call raises.
        watched: What is worse.
        share: The share of the answers that it affects.
        seconds: The delay, or the time until the version is ready.
        slice: A predicate on the request, or a dict of fields that it must have. None for all.
        key: The key of the configuration.
        value: Its new value. None for one that differs.
        seed: The seed that chooses the affected requests.
    """

    fault: str
    effect: Effect
    on: str = ""
    error: BaseException | None = None
    watched: Watched = "errors"
    share: float = 1.0
    seconds: float = 0.0
    slice: Callable[[Any], object] | Mapping[str, Any] | None = None
    key: str | None = None
    value: Any = None
    seed: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A call of one of the controller's methods, as faults see it.

    Attributes:
        name: ``deploy``, ``split``, ``promote`` or ``rollback``.
        old: The version that serves all users at the start.
        new: The version that is rolled out.
        weights: The share of the traffic of each version, for ``split``.
        watched: What the rollout compares.
        has_features: True if features and models have versions of their own.
        config: The keys of the controller's configuration.
        damages: What faults do to the deployment.
    """

    name: str
    old: str = "v1"
    new: str = "v2"
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    watched: tuple[Watched, ...] = ("errors",)
    has_features: bool = False
    config: tuple[str, ...] = ()
    damages: tuple[Damage, ...] = ()

    def with_damage(self, damage: Damage) -> Operation:
        """Return a copy with one more damage."""
        return dataclasses.replace(self, damages=(*self.damages, damage))

    def has(self, effect: Effect) -> bool:
        """Return True if a fault has this effect on it."""
        return any(one.effect == effect for one in self.damages)
