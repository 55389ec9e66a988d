"""Define the site ``call``: calls of a dotted target, under each name by which it was imported."""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ..core.privacy import error_text
from ..core.sites import Key, site
from ..core.validation import did_you_mean, format_value
from ..engine.controller import Controller, current
from ..engine.function_references import by_reference
from ..engine.patching import Patches
from ..engine.stand_ins import delegating, unbound
from ..errors import TargetNotFound
from .awaitables import DelayedItems, call_in_loop, in_event_loop
from .inherited import Inherited

__all__ = ["alike", "find", "replace", "resolve", "wrap"]

SITE = "call"


@site(SITE, "A call of a dotted target. Payload: (args, kwargs).")
def arm_call(controller: Controller, patches: Patches, key: Key) -> None:
    """Wrap the target that the key names."""
    if isinstance(key, str):
        return
    replace(patches, key[1], lambda function: wrap(function, key, lambda: controller))


def replace(patches: Patches, target: str, wrap: Callable[[Callable[..., Any]], Any]) -> None:
    """Replace a dotted target by a wrapper, under each name by which it was imported.

    Args:
        patches: The patches of the trial.
        target: The target, for example ``"pkg.mod:function"``.
        wrap: A function that returns the wrapper of a function.

    Raises:
        TargetNotFound: The target does not exist, or cannot be patched.
    """
    owner, name, kind, function = resolve(target)
    by_reference(patches, function)
    if inspect.isclass(owner) and name != "__new__":
        own = vars(owner).get(name)
        if own is None and name not in vars(owner):
            patches.set(owner, name, Inherited(owner, name, wrap))
            return
        if isinstance(own, Inherited):
            patches.set(owner, name, own.wrapping(wrap))
            return
    wrapper = alike(wrap(function), function)
    wrapper = wrapper if kind else unbound(wrapper, function)
    if inspect.ismodule(owner):
        patches.set(owner, name, wrapper)
        patches.replace_everywhere(function, wrapper)
        return
    try:
        patches.set(owner, name, kind(wrapper) if kind else wrapper)
    except (TypeError, AttributeError) as error:
        raise TargetNotFound(
            f"target {target!r} cannot be patched: {error}. Wrap it with mlchaos.call(...) instead"
        ) from None


def wrap(
    function: Callable[..., Any], key: Key, controller: Callable[[], Controller | None]
) -> Any:
    """Return a wrapper of a function that makes a visit before each call.

    Coroutine functions and generator functions keep their kind.

    Args:
        function: The function.
        key: The key of its visits.
        controller: A function that returns the controller at the time of a call, or None.
    """
    attributes = {
        "target": key[1],
        "parameters": positional(function),
        "code": getattr(inspect.unwrap(function), "__code__", None),
        "function": function,
    }

    def begin(args: object, kwargs: object) -> Any:
        active = controller()
        return active and active.begin(key, (args, kwargs), attributes)

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> Any:
        gate = begin(args, kwargs)
        if gate is None:
            return function(*args, **kwargs)
        if in_event_loop():
            return call_in_loop(function, gate)
        with gate:
            gate.wait()
            args, kwargs = gate.payload
            return function(*args, **kwargs)

    @functools.wraps(function)
    async def call_async(*args: object, **kwargs: object) -> Any:
        gate = begin(args, kwargs)
        if gate is None:
            return await function(*args, **kwargs)
        with gate:
            args, kwargs = gate.payload
            return await gate.run(lambda: function(*args, **kwargs))

    @functools.wraps(function)
    def generate(*args: object, **kwargs: object) -> Any:
        gate = begin(args, kwargs)
        with gate or contextlib.nullcontext():
            if gate is not None:
                gate.wait()
                args, kwargs = gate.payload
            return (yield from function(*args, **kwargs))

    @contextlib.asynccontextmanager
    async def entered(args: Sequence[Any], kwargs: Any) -> AsyncIterator[Any]:
        gate = begin(args, kwargs)
        with gate or contextlib.nullcontext():
            args, kwargs = (args, kwargs) if gate is None else gate.payload
            yield (gate, *args), kwargs

    @functools.wraps(function)
    def started(gate: Any, *args: object, **kwargs: object) -> Any:
        items = function(*args, **kwargs)
        return items if gate is None else DelayedItems(items, gate)

    async def unchanged(item: object) -> Any:
        return item

    kinds = (
        (inspect.iscoroutinefunction, call_async),
        (inspect.isasyncgenfunction, delegating(started, entered, unchanged)),
        (inspect.isgeneratorfunction, generate),
    )
    return alike(
        unbound(next((wrapper for is_kind, wrapper in kinds if is_kind(function)), call), function),
        function,
    )


