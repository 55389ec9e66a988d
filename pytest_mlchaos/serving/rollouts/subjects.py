"""Make one kind of controller of what the user hands over: an object, models, or a program."""

from __future__ import annotations

import dis
import enum
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from ...core.privacy import data_text
from ...core.rollouts import OPERATIONS
from ...core.validation import format_value
from ...errors import BadArgument
from ...sites.calls import resolve
from .sequential import Verdict
from .versions import is_model

__all__ = [
    "DEFAULT_VERSIONS",
    "Fleet",
    "Hook",
    "Shape",
    "as_controller",
    "find_config",
    "find_features",
    "find_holders",
    "find_recorder",
    "find_versions",
    "read_verdict",
]

DEFAULT_VERSIONS = ("v1", "v2")
"""The names of the old and the new version, if nothing names them."""
HOOKS = (
    "analyse",
    "analyze",
    "analysis",
    "check",
    "evaluate",
    "judge",
    "observe",
    "on_metrics",
    "reconcile",
    "tick",
    "step",
)
"""The methods that receive the metrics of an analysis."""
RECORDERS = ("record", "observe", "report", "on_request", "on_result", "on_response", "on_reply")
"""The methods that may receive each answer, by the names of their arguments."""
OF_AN_ANSWER = {"ok", "success", "error", "failed", "latency", "request", "response", "reply"}
OF_AN_ANSWER |= {"result", "answer", "user", "is_error", "seconds"}
PATHS = ("handle", "predict", "serve", "answer", "score", "__call__")
"""The methods by which a controller answers a request itself."""
VERSION_NAMES = ("version", "model_version", "v", "name")
FEATURE_WORDS = ("feat", "transform", "preprocess", "encoder")
"""Parts of the names of attributes that hold functions by version that are not models."""
CONFIGS = ("config", "configuration", "settings")
EXPECTED = (
    "a controller with deploy(version), split(weights), promote() and rollback(), a dict of models "
    "by version, a function of (version, request), or the dotted name of a function that loads a "
    "version"
)
PASS = {"pass", "passed", "success", "successful", "promote", "promoted", "ok", "good", "healthy"}
PASS |= {"continue", "advance", "proceed", "go", "progress", "progressing", "next"}
FAIL = {"fail", "failed", "failure", "rollback", "roll_back", "rolled_back", "abort", "bad"}
FAIL |= {"unhealthy", "reject", "rejected", "stop"}
PAUSE = {"inconclusive", "pause", "paused", "wait", "waiting", "hold", "unknown", "retry", "error"}


class Fleet:
    """A controller over models that a function loads: the plugin's own."""

    def __init__(self, load: Callable[[str], Any]) -> None:
        self._load = load

    def deploy(self, version: str) -> None:
        """Load a version."""
        self._load(version)

    def split(self, weights: Mapping[str, float]) -> None:
        """Do nothing: the plugin routes."""

    def promote(self) -> None:
        """Do nothing: the plugin routes."""

    def rollback(self) -> None:
        """Do nothing: the plugin routes."""


def as_controller(given: Any) -> tuple[Any, Any, bool]:
    """Return a controller, its models, and True if it is a program that drives a platform.

    The models are a dict by version, a function that loads one, or a function of (version,
    request). None if the controller has its own.
    """
    if isinstance(given, str):
        return None, ("load", _from_dotted(given)), False
    if isinstance(given, Mapping):
        return None, ("dict", given), False
    if inspect.isclass(given):
        given = _made(given)
    having = [name for name in OPERATIONS if callable(getattr(given, name, None))]
    if len(having) == len(OPERATIONS):
        return given, None, False
    if having and not inspect.isroutine(given):
        missing = next(name for name in OPERATIONS if name not in having)
        raise BadArgument(
            f"mlchaos.rollout: the controller must have a method {missing}(), got "
            f"{data_text(given)}. It needs deploy(version), split(weights), promote() and rollback()"
        )
    if not callable(given):
        raise BadArgument(f"mlchaos.rollout: controller must be {EXPECTED}, got {data_text(given)}")
    names = _names(given)
    if names and len(names) >= 2:
        return None, ("serve", given), False
    if names and names[0] in (*VERSION_NAMES, "uri", "model_uri"):
        return None, ("load", given), False
    if names:
        return given, None, True
    raise BadArgument(
        f"mlchaos.rollout: controller must be {EXPECTED}, got {data_text(given)}, which takes no "
        f"argument"
    )


