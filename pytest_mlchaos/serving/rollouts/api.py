"""Implement ``mlchaos.rollout``: roll a version out under traffic and faults.

1. ``options.py`` checks the options, and prepares the traffic.
2. ``subjects.py`` makes a controller of what the user hands over, and finds out what it does itself.
3. ``flow.py`` takes the rollout through its steps. ``driver.py`` routes the requests, calls the
   controller, and measures.
4. ``versions.py`` watches the models, and lets the damages of faults take effect.
5. ``analysis.py`` compares both versions by ``sequential.py``, the default test.
6. ``verdicts.py`` judges the record (``records.py``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from ...core.clock import VirtualClock
from ...core.privacy import data_text
from ...core.validation import did_you_mean, format_value
from ...engine.controller import Controller
from ...errors import BadArgument, NeverAnswered
from ...runs.user_state import UserState
from ...sites.rollouts import REGISTRY
from ..patience import Patience
from .analysis import score_of
from .driver import RunningRollout
from .flow import Flow
from .options import Options, Traffic
from .platforms import Platform
from .records import Trace
from .subjects import (
    DEFAULT_VERSIONS,
    Fleet,
    Shape,
    as_controller,
    find_config,
    find_features,
    find_holders,
    find_versions,
)
from .versions import Models, is_model

__all__ = ["roll_out"]

SERVER_ERROR = 500
HINDSIGHT_REQUESTS = 3000
"""The largest number of requests that decide, after the rollout, if a version was worse."""
NUMBERS: Mapping[str, Any] = {
    "margin": 0.05,
    "false_rollbacks": 0.05,
    "false_promotions": 0.05,
    "per_check": 100,
    "checks": 10,
    "patience": 20,
    "rate": 10.0,
    "seed": 0,
    "requests": None,
}
"""The options that are seldom used, with their defaults."""


def roll_out(
    chaos: Controller,
    controller: Any,
    traffic: Any,
    *,
    versions: Any,
    labels: Any,
    analyse: Callable[..., Any] | None,
    worse: bool | None,
    options: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Trace:
    """Roll the new version out, and return the record.

    Args:
        chaos: The controller of the trial.
        controller: What the user hands over.
        traffic: The requests.
        versions: The models by version, or the names of both versions.
        labels: The right answers.
        analyse: A function of the metrics that decides.
        worse: True or False if the new version is known to be worse, or not.
        options: Options, unchecked.
        more: The options that are seldom used, unchecked.
    """
    given = _Given.of(more)
    if analyse is not None and not callable(analyse):
        raise BadArgument(
            f"mlchaos.rollout: analyse must be a function of the metrics, got {data_text(analyse)}"
        )
    chosen = Options.checked(labels=labels is not None, **options, **given.numbers)
    requests = Traffic(traffic, None if _is_golden(labels) else labels, given.user)
    subject, source, is_program = as_controller(controller)
    program = subject if is_program else None
    if program is not None:
        subject, source = None, ("dict", _models_of(versions))
    models = Models(chaos, *_names(subject, source, versions))
    models.features = given.features or {}
    memory = UserState([controller])
    struck = len(chaos.journal)
    trace = Trace(models.old, models.new, chosen.watched, is_worse=worse, margin=chosen.margin)
    try:
        rollout = _prepared(
            chaos,
            subject,
            source,
            versions,
            models,
            requests,
            chosen,
            trace,
            label=_label(labels, requests),
            score=score_of(given.score),
            is_error=given.is_error or _fails,
            config=given.config,
        )
        try:
            patient = _Patient(chaos, trace)
            rollout.on_loop = patient.watch
            with chaos.attempt(), patient:
                flow = Flow(rollout, Shape(rollout.subject), chosen, analyse)
                if program is None:
                    flow.run()
                else:
                    flow.drive_by(program, Platform(rollout, chosen))
                trace.strikes = tuple(chaos.journal)[struck:]
                flow.samples.compare(trace)
            _look_again(chaos, rollout, trace)
        finally:
            rollout.close()
        trace.evidence = rollout.comparison.verdict()
        trace.excess = rollout.comparison.excess(trace.evidence[1])
        trace.config_drifted = rollout.find_drift(rollout.weights.get(models.new) == 1)
    finally:
        models.close()
        left = memory.contents()
        chaos.forget.append(lambda: _forget(memory, left))
    return trace


@dataclasses.dataclass(frozen=True)
class _Given:
    """The options that are seldom used."""

    user: Any = None
    score: Callable[[Any, Any], Any] | None = None
    is_error: Callable[[Any], object] | None = None
    features: Mapping[str, Callable[[Any], Any]] | None = None
    config: MutableMapping[str, Any] | None = None
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, more: Mapping[str, Any]) -> _Given:
        """Sort the options. Raise ``BadArgument`` for an unknown one."""
        own = {one.name for one in dataclasses.fields(cls)} - {"numbers"}
        for name in more:
            if name not in own | NUMBERS.keys():
                known = sorted(own | NUMBERS.keys())
                raise BadArgument(
                    f"mlchaos.rollout got an unknown option {name!r}{did_you_mean(name, known)}. It "
                    f"also takes {', '.join(known)}"
                )
        _check_given(more)
        numbers = {name: more.get(name, default) for name, default in NUMBERS.items()}
        return cls(**{name: more[name] for name in own if name in more}, numbers=numbers)


def _check_given(more: Mapping[str, Any]) -> None:
    """Raise ``BadArgument`` for an option that cannot be used as what it should be."""
    rules: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
        ("score", callable, "a function of two answers"),
        ("is_error", callable, "a function of an answer"),
        ("user", lambda one: callable(one) or isinstance(one, str), "a field, or a function"),
        ("config", lambda one: isinstance(one, MutableMapping), "a dict"),
        (
            "features",
            lambda one: isinstance(one, Mapping) and all(map(callable, one.values())),
            "a dict of functions of the request by version",
        ),
    )
    for name, fits, rule in rules:
        value = more.get(name)
        if value is not None and not fits(value):
            raise BadArgument(f"mlchaos.rollout: {name} must be {rule}, got {data_text(value)}")


def _models_of(versions: Any) -> Mapping[str, Any]:
    if isinstance(versions, Mapping) and all(map(is_model, versions.values())):
        return versions
    raise BadArgument(
        "mlchaos.rollout: a controller that is a function of a platform needs models. Give "
        "versions={'v1': model, 'v2': model}"
    )


def _look_again(chaos: Controller, rollout: RunningRollout, trace: Trace) -> None:
    """Find out if a version that was not promoted is worse, unless a fault says so."""
    if trace.strikes or rollout.weights.get(rollout.new) == 1:
        return
    with chaos.without_faults():
        rollout.look_again(HINDSIGHT_REQUESTS)


def _forget(memory: UserState, left: list[Any]) -> None:
    """Drop what the rollout left in memory, so that the next trial starts afresh."""
    memory.adopt(left)
    memory.restore()


def _is_golden(labels: Any) -> bool:
    return isinstance(labels, str) and labels == "golden"


def _names(subject: Any, given: Any, versions: Any) -> tuple[str, str]:
    """Return the old and the new version: the first and the last name."""
    names: list[Any] = []
    if isinstance(versions, Mapping) or (
        versions is not None and not isinstance(versions, str) and hasattr(versions, "__iter__")
    ):
        names = list(versions)
    elif versions is not None:
        raise BadArgument(
            f"mlchaos.rollout: versions must be a dict of models by version, or the names of two "
            f"versions, got {data_text(versions)}"
        )
    elif given is not None and given[0] == "dict":
        names = list(given[1])
    elif subject is not None:
        names = find_versions(subject)
    names = names or list(DEFAULT_VERSIONS)
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise BadArgument(
            f"mlchaos.rollout: versions must name the old version and the new one, got "
            f"{format_value(names)}"
        )
    return names[0], names[-1]


def _prepared(
    chaos: Controller,
    subject: Any,
    given: Any,
    versions: Any,
    models: Models,
    traffic: Traffic,
    options: Options,
    trace: Trace,
    *,
    config: MutableMapping[str, Any] | None,
    **measures: Any,
) -> RunningRollout:
    """Return a rollout with its models watched and its controller's methods wrapped."""
    own_registry = given is None
    serve: Callable[[Any, Any, str], Any] | None = None
    routes = False
    if given is not None:
        subject = Fleet(_loader(chaos, given, models))
    shape = Shape(subject)
    mapped = isinstance(versions, MutableMapping) and any(map(is_model, versions.values()))
    holders = find_holders(subject, (models.old, models.new)) if given is None else []
    if given is None and mapped and not any(one is versions for one in holders):
        holders.append(versions)
    for holder in holders:
        models.watch(holder, subject)
    features = find_features(subject, (models.old, models.new)) if given is None else None
    if features is not None and not models.features:
        models.watch_features(features)
    if given is None and shape.path is not None:
        serve, routes = _path(shape), shape.version_argument is None
        unknown = not models.is_known(models.old) and not models.is_known(models.new)
        if not routes and unknown:
            for version in (models.old, models.new):
                models.learn(version, functools.partial(_by_version, serve, models, version))
            serve = None
    elif given is None and not models.known:
        raise BadArgument(
            "mlchaos.rollout: the controller must have a method that answers requests, such as "
            "predict(request), or models. Give versions={'v1': model, 'v2': model}"
        )
    rollout = RunningRollout(
        chaos,
        subject,
        models,
        traffic,
        options,
        trace,
        serve=serve,
        routes=routes,
        own_registry=own_registry,
        config=config if config is not None else find_config(subject),
        **measures,
    )
    if measures["label"] == "golden" and not rollout.can_ask:
        raise BadArgument(
            "mlchaos.rollout: labels='golden' needs models that take the request, or a method "
            "predict(request, version), got a controller that routes by itself"
        )
    if given is not None:
        _load(chaos, given, models, models.old)
    rollout.install()
    return rollout


