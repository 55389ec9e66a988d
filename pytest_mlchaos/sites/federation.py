"""Define the site of a federation: its rounds."""

from __future__ import annotations

from ..core.sites import Key, site
from ..engine.controller import Controller
from ..engine.patching import Patches

__all__ = ["ROUND"]

ROUND = "federation.round"


@site(
    ROUND,
    "A round of training under mlchaos.federation that is about to begin. Payload: the Round.",
)
def arm_rounds(controller: Controller, patches: Patches, key: Key) -> None:
    """Do nothing: a federation makes these visits itself."""
