"""Define ``serve.request``: each request that is about to reach a served app."""

from __future__ import annotations

from ..core.sites import Key, site
from ..engine.controller import Controller
from ..engine.patching import Patches

__all__ = ["SITE"]

SITE = "serve.request"


@site(
    SITE,
    "A request, about to reach an app under mlchaos.serve. Payload: the httpx.Request, or the "
    "callable's argument.",
)
def arm_request(controller: Controller, patches: Patches, key: Key) -> None:
    """Do nothing: a service makes these visits itself."""