def _by_version(serve: Callable[..., Any], models: Models, version: str, request: Any) -> Any:
    """Let the controller answer with a version. Its models are inside, so faults act around it."""
    return serve(request, models.user, version)


def _path(shape: Shape) -> Callable[[Any, Any, str], Any]:
    """Return a function that lets the controller answer a request."""
    path, takes_version, takes_user = shape.path, shape.version_argument, shape.user_argument
    first = shape.path_takes[0] if shape.path_takes else None
    assert path is not None

    def serve(request: Any, user: Any, version: str) -> Any:
        kwargs = {takes_user: user} if takes_user is not None else {}
        if takes_version is None:
            return path(request, **kwargs)
        if takes_version == first:
            return path(version, request, **kwargs)
        return path(request, **{takes_version: version}, **kwargs)

    return serve


def _loader(chaos: Controller, given: Any, models: Models) -> Callable[[str], None]:
    def load(version: str) -> None:
        chaos.visit(REGISTRY, version)
        _load(chaos, given, models, version)

    return load


def _load(chaos: Controller, given: Any, models: Models, version: str) -> None:
    """Let the models learn a version from a dict, a loader or a function that serves both."""
    kind, source = given
    if kind == "serve":
        models.learn(version, lambda request: source(version, request))
        return
    model = source[version] if kind == "dict" else source(version)
    if not is_model(model):
        raise BadArgument(
            f"mlchaos.rollout: the version {version} must be a function of the request or an "
            f"object with predict(), got {data_text(model)}"
        )
    models.learn(version, model)


