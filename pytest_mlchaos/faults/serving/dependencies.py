"""Define faults of the dependencies of a served app: a slow or failing one, and a slow request."""

from __future__ import annotations

from typing import Any, ClassVar

from ...core.faults import register
from ...core.sites import Key
from ..calls import CallDelay, CallFailure

__all__ = ["DependencyFailure", "DependencySlow", "LatencySpike"]
LAYER = "Calls and services"


@register
class LatencySpike(CallDelay):
    """A dependency, or a request itself, takes longer.

    Args:
        target: The dependency's function or method, as for ``call_failure``. ``at`` then counts its
            calls. Without it, requests to an app under ``mlchaos.serve`` are delayed before they
            reach it, and ``at`` counts requests.
        delay: Seconds, or ``"150ms"``, ``"2s"``.

    Imitates: a saturated feature store, a cold cache, garbage collection, a congested network
    between clients and the service.

    Fidelity: a coroutine is delayed at its first wait. A plain function is delayed before the call,
    so timeouts inside it do not see it. A delayed request takes none of the app's own resources
    meanwhile.

    Example: @chaos.latency_spike(target="json:loads", delay="2s", at=[3, 4])
    """

    member_of: ClassVar = {"bad_day": 18}
    site = "serve.request"
    target: str | None = None  # type: ignore[assignment]  # this fault may omit the target

    @property
    def key(self) -> Key:
        """Count the calls of the target, or all requests."""
        return self.site if self.target is None else (CallDelay.site, self.target)


@register
class DependencyFailure(CallFailure):
    """A call of ``target``, a dependency of a served app, raises ``error``.

    A coroutine function raises when it is awaited. ``at`` counts the calls of this target.

    Args:
        target: The function, as for ``call_failure``.
        error: The exception, as for ``call_failure``.
        when: ``"before"`` or ``"after"``, as for ``call_failure``.

    Imitates: a feature store, cache, database or model server that refuses connections, drops them,
    or answers with an error.

    Fidelity: the function's own code does not run (or, with ``when="after"``, runs to its end). So
    what a client does before it gives up (its own retries, its pool's bookkeeping) is not
    simulated. Copies of the function in closures, containers and default arguments are not reached.

    Example: @chaos.dependency_failure(target="json:loads", at=chaos.EVERY)
    """

    member_of: ClassVar = {"bad_day": 16}
    error: Any = "ConnectionError"


@register
class DependencySlow(CallDelay):
    """A dependency of a served app takes longer.

    Args:
        target: The function, as for ``call_failure``.
        delay: Seconds, or ``"150ms"``, ``"2s"``.

    Imitates: a saturated feature store, database or model server.

    Fidelity: a coroutine is delayed at its first wait. A plain function is delayed before the call,
    so timeouts inside it do not see it. Requests over HTTP are delayed by ``slow_network``.

    Example: @chaos.dependency_slow(target="json:loads", delay="2s", at=0)
    """

    gradual: ClassVar = {"delay": 0.0}
    delay: Any = 5.0