def _made(cls: type) -> Any:
    try:
        return cls()
    except TypeError as error:
        raise BadArgument(
            f"mlchaos.rollout: controller must be an object, got the class {cls.__name__}, which "
            f"needs arguments ({error}). Give an instance of it"
        ) from None


def _from_dotted(target: str) -> Callable[..., Any]:
    owner, name, _, _ = resolve(target)

    def load(version: str) -> Any:
        return getattr(owner, name)(version)  # at each call, so that faults reach it

    return load


def _names(function: Callable[..., Any]) -> list[str] | None:
    """Return the names of the positional arguments that a function needs."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [
        one.name
        for one in parameters
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty
    ]


class Shape:
    """The parts of a rollout that a controller does by itself.

    Attributes:
        hook: The method that receives metrics, or None.
        recorder: The method that receives each answer, or None.
        returns_verdicts: True if that method returns a value.
        path: The method by which it answers requests, or None.
        path_takes: The names of that method's arguments.
        own_calls: The methods of the four that its other methods call.
    """

    def __init__(self, controller: Any) -> None:
        self.recorder = find_recorder(controller)
        given = getattr(self.recorder, "__name__", None)
        self.hook_name = _first_method(controller, [one for one in HOOKS if one != given])
        self.path_name = _first_method(controller, PATHS)
        self.hook = getattr(controller, self.hook_name) if self.hook_name else None
        self.path = getattr(controller, self.path_name) if self.path_name else None
        self.path_takes = _all_names(self.path) if self.path is not None else []
        self.returns_verdicts = self.hook is not None and _returns_values(self.hook)
        self.own_calls = _own_calls(type(controller))

    @property
    def version_argument(self) -> str | None:
        """Return the name of the argument by which the plugin chooses the version."""
        return next((name for name in VERSION_NAMES if name in self.path_takes), None)

    @property
    def user_argument(self) -> str | None:
        """Return the name of the argument that takes the user."""
        return next(
            (one for one in ("user", "user_id", "session", "key") if one in self.path_takes[1:]),
            None,
        )


def _first_method(value: Any, names: Iterable[str]) -> str | None:
    return next((name for name in names if callable(getattr(value, name, None))), None)


def _all_names(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _codes(function: Any) -> Iterable[types.CodeType]:
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
    stack = [code] if code is not None else []
    while stack:
        one = stack.pop()
        yield one
        stack += [inner for inner in one.co_consts if isinstance(inner, types.CodeType)]


def _returns_values(function: Any) -> bool:
    """Return True if a function returns something else than None anywhere."""
    code = next(iter(_codes(function)), None)
    if code is None:
        return True
    before: Any = None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "RETURN_CONST" and instruction.argval is not None:
            return True
        if instruction.opname == "RETURN_VALUE" and not (
            before is not None and before.opname == "LOAD_CONST" and before.argval is None
        ):
            return True
        before = instruction
    return False


def _own_calls(cls: type) -> frozenset[str]:
    """Return the four methods' names that other methods of a class mention."""
    found: set[str] = set()
    for base in cls.__mro__[:-1]:
        for name, value in vars(base).items():
            if name in OPERATIONS or name == "__init__":
                continue
            for code in _codes(getattr(value, "fget", value)):
                found |= set(OPERATIONS) & set(code.co_names)
    return frozenset(found)


def find_recorder(controller: Any) -> Callable[..., Any] | None:
    """Return the method by which a controller receives each answer, if it has one."""
    for name in RECORDERS:
        method = getattr(controller, name, None)
        if callable(method):
            taken = set(_all_names(method))
            if taken & OF_AN_ANSWER and "metrics" not in taken:
                return method  # type: ignore[no-any-return]
    return None


