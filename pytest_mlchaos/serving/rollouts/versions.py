"""Watch the models of a rollout: which version answers, and what faults make of its answer."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from ...core.rollouts import Damage
from ...core.sites import derive_seed
from ...engine.controller import Controller

__all__ = ["ANSWER_METHODS", "Models", "answering", "is_model", "same_value", "worse_value"]

ANSWER_METHODS = ("predict", "handle", "answer", "serve", "score", "__call__")
"""The methods by which an object may answer a request, the most usual ones first."""


def is_model(value: object) -> bool:
    """Return True for a function, or an object that answers requests."""
    return not isinstance(value, type) and (
        callable(value) or any(callable(getattr(value, name, None)) for name in ANSWER_METHODS)
    )


def answering(model: Any) -> Callable[..., Any]:
    """Return the function of a model that answers a request."""
    if inspect.isroutine(model) or isinstance(model, functools.partial):
        return model
    for name in ANSWER_METHODS:
        method = getattr(model, name, None)
        if callable(method):
            return method  # type: ignore[no-any-return]
    raise TypeError(model)


class Models:
    """The models of a rollout, by version.

    Each call of one of them is noted, and meets the damages of the deployment.
    """

    def __init__(self, controller: Controller, old: str, new: str) -> None:
        self._controller = controller
        self.old, self.new = old, new
        self.damages: list[Damage] = []
        self.ready_at = -math.inf
        self.request: Any = None
        self.user: Any = None
        self.number = 0
        self.called: list[tuple[str, bool, float]] = []
        """The calls for the current request: version, success, and seconds."""
        self.features: Mapping[str, Callable[[Any], Any]] = {}
        self._features_called: set[str] = set()
        self.pool: list[Any] = []
        """Some answers, from which wrong ones are taken."""
        self._real: dict[str, Callable[..., Any]] = {}
        self._kept_features: Mapping[str, Callable[..., Any]] = {}
        """The controller's own features by version, before they were watched."""
        self._undo: list[Callable[[], None]] = []
        self._wrapped: list[tuple[str, Any, Any]] = []
        """The models that are watched: the version, the model, and what is in its place."""

    def expect(self, number: int, request: Any, user: Any = None) -> None:
        """Get ready for the next request."""
        self.number, self.request, self.user = number, request, user
        self.called, self._features_called = [], set()

    @property
    def features_used(self) -> str | None:
        """Return the version of the features for the current request, if it is one."""
        return next(iter(self._features_called)) if len(self._features_called) == 1 else None

    @property
    def has_features(self) -> bool:
        """Return True if the features of both versions are known."""
        return bool(self.features or self._kept_features)

    @property
    def known(self) -> bool:
        """Return True if the models of both versions are watched."""
        return self.old in self._real and self.new in self._real

    def active(self, effect: str) -> Iterator[Damage]:
        """Yield the damages with an effect on answers now."""
        return (one for one in self.damages if one.effect == effect and not one.on)

    def learn(self, version: str, model: Any) -> None:
        """Remember the model of a version."""
        self._real[version] = answering(model)

    def is_known(self, version: str) -> bool:
        """Return True if the model of a version is known."""
        return version in self._real

    def ask(self, version: str, request: Any) -> Any:
        """Let a version answer a request."""
        return self._answer(version, (request,), {})

    def _with_features(self, version: str, of: str, request: Any) -> Any:
        make = self.features.get(of) or self.features.get(version)
        return request if make is None else make(request)

    def _answer(
        self,
        version: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        own: Callable[..., Any] | None = None,
    ) -> Any:
        if version == self.new:
            for damage in self.active("partial"):
                if self._hit(damage):
                    version, own = self.old, None
        if self.features and args:
            skewed = next(self.active("skew"), None) is not None
            of = version
            if skewed:
                of = self.old if version == self.new else self.new
            self._features_called.add(of)
            args = (self._with_features(version, of, args[0]), *args[1:])
        clock = self._controller.clock
        start = clock.now()
        worse = self._worse(version)
        real = own or self._real[version]
        try:
            self._fail_if(version, worse)
            for damage in worse:
                if damage.watched == "latency":
                    clock.sleep(damage.seconds)
            value = real(*args, **kwargs)
        except Exception:
            self.called.append((version, False, clock.now() - start))
            raise
        if hasattr(type(value), "__await__"):
            return self._finish_async(version, value, worse, start)
        return self._finish(version, value, worse, start)

    async def _finish_async(
        self, version: str, value: Any, worse: list[Damage], start: float
    ) -> Any:
        try:
            value = await value
        except Exception:
            self.called.append((version, False, self._controller.clock.now() - start))
            raise
        return self._finish(version, value, worse, start)

    def _finish(self, version: str, value: Any, worse: list[Damage], start: float) -> Any:
        self.called.append((version, True, self._controller.clock.now() - start))
        for damage in worse:
            if damage.watched == "quality":
                value = worse_value(value, self.pool, self.number)
        return value

    def _worse(self, version: str) -> list[Damage]:
        if version != self.new:
            return []
        return [damage for damage in self.active("worse") if self._hit(damage)]

    def _hit(self, damage: Damage) -> bool:
        """Return True if a damage affects the current request."""
        chosen = damage.slice
        if isinstance(chosen, Mapping):
            if not all(_field(self.request, name) == value for name, value in chosen.items()):
                return False
        elif chosen is not None and not chosen(self.request):
            return False
        return damage.share >= 1 or (
            derive_seed(damage.seed, damage.fault, self.number) < damage.share * 2**64
        )

    def _fail_if(self, version: str, worse: list[Damage]) -> None:
        error: Exception | None = None
        if version == self.new and self._controller.clock.now() < self.ready_at:
            error = ConnectionError(f"{version} is not ready (injected by mlchaos)")
        elif any(damage.watched == "errors" for damage in worse):
            error = RuntimeError(f"{version} fails (injected by mlchaos)")
        if error is not None:
            self._controller.inject(error)
            raise error

    # -- models that the controller calls by itself ------------------------------------------------

    def watch(self, holder: MutableMapping[str, Any], *elsewhere: Any) -> None:
        """Watch the models in a dict by version, also under attributes of other objects."""
        for version, model in list(holder.items()):
            if version not in (self.old, self.new) or not is_model(model):
                continue
            if any(
                name == version and (model is one or model is watched)
                for name, one, watched in self._wrapped
            ):
                continue
            shared = any(model is one for _, one, _ in self._wrapped)
            self._real.setdefault(version, self._raw(model))
            watched = self._watched(version, model, shared=shared)
            self._wrapped.append((version, model, watched))
            if watched is not model:
                holder[version] = watched
                self._undo.append(functools.partial(_put_back, holder, watched, model))
            for other in elsewhere:
                for name, value in list(getattr(other, "__dict__", {}).items()):
                    if value is model and watched is not model and not shared:
                        setattr(other, name, watched)

    def watch_features(self, holder: MutableMapping[str, Any]) -> None:
        """Note which version of the features is made, by functions in a dict by version."""
        reals = {one: holder[one] for one in (self.old, self.new)}
        if self._is_ours(reals[self.old]) or reals[self.old] is reals[self.new]:
            return
        self._kept_features = reals
        for version, real in reals.items():
            holder[version] = found = self._feature_wrapper(version, real)
            self._undo.append(functools.partial(_put_back, holder, found, real))

    def _feature_wrapper(self, version: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def made(*args: Any, **kwargs: Any) -> Any:
            of, function = version, real
            if next(self.active("skew"), None) is not None:
                of = self.old if version == self.new else self.new
                function = self._kept_features[of]
            before = set(self._features_called)
            value = function(*args, **kwargs)
            self._features_called = before | {of}  # one version may use the other
            return value

        made._mlchaos_watched = self  # type: ignore[attr-defined]
        return made

    def _raw(self, model: Any) -> Callable[..., Any]:
        """Return the function of a model that answers, also if it is watched for a version."""
        real = answering(model)
        return getattr(real, "__wrapped__", real) if self._is_ours(real) else real

    def _is_ours(self, function: Any) -> bool:
        return getattr(function, "_mlchaos_watched", None) is self

    def _watched(self, version: str, model: Any, *, shared: bool) -> Any:
        """Return a model whose calls are noted: the very same object, if possible."""
        if inspect.isroutine(model) or isinstance(model, functools.partial):
            return self._wrapper(version, model)
        name = next(one for one in ANSWER_METHODS if callable(getattr(model, one, None)))
        if name != "__call__" and hasattr(model, "__dict__") and not shared:
            vars(model)[name] = self._wrapper(version, getattr(model, name))
            self._undo.append(lambda: vars(model).pop(name, None))
            return model
        return _Proxy(model, name, self._wrapper(version, self._raw(model)))

    def _wrapper(self, version: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def watched(*args: Any, **kwargs: Any) -> Any:
            return self._answer(version, args, kwargs, real)

        if inspect.iscoroutinefunction(real):

            @functools.wraps(real)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                return await self._answer(version, args, kwargs, real)

            found: Any = awaited
        else:
            found = watched
        found._mlchaos_watched = self
        return found  # type: ignore[no-any-return]

    def close(self) -> None:
        """Restore the models that were replaced."""
        while self._undo:
            self._undo.pop()()


def _put_back(holder: MutableMapping[str, Any], watched: Any, model: Any) -> None:
    for name, value in list(holder.items()):
        if value is watched:  # under whatever name the controller keeps it now
            holder[name] = model


class _Proxy:
    """A stand-in for a model, whose calls are noted."""

    def __init__(self, model: Any, name: str, call: Callable[..., Any]) -> None:
        self.__dict__.update({"_model": model, "_call": call, name: call})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)


def _field(request: Any, name: str) -> Any:
    if isinstance(request, Mapping):
        return request.get(name)
    return getattr(request, name, None)


def worse_value(value: Any, pool: list[Any], number: int) -> Any:
    """Return a wrong value in place of a right one: a different answer if one is known."""
    for place in range(len(pool)):
        other = pool[(number + place) % len(pool)]
        if type(other) is type(value) and not same_value(other, value):
            return other
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return f"not {value}"
    if isinstance(value, Mapping):
        return _worse_mapping(value, number)
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:  # a scalar of an array library
        return worse_value(value.item(), pool, number)
    if isinstance(value, (list, tuple)) and value:
        return type(value)([worse_value(value[0], [], number), *value[1:]])
    return None


def _worse_mapping(value: Mapping[str, Any], number: int) -> Any:
    for name, one in value.items():
        if isinstance(one, (bool, int, float, str)) and "version" not in str(name):
            return {**value, name: worse_value(one, [], number)}
    return {}


def same_value(one: Any, other: Any) -> bool:
    """Return True if two answers are equal, also if they hold arrays."""
    same = one == other
    return bool(same.all()) if hasattr(same, "all") else bool(same)