def _label(labels: Any, traffic: Traffic) -> Any:
    return labels if labels is None or _is_golden(labels) else traffic.label


def _fails(value: Any) -> bool:
    """Return True for an answer with a status of 500 or more."""
    if value is None or type(value) in (int, float, bool, str, list):
        return False
    status = (
        value.get("status", value.get("status_code"))
        if isinstance(value, Mapping)
        else getattr(value, "status_code", None)
    )
    return isinstance(status, int) and status >= SERVER_ERROR


class _Patient:
    """End a controller that polls without end, on a virtual clock."""

    def __init__(self, chaos: Controller, trace: Trace) -> None:
        self._clock, self._trace = chaos.clock, trace
        self._patience = Patience(chaos, self._give_up)
        self._before: Any = None
        self._calls = 0

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Notice if the loop of an async controller waits for nothing."""
        self._patience.watch(loop)

    def _give_up(self, reason: str) -> None:
        raise NeverAnswered(f"the controller hangs: {reason}")

    def _waits(self) -> None:
        seen = len(self._trace.answers) + len(self._trace.calls)
        if seen != self._calls:
            self._calls = seen
            self._patience.progress()
        self._patience.waits()

    def __enter__(self) -> None:
        if isinstance(self._clock, VirtualClock):
            self._before, self._clock.on_sleep = self._clock.on_sleep, self._waits

    def __exit__(self, *_: object) -> None:
        if isinstance(self._clock, VirtualClock):
            self._clock.on_sleep = self._before
