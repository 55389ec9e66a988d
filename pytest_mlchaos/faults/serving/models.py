"""Define faults of the models behind a service: away, slow, damaged, old, or the wrong one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ...core.faults import Fault, is_drawn, register
from ...core.sites import Key, Visit
from ...core.validation import format_value, parse_positive_duration
from ...engine.changes import alike, fingerprint
from ...engine.controller import current_clock
from ...errors import BadArgument, PayloadMismatch
from ..batches.pytree import describe
from ..calls import CallDelay, CallFailure
from ..data_fault import RESULT
from .half_way import FailHalfWay, count_lines
from .weights import WEIGHT_KINDS, NoWeights, damaged_model

__all__ = [
    "ColdStart",
    "CorruptModel",
    "HotReloadFailure",
    "ModelLoadFailure",
    "ModelSlow",
    "ModelUnavailable",
    "StaleModel",
    "WrongModel",
]
LAYER = "Models in a service"
MODEL = "model.call"
"""The site of the calls of a model."""
SHORT = 3
"""As many visits or fewer are kept as a tuple, as in the normal form of ``at``."""
MAX_MODELS = 64
"""The number of loaded models that are kept, to return one of them later."""


def _check_model(fault: Any) -> None:
    """Refuse a fault without a model."""
    if fault.model is None and fault.target is None:
        raise BadArgument(
            f"{fault.name}: model must name the model, such as 'app:Model.predict', 'app:model' or "
            f"\"app:MODELS['fraud']\", got None"
        )
    if fault.model is not None and fault.target is not None:
        raise BadArgument(f"{fault.name}: model= and target= exclude each other. Give one of them")
    if fault.model is not None and not is_drawn(fault.model) and not fault.model.strip():
        raise BadArgument(f"{fault.name}: model must not be empty, got {fault.model!r}")


def _model_key(fault: Any) -> Key:
    """Count the calls of the model, or of the target."""
    return (MODEL, fault.model) if fault.model is not None else (CallFailure.site, fault.target)


@register
class ModelUnavailable(CallFailure):
    """A call of the model fails.

    Args:
        model: The model. A function: ``"app:predict"`` or ``"app:Model.predict"``. An object or a
            class: ``"app:model"``. An entry of a dict: ``"app:MODELS['fraud']"``. Of an object, the
            first of these methods is meant: ``predict``, ``predict_batch``, ``generate``,
            ``infer``, ``forward``, ``__call__``.
        target: A function, as for ``call_failure``, instead of ``model``.
        error: The exception, as for ``call_failure``.
        when: ``"before"`` or ``"after"``, as for ``call_failure``.

    Imitates: a model server that is down or restarts, a model that was unloaded, a GPU that is lost.

    Fidelity: the model's own code does not run (or, with ``when="after"``, runs to its end). An
    object that the app replaces later by a new one is not followed. Name its class instead.

    Example: @chaos.model_unavailable(model="json:loads", at=0)
    """

    site = MODEL
    target: str | None = None  # type: ignore[assignment]  # this fault may omit the target
    model: str | None = None
    error: Any = "ConnectionError"

    def check(self) -> None:
        """Check the parameters."""
        _check_model(self)
        super().check()

    @property
    def key(self) -> Key:
        """Count the calls of this model."""
        return _model_key(self)

    @property
    def called(self) -> str:
        """Return the name of the model."""
        return self.model or self.target or ""


@register
class ModelSlow(CallDelay):
    """A call of the model takes longer.

    Args:
        model: The model, as for ``model_unavailable``.
        target: A function, as for ``call_failure``, instead of ``model``.
        delay: Seconds, or ``"150ms"``, ``"2s"``.

    Imitates: a saturated GPU, a longer prompt, a neighbour on the same machine.

    Fidelity: a coroutine is delayed at its first wait. A plain function is delayed before the call,
    so in an event loop it blocks all other requests, as a real slow function does.

    Example: @chaos.model_slow(model="json:loads", delay="2s", at=0)
    """

    site = MODEL
    target: str | None = None  # type: ignore[assignment]  # this fault may omit the target
    model: str | None = None
    gradual: ClassVar = {"delay": 0.0}
    delay: Any = 5.0

    def check(self) -> None:
        """Check the parameters."""
        _check_model(self)
        super().check()

    @property
    def key(self) -> Key:
        """Count the calls of this model."""
        return _model_key(self)


@register
class ColdStart(CallDelay):
    """The first calls of a model after the start are slow.

    Args:
        model: The model, as for ``model_unavailable``.
        target: A function, as for ``call_failure``, instead of ``model``. With neither, the first
            requests are delayed before they reach the app.
        delay: Seconds, or ``"30s"``. A warm-up in the start-up must end within ``timeout`` of
            ``mlchaos.serve``, which is 10 s.
        calls: The number of calls that are slow.

    Imitates: weights that are loaded at first use, kernels that are compiled, an instance that is
    scaled up from zero.

    Fidelity: calls during the app's start-up count, so an app that warms its model up is ready. The
    calls after a reload are not slow again.

    Example: @chaos.cold_start(model="json:loads", delay="30s", at=0)
    """

    site = "serve.request"
    target: str | None = None  # type: ignore[assignment]  # this fault may omit the target
    model: str | None = None
    gradual: ClassVar = {"delay": 0.0}
    delay: Any = 5.0
    calls: int = 1

    def check(self) -> None:
        """Check the parameters, and choose the first calls."""
        if self.model is not None or self.target is not None:
            _check_model(self)
        if not is_drawn(self.calls) and self.calls < 1:
            raise BadArgument(f"{self.name}: calls must be 1 or more, got {self.calls}")
        super().check()
        if self.at is None and self.p is None and not is_drawn(self.calls):
            first = range(self.calls)
            object.__setattr__(self, "at", first if self.calls > SHORT else tuple(first))

    @property
    def key(self) -> Key:
        """Count the calls of this model, or the requests."""
        return self.site if self.model is self.target is None else _model_key(self)


@register
class ModelLoadFailure(CallFailure):
    """A model cannot be loaded: its loader raises ``error``.

    Args:
        target: The loader, ``"app:load_model"``, as for ``call_failure``.
        error: The exception, as for ``call_failure``.
        when: ``"before"`` or ``"after"``, as for ``call_failure``.

    Imitates: a registry that is down, a file of weights that is missing or of a different format, no
    memory for the model.

    Fidelity: an app that refuses to start is sound. ``mlchaos.serve`` then raises
    ``ServiceFailed``. A search leaves this out, if other loads can fail. Choose a later load with
    ``at`` to test a reload alone.

    Example: @chaos.model_load_failure(target="json:loads", at=0)
    """

    may_prevent_start = True
    error: Any = "OSError"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class _LoadedModel(Fault):
    """A fault of what a loader returns."""

    site = RESULT
    target: str

    def check(self) -> None:
        """Refuse an empty target."""
        if not is_drawn(self.target) and not self.target.strip():
            raise BadArgument(
                f"{self.name}: target must be 'pkg.mod:function', got {format_value(self.target)}"
            )

    @property
    def key(self) -> Key:
        """Count the results of each target separately."""
        return (self.site, self.target)


@register
class CorruptModel(_LoadedModel):
    """A loader returns a model with damaged weights, and no error.

    Args:
        target: The loader, ``"app:load_model"``, or another function that returns the model: a
            torch module, an estimator with arrays, a dict of arrays, or an object with numbers.
        kind: ``"half_loaded"``: the second half of the weights is zero. ``"wrong_weights"``: they
            are in a different order. ``"nan"``: the first array is NaN. A search tries all.

    Imitates: a download that was cut, ``strict=False`` with keys that do not match, weights of a
    different training run, a checkpoint of a diverged run.

    Fidelity: the model is copied, and the copy is damaged. A model that is a plain function has no
    weights, so the numbers that it returns are damaged. Models in C without arrays are refused.

    Example: @chaos.corrupt_model(target="json:loads", at=0)
    """

    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": WEIGHT_KINDS}
    kind: Literal["half_loaded", "wrong_weights", "nan"] = "half_loaded"

    def apply(self, visit: Visit) -> Any:
        """Return the model with damaged weights."""
        try:
            damaged = damaged_model(visit.payload, self.kind, visit.seed)
        except NoWeights as why:
            raise PayloadMismatch(
                f"{self.name}: {self.target} must return a model with weights, got "
                f"{describe(visit.payload)}: {why}"
            ) from None
        if alike(damaged, visit.payload):
            visit.skip()
            return None
        visit.note(kind=self.kind)
        return damaged


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class _EarlierModel(_LoadedModel):
    """A fault that returns a model which the loader has returned before."""

    random = False

    def observe(self, visit: Visit) -> None:
        """Keep the models that were loaded, the last one of each call."""
        kept = visit.memory.setdefault("models", [])
        known = visit.memory.get("now")
        if known is not None:
            kept.append(known)
        del kept[:-MAX_MODELS]
        visit.memory["now"] = (_call_of(visit), visit.payload)

    def earlier(self, visit: Visit) -> list[tuple[Any, Any]]:
        """Return the calls before this one that gave a different model, the latest first."""
        return [
            (call, model)
            for call, model in reversed(visit.memory.get("models", []))
            if model is not visit.payload and not alike(model, visit.payload)
        ]

    def no_model(self, what: str) -> PayloadMismatch:
        """Return the error for a load that comes too early."""
        return PayloadMismatch(
            f"{self.name}: {self.target} must have returned {what} before, got none yet. Strike a "
            f"later load with at="
        )


def _call_of(visit: Visit) -> Any:
    """Return what tells the arguments of two calls apart, or None if they are not known."""
    arguments = visit.attributes.get("arguments")
    if arguments is None:
        return None
    args, kwargs = arguments
    named = [*enumerate(args), *sorted(kwargs.items())]
    return tuple((name, fingerprint(value) or id(value)) for name, value in named)


@register
class StaleModel(_EarlierModel):
    """A loader returns the version that it returned before: an update is late.

    Args:
        target: The loader, ``"app:load_model"``, or another function that returns the model.
        duration: The time for which loads get the old version: seconds, or ``"10m"``. Without it,
            one load.

    Imitates: a registry whose replica lags, a cache of models, a file that is not synchronised yet.

    Fidelity: the version of the last call with the same arguments comes back. Without such a call,
    it is that of the last call. The first load is never struck. A function that keeps the model
    itself, and returns nothing, is not struck. Name the loader that it calls.

    Example: @chaos.stale_model(target="json:loads", at=1)
    """

    duration: Any = None

    def check(self) -> None:
        """Convert ``duration`` to seconds."""
        super().check()
        if self.duration is not None and not is_drawn(self.duration):
            seconds = parse_positive_duration(self.duration, f"{self.name}: duration")
            object.__setattr__(self, "duration", seconds)

    @property
    def is_consecutive(self) -> bool:
        """Return True if the loads from one on may be late, until the time is over."""
        if self.duration is None:
            return super().is_consecutive
        return isinstance(self.at, tuple) and len(self.at) == 1

    def apply(self, visit: Visit) -> Any:
        """Return the earlier version."""
        if self.duration is not None and self.is_consecutive:
            until = visit.memory.setdefault("until", current_clock().now() + self.duration)
            if current_clock().now() >= until:
                visit.skip()
                return None
            if "old" in visit.memory:
                return visit.memory["old"]
        found = self.earlier(visit)
        same = [model for call, model in found if call == _call_of(visit)]
        if not found:
            raise self.no_model("a different model")
        visit.memory["old"] = (same or [model for _, model in found])[0]
        return visit.memory["old"]


@register
class WrongModel(_EarlierModel):
    """A loader or registry returns a different model than it was asked for.

    Args:
        target: The loader, ``"app:Registry.get"``, or another function that returns a model by its
            name or version.

    Imitates: two versions that were mixed up, an alias that points to a different model, a route
    that leads to the neighbour.

    Fidelity: the model of the last call with different arguments comes back. The first load is
    never struck. Models in a plain dict are not reached, because a dict makes no calls.

    Example: @chaos.wrong_model(target="json:loads", at=1)
    """

    def apply(self, visit: Visit) -> Any:
        """Return the model of a different call."""
        own = _call_of(visit)
        found = [model for call, model in self.earlier(visit) if own is None or call != own]
        if not found:
            raise self.no_model("a model for different arguments")
        return found[0]


@register
class HotReloadFailure(CallFailure):
    """A reload of a model raises, at its start, in the middle, or at its end.

    Args:
        target: The function that reloads, ``"app:reload"``, as for ``call_failure``.
        error: The exception, as for ``call_failure``.
        when: ``"before"``, ``"half"``: at a line inside the function, so that a part of its work is
            done. Or ``"after"``: the reload takes effect, and its reply is lost. A search tries
            all.
        line: For ``when="half"``, the number of the line that fails, counted as they run. A search
            tries all. Without it, the second one.

    Imitates: a reload for which memory, the file or the registry is missing, and that leaves the
    service between two versions.

    Fidelity: ``when="half"`` needs a function in Python. It fails before a line of the function
    itself, not of those that it calls. Meanwhile coverage does not see the lines of this function.

    Example: @chaos.hot_reload_failure(target="json:loads", when="after", at=0)
    """

    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"when": ("half", "before", "after")}
    searchable: ClassVar[tuple[str, ...]] = ("line",)
    error: Any = "RuntimeError"
    when: Literal["before", "half", "after"] = "before"  # type: ignore[assignment]  # one more
    line: int = 1

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if not is_drawn(self.line) and self.line < 0:
            raise BadArgument(f"{self.name}: line must be 0 or more, got {self.line}")

    def probe(self, visit: Visit) -> None:
        """Count the lines that run."""
        if self.when == "half":
            visit.keep_open(count_lines(visit))

    def possible(self, visit: Visit) -> bool:
        """Return False for a function without lines of Python."""
        return self.when != "half" or visit.attributes.get("code") is not None

    def apply(self, visit: Visit) -> None:
        """Fail before, inside or after the reload."""
        if self.when != "half":
            super().apply(visit)
        elif visit.attributes.get("code") is None:
            raise PayloadMismatch(
                f"{self.name}: when='half' needs a function in Python, got {self.target}"
            )
        else:
            visit.keep_open(FailHalfWay(visit, self.line, self._error))

    def _error(self) -> BaseException:
        from ..calls import make_error

        return make_error(self.error, self.target, self.name)