class Hook:
    """Call an analysis with the metrics, in whatever way it takes them."""

    @property
    def takes_metrics(self) -> bool:
        """Return True if the analysis receives anything."""
        return self._parameters is None or bool(self._parameters)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._parameters: list[inspect.Parameter] | None
        try:
            self._parameters = [*inspect.signature(function).parameters.values()]
        except (TypeError, ValueError):
            self._parameters = None

    def __call__(self, metrics: Any) -> Any:
        """Return what the analysis returns."""
        if self._parameters is None:
            return self._function(metrics)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        needed = [
            one
            for one in self._parameters
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
            and (one.default is one.empty or one.name in metrics)
        ]
        for place, one in enumerate(needed):
            value = self._value(one.name, metrics, alone=place == 0)
            if one.kind is one.KEYWORD_ONLY:
                kwargs[one.name] = value
            elif one.default is one.empty:
                args.append(value)
            else:
                kwargs[one.name] = value
        if not needed and any(one.kind is one.VAR_POSITIONAL for one in self._parameters):
            args = [metrics]
        if not needed and any(one.kind is one.VAR_KEYWORD for one in self._parameters):
            kwargs = {
                str(name): value for name, value in metrics.items() if str(name).isidentifier()
            }
        return self._function(*args, **kwargs)

    def _value(self, name: str, metrics: Any, *, alone: bool) -> Any:
        if name in ("candidate", "canary", "new", "green", "treatment"):
            return metrics["candidate"]
        if name in ("baseline", "stable", "old", "primary", "control", "blue"):
            return metrics["stable"]
        if name in metrics and name not in ("versions",):
            return metrics[name]
        if alone or name == "metrics":
            return metrics
        raise BadArgument(
            f"mlchaos.rollout: the analysis takes an argument {name!r} that is not a metric. It "
            f"may take the metrics, (stable, candidate), or metrics by name: "
            f"{', '.join(str(one) for one in metrics if isinstance(one, str))}"
        )


def read_verdict(value: Any) -> Verdict | None:
    """Return the verdict that an analysis means. None if it returned nothing."""
    if isinstance(value, tuple) and value:
        value = value[0]
    if value is None:
        return None
    if isinstance(value, enum.Enum):
        value = value.value if isinstance(value.value, str) else value.name
    for attribute in ("verdict", "status", "phase"):
        inner = (
            value.get(attribute) if isinstance(value, Mapping) else getattr(value, attribute, None)
        )
        if isinstance(inner, (str, bool, enum.Enum)):
            return read_verdict(inner)
    if isinstance(value, str):
        word = value.strip().lower().replace(" ", "_").replace("-", "_")
        for verdict, words in (("pass", PASS), ("fail", FAIL), ("inconclusive", PAUSE)):
            if word in words:
                return verdict  # type: ignore[return-value]
    elif isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return "pass" if value else "fail"
    raise BadArgument(
        f"mlchaos.rollout: the analysis must return 'pass', 'fail' or 'inconclusive', or True or "
        f"False, got {format_value(value)}"
    )


def find_features(controller: Any, names: tuple[str, str]) -> MutableMapping[str, Any] | None:
    """Return the dict of functions that make features by version, in a controller's attributes."""
    for name, value in _reachable(controller):
        if (
            _makes_features(name)
            and isinstance(value, MutableMapping)
            and all(inspect.isroutine(value.get(one)) for one in names)
        ):
            return value
    return None


def _makes_features(attribute: str) -> bool:
    return any(word in attribute.lower() for word in FEATURE_WORDS)


def find_holders(controller: Any, names: tuple[str, str]) -> list[MutableMapping[str, Any]]:
    """Return the dicts of models by version in a controller's attributes."""
    found: list[MutableMapping[str, Any]] = []
    for attribute, value in _reachable(controller):
        if (
            isinstance(value, MutableMapping)
            and not _makes_features(attribute)
            and any(name in value and is_model(value[name]) for name in names)
            and not any(one is value for one in found)
        ):
            found.append(value)
    return found


def _reachable(controller: Any) -> Iterator[tuple[str, Any]]:
    """Yield a controller's attributes and their names, and the attributes of those objects."""
    for name, value in list(getattr(controller, "__dict__", {}).items()):
        yield name, value
        if not isinstance(value, (type, types.ModuleType, types.FunctionType)):
            yield from list(getattr(value, "__dict__", {}).items())


def find_versions(controller: Any) -> list[str]:
    """Return the versions of the models in a controller's attributes, in their order."""
    for name, value in _reachable(controller):
        if (
            isinstance(value, Mapping)
            and not _makes_features(name)
            and len(value) >= len(DEFAULT_VERSIONS)
            and all(isinstance(name, str) and is_model(one) for name, one in value.items())
        ):
            return list(value)
    return []


def find_config(controller: Any) -> MutableMapping[str, Any] | None:
    """Return a controller's configuration, if it is a dict."""
    for name in CONFIGS:
        value = getattr(controller, name, None)
        if isinstance(value, MutableMapping) and value:
            return value
    return None
