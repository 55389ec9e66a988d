"""Define ``model.call``: calls of a model, which is named by a function, an object or a class.

Without a name, these are the calls of any torch model.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..core.sites import Key, site
from ..core.validation import format_value
from ..engine.controller import Controller
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches
from ..errors import TargetNotFound
from .calls import find, replace, wrap
from .torch_train import wrap_forward

__all__: list[str] = []

METHODS = ("predict", "predict_batch", "generate", "infer", "forward", "__call__")
"""The method of a model that is meant if only the model is named: the first that it has."""
Wrap = Callable[[Callable[..., Any]], Any]


@site(
    "model.call",
    "A call of a model: the one that is named, or else any torch model. Payload: (args, kwargs).",
)
def arm_model(controller: Controller, patches: Patches, key: Key) -> None:
    """Wrap the method of the model that the key names, or the calls of all torch models."""
    if isinstance(key, str):
        when_imported("torch", patches, lambda: _arm_torch_models(controller, patches, key))
        return
    wrapped: Wrap = lambda function: wrap(function, key, lambda: controller)  # noqa: E731
    name, entry = _entry_of(key[1])
    if entry is not None:
        _replace_entry(patches, name, entry, wrapped)
        return
    found = find(name)
    if inspect.isroutine(found):
        replace(patches, name, wrapped)
    elif inspect.isclass(found):
        replace(patches, f"{name}{_dot(name)}{_method_of(found, key[1])}", wrapped)
    else:
        _replace_method(patches, found, key[1], wrapped)


def _arm_torch_models(controller: Controller, patches: Patches, key: Key) -> None:
    """Make a visit of each outermost call of a torch module with parameters."""

    def begin(module: Any, args: object, kwargs: object) -> Any:
        return controller.begin(key, (args, kwargs), {"function": module})

    wrap_forward(patches, lambda module: not controller.is_applying, begin, inputs=True)


def _dot(name: str) -> str:
    return "." if ":" in name else ":"


def _entry_of(target: str) -> tuple[str, str | None]:
    """Split ``"app:MODELS['fraud']"`` into the container and the text of the key."""
    name, bracket, rest = target.partition("[")
    return (name, rest.rstrip().removesuffix("]")) if bracket else (target, None)


def _method_of(cls: type, target: str) -> str:
    for name in METHODS:
        if callable(getattr(cls, name, None)) and (name != "__call__" or _is_callable(cls)):
            return name
    raise TargetNotFound(
        f"model {target!r} has none of the methods {', '.join(METHODS)}. Name its function, as in "
        f"model='{target}.score'"
    )


def _is_callable(cls: type) -> bool:
    """Return True if the objects of a class can be called."""
    return any("__call__" in vars(base) for base in cls.__mro__)


def _replace_method(patches: Patches, model: Any, target: str, wrapped: Wrap) -> None:
    """Wrap the method of one object, not of its class."""
    name = _method_of(type(model), target)
    bound = getattr(model, name)
    if name != "__call__":
        try:
            patches.set(model, name, wrapped(bound))
        except (AttributeError, TypeError) as error:
            raise TargetNotFound(f"model {target!r} cannot be patched: {error}") from None
        return
    # Python looks for it in the class, which other objects share.
    cls = next(base for base in type(model).__mro__ if "__call__" in vars(base))
    original, ours = vars(cls)["__call__"], wrapped(bound)

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is model:
            return ours(*args, **kwargs)
        return original(self, *args, **kwargs)

    try:
        patches.set(cls, "__call__", call)
    except (AttributeError, TypeError) as error:
        raise TargetNotFound(f"model {target!r} cannot be patched: {error}") from None


def _replace_entry(patches: Patches, name: str, text: str, wrapped: Wrap) -> None:
    """Wrap a model in a dict or a list."""
    container = find(name)
    try:
        place = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        place = text
    try:
        model = container[place]
    except (KeyError, IndexError, TypeError):
        known = f": {', '.join(map(repr, container))}" if isinstance(container, Mapping) else ""
        raise TargetNotFound(
            f"model '{name}[{text}]': {name} must have this entry, got "
            f"{format_value(type(container))}{known}"
        ) from None
    if not inspect.isroutine(model):
        _replace_method(patches, model, f"{name}[{text}]", wrapped)
        return

    ours = wrapped(model)

    def undo() -> None:
        with contextlib.suppress(KeyError, IndexError):
            if container[place] is ours:
                container[place] = model

    patches.on_undo(undo)
    container[place] = ours
