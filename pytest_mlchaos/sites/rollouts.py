"""Define the sites of a rollout: the calls of its controller, the registry, and the metrics."""

from __future__ import annotations

from ..core.rollouts import OPERATIONS
from ..core.sites import Key, site
from ..engine.controller import Controller
from ..engine.patching import Patches

__all__ = ["METRICS", "REGISTRY", "operation_site"]

REGISTRY = "rollout.registry"
METRICS = "rollout.metrics"


def operation_site(name: str) -> str:
    """Return the site of the calls of one of the controller's methods."""
    return f"rollout.{name}"


def _arm(controller: Controller, patches: Patches, key: Key) -> None:
    """Do nothing: a rollout makes these visits itself."""


for _name in OPERATIONS:
    site(
        operation_site(_name),
        f"A call of {_name}() of a controller under mlchaos.rollout. Payload: the Operation.",
    )(_arm)
site(
    REGISTRY,
    "A version that is about to be loaded from the registry, under mlchaos.rollout. Payload: the "
    "version.",
)(_arm)
site(
    METRICS,
    "The metrics that an analysis under mlchaos.rollout is about to receive. Payload: a dict.",
)(_arm)