def positional(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the positional parameters, in order.

    Return none for a function without a signature.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(
        one.name
        for one in parameters
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    )


def alike(wrapper: object, function: object) -> Any:
    """Return the wrapper with the additional methods of the function."""
    for name in (
        "cache_info",
        "cache_clear",
        "cache_parameters",
    ):
        # The methods of functools.lru_cache.
        if hasattr(function, name):
            setattr(wrapper, name, getattr(function, name))
    return wrapper


def wrap_function(function: Callable[..., Any], name: str | None = None) -> Any:
    """Return a target for ``mlchaos.call(fn)``, for a callable that has no importable name."""
    target = (
        name
        or f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__name__)}"
    )
    return wrap(function, (SITE, target), current)


def _import_longest(path: str) -> tuple[Any, list[str]]:
    """Return the module of the longest importable prefix of a dotted path, and the rest."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        try:
            return importlib.import_module(name), parts[length:]
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise TargetNotFound(
                    f"target {path!r}: importing {name} failed: {error_text(error)}"
                ) from error
        except Exception as error:  # any module may fail at import
            raise TargetNotFound(
                f"target {path!r}: importing {name} failed: {error_text(error)}"
            ) from error
    raise TargetNotFound(f"target {path!r}: the module {parts[0]!r} does not exist")


def _split(target: str) -> tuple[Any, list[str]]:
    module, colon, attributes = target.partition(":")
    if not all(
        part.strip() for part in [*module.split("."), *(attributes.split(".") if colon else [])]
    ):
        raise TargetNotFound(
            f"target must be 'pkg.mod:function' or 'pkg.mod:Class.method', got "
            f"{format_value(target)}"
        )
    if not colon:
        owner, rest = _import_longest(module)
    else:
        owner, missing = _import_longest(module)
        if missing:
            raise TargetNotFound(f"target {target!r}: the module {module!r} does not exist")
        rest = attributes.split(".")
    if not rest or not all(rest):
        raise TargetNotFound(
            f"target must be 'pkg.mod:function' or 'pkg.mod:Class.method', got "
            f"{format_value(target)}"
        )
    return owner, rest


def find(target: str) -> Any:
    """Return the object that a dotted target names: a function, a class, or any value.

    Raises:
        TargetNotFound: A part of the target does not exist. The message names it.
    """
    found, rest = _split(target)
    for depth, name in enumerate(rest):
        found = _attribute(found, name, target, rest[: depth + 1])
    return found


def resolve(target: str) -> tuple[Any, str, Callable[[Any], Any] | None, Callable[..., Any]]:
    """Resolve a dotted target. A class stands for its ``__init__``.

    Returns:
        The owner, the name of the attribute, how it is bound, and the function.

    Raises:
        TargetNotFound: A part of the target does not exist. The message names it.
    """
    owner, rest = _split(target)
    for depth, name in enumerate(rest[:-1]):
        owner = _attribute(owner, name, target, rest[: depth + 1])
    name = rest[-1]
    found = _attribute(owner, name, target, rest)
    if inspect.isclass(found):
        owner, name = found, "__init__" if found.__init__ is not object.__init__ else "__new__"
        found = getattr(owner, name)
    held = inspect.getattr_static(owner, name)
    if isinstance(held, (staticmethod, classmethod)):
        return owner, name, type(held), held.__func__
    if not callable(found):
        raise TargetNotFound(f"target {target!r} must be callable, got {format_value(found)}")
    if inspect.isclass(owner) and owner.__module__ == builtins.__name__:
        raise TargetNotFound(
            f"target {target!r} belongs to a built-in type, which cannot be patched. Wrap it with "
            f"mlchaos.call(...)"
        )
    return owner, name, None, held if inspect.isclass(owner) and callable(held) else found


def _attribute(owner: object, name: str, target: str, path: list[str]) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        where = getattr(owner, "__name__", type(owner).__name__)
        raise TargetNotFound(
            f"target {target!r}: {where} has no attribute {name!r}{did_you_mean(name, dir(owner))}"
        ) from None
