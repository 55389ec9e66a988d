"""Define faults of deployments: a worse version, half a rollout, a rollback that fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from ..core.faults import Fault, is_drawn, register
from ..core.rollouts import Damage, Operation
from ..core.sites import Key, Visit
from ..core.validation import check_share, format_value, parse_positive_duration
from ..errors import BadArgument, PayloadMismatch
from .calls import error_name, make_error

__all__ = [
    "BadDeploy",
    "ConfigDrift",
    "MetricsMissing",
    "PartialRollout",
    "RegistryUnavailable",
    "RollbackFailure",
    "SlowStart",
    "VersionSkew",
]
LAYER = "Deployments"
SEARCHED_ANALYSES = 2
"""A search lets the metrics go missing at one of the first analyses."""
COUNTS = frozenset({"requests", "total", "errors", "failures", "users", "wrong", "slow"})
"""The metrics that are counts, not rates."""


def _operation(fault: Fault, visit: Visit) -> Operation:
    if not isinstance(visit.payload, Operation):
        raise PayloadMismatch(
            f"{fault.name} strikes calls of a controller under mlchaos.rollout, got "
            f"{type(visit.payload).__name__}"
        )
    return visit.payload


def _check_share(fault: Fault, name: str) -> None:
    value = getattr(fault, name)
    if not is_drawn(value):
        check_share(fault.name, name, value)


def _seconds(fault: Fault, name: str) -> None:
    value = getattr(fault, name)
    if not is_drawn(value):
        object.__setattr__(fault, name, parse_positive_duration(value, f"{fault.name}: {name}"))


@register
class BadDeploy(Fault):
    """The new version is worse than the old one.

    ``at`` counts the calls of ``deploy``.

    Args:
        kind: ``"errors"``: answers fail. ``"quality"``: answers are wrong. ``"latency"``: answers
            come late. If the deployments are searched, each kind that the rollout compares is tried.
        by: The share of the answers that are worse, among those of the slice.
        slice: The requests for which the version is worse: a predicate on the request, or a dict of
            fields as ``{"country": "DE"}``. Without it, all.
        delay: The delay of a late answer: seconds, or ``"2s"``.

    Imitates: a model trained on leaked or broken data, a missing dependency in the new image, a
    model that is too large for its machine.

    Fidelity: the affected requests are drawn with the seed. A wrong answer is the right answer to a
    different request, or a changed value. The version is worse from its first request on.

    Example: @chaos.bad_deploy(by=0.3, at=0)
    """

    site = "rollout.deploy"
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("errors", "quality", "latency")}
    kind: Literal["errors", "quality", "latency"] = "errors"
    by: float = 0.5
    slice: Any = None
    delay: Any = 5.0

    def check(self) -> None:
        """Check the parameters."""
        _check_share(self, "by")
        _seconds(self, "delay")
        known = self.slice is None or callable(self.slice) or isinstance(self.slice, Mapping)
        if not known and not is_drawn(self.slice):
            raise BadArgument(
                f"{self.name}: slice must be a predicate on the request or a dict of fields, got "
                f"{format_value(self.slice)}"
            )

    def possible(self, visit: Visit) -> bool:
        """Return False for a kind that a search chose and the rollout does not compare."""
        operation = visit.payload
        chosen = "kind" in self._searched and isinstance(operation, Operation)
        return not chosen or self.kind in operation.watched

    def apply(self, visit: Visit) -> Any:
        """Make the version worse, in a way that the rollout compares."""
        operation = _operation(self, visit)
        if not self.possible(visit):
            visit.skip()
            return None
        visit.note(kind=self.kind, by=self.by)
        chosen: Callable[[Any], object] | Mapping[str, Any] | None = self.slice
        return operation.with_damage(
            Damage(
                fault=self.name,
                effect="worse",
                watched=self.kind,
                share=self.by,
                slice=chosen,
                seconds=self.delay,
                seed=visit.seed,
            )
        )


@register
class PartialRollout(Fault):
    """Some replicas do not get the new version, and no error says so. The next call reaches all.

    ``at`` counts the calls of ``promote``.

    Args:
        share: The share of the replicas that keep the old version.

    Imitates: a node that cannot pull the image, a rolling update that is interrupted, a process
    that holds the old model in memory.

    Fidelity: replicas are drawn by request, with the seed. Needs models that the plugin knows, by
    ``versions=`` or as a dict in an attribute of the controller.

    Example: @chaos.partial_rollout(at=0)
    """

    site = "rollout.promote"
    share: float = 0.5

    def check(self) -> None:
        """Check the parameters."""
        _check_share(self, "share")

    def apply(self, visit: Visit) -> Any:
        """Leave a share of the replicas behind."""
        operation = _operation(self, visit)
        visit.note(share=self.share)
        return operation.with_damage(
            Damage(fault=self.name, effect="partial", share=self.share, seed=visit.seed)
        )


@register
class RollbackFailure(Fault):
    """The new version is worse, and its rollback fails. The next rollback works.

    ``at`` counts the calls of ``deploy``.

    Args:
        kind: ``"raises"``: it raises and has no effect. ``"ignored"``: it returns and has no effect.
            ``"reply_lost"``: it takes effect and raises. If the deployments are searched, each is
            tried.
        error: The exception, as for ``call_failure``.
        by: The share of the new version's answers that fail.

    Imitates: a deployment system that times out, a lock of a different deployment, an old image
    that is gone.

    Fidelity: for the failing rollback, the controller's own code does not run, or runs to its end.

    Example: @chaos.rollback_failure(at=0)
    """

    site = "rollout.deploy"
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "kind": ("raises", "ignored", "reply_lost")
    }
    kind: Literal["raises", "ignored", "reply_lost"] = "raises"
    error: Any = "RuntimeError"
    by: float = 0.5

    def check(self) -> None:
        """Store ``error`` by its name."""
        _check_share(self, "by")
        if not is_drawn(self.error):
            object.__setattr__(self, "error", error_name(self.error, self.name))

    def apply(self, visit: Visit) -> Any:
        """Make the version worse, and its first rollback fail."""
        operation = _operation(self, visit)
        visit.note(kind=self.kind)
        error = make_error(self.error, "rollback", self.name)
        failure = Damage(fault=self.name, effect=self.kind, on="rollback", error=error)
        worse = Damage(fault=self.name, effect="worse", share=self.by, seed=visit.seed)
        return operation.with_damage(failure).with_damage(worse)


@register
class ConfigDrift(Fault):
    """A deployment changes a value of the configuration that it should not.

    ``at`` counts the calls of ``deploy``. The configuration is the dict in ``config=`` of
    ``mlchaos.rollout``, or in the controller's attribute ``config``.

    Args:
        item: The key. Without it, the first one.
        value: The new value. Without it, one that differs.

    Imitates: a default that differs between two images, a change by hand, a half-applied manifest.

    Fidelity: one value of the topmost level changes, right after the call.

    Example: @chaos.config_drift(at=0)
    """

    site = "rollout.deploy"
    random = False
    item: str | None = None
    value: Any = None

    def apply(self, visit: Visit) -> Any:
        """Change a value after the call."""
        operation = _operation(self, visit)
        if not operation.config:
            visit.skip()
            return None
        item = operation.config[0] if self.item is None else self.item
        if item not in operation.config:
            raise PayloadMismatch(
                f"{self.name}: item must be a key of the configuration, got {format_value(item)}"
            )
        visit.note(item=item)
        return operation.with_damage(
            Damage(fault=self.name, effect="config", key=item, value=self.value)
        )

    def possible(self, visit: Visit) -> bool:
        """Return False without a configuration."""
        return not isinstance(visit.payload, Operation) or bool(visit.payload.config)


@register
class VersionSkew(Fault):
    """Model and features are of different versions after a promotion or a rollback.

    The next call of ``promote`` or ``rollback`` moves both. ``at`` counts the calls of ``deploy``.

    Args:
        during: ``"promote"``: the new model gets the features of the old one. ``"rollback"``: the
            new version is worse, and after its rollback the old model gets the new features. If the
            deployments are searched, both are tried.

    Imitates: a feature pipeline that is deployed on its own, a cache of features that outlives a
    rollback.

    Fidelity: needs features by version, ``features=`` of ``mlchaos.rollout``. All requests are
    affected.

    Example: @chaos.version_skew(at=0)
    """

    site = "rollout.deploy"
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"during": ("promote", "rollback")}
    during: Literal["promote", "rollback"] = "promote"

    def apply(self, visit: Visit) -> Any:
        """Leave the features behind at the end of this deployment."""
        operation = _operation(self, visit)
        if not operation.has_features:
            visit.skip()
            return None
        visit.note(during=self.during)
        skewed = operation.with_damage(Damage(fault=self.name, effect="skew", on=self.during))
        if self.during == "promote":
            return skewed
        return skewed.with_damage(
            Damage(fault=self.name, effect="worse", share=0.5, seed=visit.seed)
        )

    def possible(self, visit: Visit) -> bool:
        """Return False if features do not have versions."""
        return not isinstance(visit.payload, Operation) or visit.payload.has_features


@register
class RegistryUnavailable(Fault):
    """The model registry does not answer: a version cannot be loaded.

    Args:
        target: The function that loads a version, as for ``call_failure``. ``at`` then counts its
            calls. Without it, loads of ``mlchaos.rollout`` fail. If the controller loads by itself,
            its call of ``deploy`` fails before it begins.
        error: The exception, as for ``call_failure``.

    Imitates: a registry that is down or refuses the credentials, a model that was deleted.

    Fidelity: the function's own code does not run. The next load works.

    Example: @chaos.registry_unavailable(at=0)
    """

    random = False
    target: str | None = None
    error: Any = "ConnectionError"

    def check(self) -> None:
        """Store ``error`` by its name."""
        if self.target is not None and not is_drawn(self.target) and not self.target.strip():
            raise BadArgument(
                f"{self.name}: target must be 'pkg.mod:function', got {format_value(self.target)}"
            )
        if not is_drawn(self.error):
            object.__setattr__(self, "error", error_name(self.error, self.name))

    @property
    def site(self) -> str:  # type: ignore[override]
        """Return the site of the loads."""
        return "rollout.registry" if self.target is None else "call"

    @property
    def key(self) -> Key:
        """Count the calls of the target, or all loads."""
        return self.site if self.target is None else (self.site, self.target)

    def apply(self, visit: Visit) -> None:
        """Fail."""
        visit.fail(make_error(self.error, self.target or "the registry", self.name))


@register
class MetricsMissing(Fault):
    """The metrics of the new version are missing, from one analysis on.

    ``at`` counts the analyses, and those after it have no metrics either.

    Args:
        kind: ``"nan"``: its rates are NaN, as a query over nothing gives. ``"zero"``: its
            requests and rates are 0, as a counter that is not scraped gives. ``"empty"``: they are not there. If
            the analyses are searched, each is tried.
        checks: The number of analyses without metrics. Without it, all that follow.

    Imitates: a metrics server that is down, a label that was renamed, a scrape that fails.

    Fidelity: the metrics that the plugin hands over are changed. Those that the controller collects
    by itself are not.

    Example: @chaos.metrics_missing(at=0)
    """

    site = "rollout.metrics"
    random = False
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("nan", "zero", "empty")}
    kind: Literal["nan", "zero", "empty"] = "nan"
    checks: int | None = None

    def check(self) -> None:
        """Check the parameters."""
        if self.checks is not None and not is_drawn(self.checks) and self.checks < 1:
            raise BadArgument(
                f"{self.name}: checks must be 1 or more, got {format_value(self.checks)}"
            )

    @property
    def is_consecutive(self) -> bool:
        """Return True: analyses from one on are struck."""
        return isinstance(self.at, tuple) and len(self.at) == 1

    def possible(self, visit: Visit) -> bool:
        """Return True for the first analyses. Missing ones after them are seldom decisive."""
        return visit.index < SEARCHED_ANALYSES

    def apply(self, visit: Visit) -> Any:
        """Remove the metrics of the new version."""
        if not isinstance(visit.payload, Mapping):
            raise PayloadMismatch(
                f"{self.name} strikes the metrics of mlchaos.rollout, got "
                f"{type(visit.payload).__name__}"
            )
        first = visit.memory.setdefault("first", visit.index)
        if self.checks is not None and self.is_consecutive and visit.index >= first + self.checks:
            visit.skip()
            return None
        visit.note(kind=self.kind)
        return without_metrics(visit.payload, self.kind)


def without_metrics(metrics: Mapping[str, Any], kind: str) -> Any:
    """Return metrics without those of the new version, in a copy of the same type."""
    fresh = _emptied(metrics, kind)
    for name, value in metrics.items():
        if name in ("candidate", "canary", metrics.get("version")) and isinstance(value, Mapping):
            fresh[name] = _of_type(value, _emptied(value, kind))
    return _of_type(metrics, fresh)


def _of_type(metrics: Mapping[str, Any], fresh: dict[str, Any]) -> Any:
    cls: Any = type(metrics)
    return cls(fresh)


def _emptied(metrics: Mapping[str, Any], kind: str) -> dict[str, Any]:
    fresh: dict[str, Any] = {}
    for name, value in metrics.items():
        is_rate = isinstance(value, float) and name not in ("weight", "seconds")
        if name not in COUNTS and not is_rate:
            fresh[name] = value
        elif kind != "empty":
            fresh[name] = 0 if name in COUNTS else math.nan if kind == "nan" else 0.0
    return fresh


@register
class SlowStart(Fault):
    """The new version is not ready for some time after its deployment: its answers fail.

    ``at`` counts the calls of ``deploy``.

    Args:
        delay: The time until it is ready: seconds, or ``"30s"``, on the trial's clock.

    Imitates: a model that loads gigabytes of weights, a compiler's warm-up, a cold cache.

    Fidelity: answers fail at once with ``ConnectionError``. They do not wait.

    Example: @chaos.slow_start(delay="10s", at=0)
    """

    site = "rollout.deploy"
    random = False
    delay: Any = 10.0

    def check(self) -> None:
        """Convert ``delay`` to seconds."""
        _seconds(self, "delay")

    def apply(self, visit: Visit) -> Any:
        """Let the version be unready for a while."""
        operation = _operation(self, visit)
        visit.note(delay=self.delay)
        return operation.with_damage(
            Damage(fault=self.name, effect="not_ready", seconds=self.delay)
        )
