"""Define the base class of faults of models: which layers and tensors a name stands for."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import gc
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ...core.faults import Fault, OneOf, is_drawn
from ...core.validation import did_you_mean, format_value
from ...errors import BadArgument, PayloadMismatch

if TYPE_CHECKING:
    import torch

__all__ = [
    "LayerFault",
    "checked_model",
    "layer_by_layer",
    "layers_of",
    "name_part",
    "names_of",
    "tensor_at",
    "tensors_of",
]

_WRAPPERS = ("_orig_mod", "module")
"""Attribute names by which compiled and data-parallel models refer to the model inside."""
SHOWN_NAMES = 8


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class LayerFault(Fault):
    """A fault of a model that may be confined to some of its layers or tensors.

    Args:
        layer: The name of a module or tensor, or a pattern (``"encoder.*.weight"``). Without it,
            all of them.
    """

    layer: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer is not None and not is_drawn(self.layer) and not self.layer.strip():
            raise BadArgument(
                f"{self.name}: layer must be a name, such as 'encoder.*.weight', got "
                f"{format_value(self.layer)}"
            )

    def matches(self, name: str) -> bool:
        """Return True if the pattern matches a layer's or tensor's name, or that of a layer around
        it.

        Wrappers around the model have no name.
        """
        return self.layer is None or any(
            _fits(form, self.layer) for form in (name, _unwrap_name(name))
        )

    def chosen(
        self, named: Iterable[tuple[str, Any]], owner: str, what: str
    ) -> list[tuple[str, Any]]:
        """Return the chosen tensors or layers. If there are none, raise an error that names some
        that exist.
        """
        known = list(named)
        names = [name for name, _ in known]
        found = [item for item in known if self.matches(item[0])]
        while (
            not found
            and len({name.partition(".")[0] for name in names}) == 1
            and all("." in name for name in names)
        ):
            # without the prefix of an outer module, for example a trainer's
            names = [name.partition(".")[2] for name in names]
            found = [item for name, item in zip(names, known, strict=True) if self.matches(name)]
        if not found and self.layer is not None:
            raise self._unknown([name for name, _ in known], owner, what)
        return found

    def inside(
        self, model: torch.nn.Module, named: Iterable[tuple[str, Any]], what: str
    ) -> list[tuple[str, Any]]:
        """Return the chosen tensors or layers in a model, by their names in it or in the whole
        model.

        Return none if a different part is meant, because a framework may call the parts of a model
        one by one.
        """
        known = list(named)
        found = [
            item for item in known if self.layer is None or (item[0] and self.matches(item[0]))
        ]
        if found or self.layer is None:
            return found
        names, elsewhere = [name for name, _ in known if name], False
        for prefix, whole in _wholes(model):
            full = [".".join(filter(None, (prefix, name))) for name, _ in known]
            found = [item for name, item in zip(full, known, strict=True) if self.matches(name)]
            if found:
                return found
            others = [
                name
                for name, _ in (*tensors_of(whole, buffers=True), *whole.named_modules())
                if name
            ]
            names, elsewhere = names + others, elsewhere or any(map(self.matches, others))
        if elsewhere:
            return []
        raise self._unknown(names, type(model).__name__, what)

    def _unknown(self, names: list[str], owner: str, what: str) -> PayloadMismatch:
        layer = str(self.layer)
        names = list(dict.fromkeys(map(_unwrap_name, names)))
        parts = {name for full in names for name in (full, full.rpartition(".")[0]) if name}
        hint = (
            did_you_mean(layer, sorted(parts))
            or f"; there are {', '.join(names[:SHOWN_NAMES])}{' …' if len(names) > SHOWN_NAMES else ''}"
        )
        return PayloadMismatch(
            f"{self.name}: no {what} of {owner} is called {layer!r}{hint if names else ''}"
        )


def _live_modules() -> tuple[list[Any], set[int]]:
    """Return all modules, and the ids of those that are inside a different one."""
    torch = sys.modules["torch"]
    found = [item for item in gc.get_objects() if issubclass(type(item), torch.nn.Module)]
    # a module that is being made has no _modules yet
    modules = [module for module in found if "_modules" in module.__dict__]
    return modules, {
        id(child) for module in modules for child in module.__dict__["_modules"].values()
    }


def _wholes(model: torch.nn.Module) -> list[tuple[str, Any]]:
    """Return the models that contain a model, with its name in each."""
    modules, inner = _live_modules()
    if id(model) not in inner:
        return []
    found = [
        (name, whole)
        for whole in modules
        if id(whole) not in inner
        for name, part in whole.named_modules()
        if part is model
    ]
    return sorted(found, key=lambda item: item[0])


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")


def _unwrap_name(name: str) -> str:
    parts = name.split(".")
    while parts and parts[0] in _WRAPPERS:
        del parts[0]
    return ".".join(part for part in parts if part != "_orig_mod")


def checked_model(fault: Fault, payload: object) -> Any:
    """Return the payload if it is a torch module. Else raise an error."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(payload, torch.nn.Module):
        raise PayloadMismatch(
            f"{fault.name} strikes at calls of a torch module, got {type(payload).__name__}"
        )
    return payload


def tensors_of(model: torch.nn.Module, buffers: bool = False) -> list[tuple[str, Any]]:
    """Return the parameters (and buffers) of a model with their names, as ``named_parameters``
    does.

    Each comes once, in the same order. ``named_parameters`` itself takes several times as long.
    """
    found: list[tuple[str, Any]] = []
    seen: set[int] = set()
    pending = [("", model)]
    while pending:
        prefix, module = pending.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        own = module.__dict__
        if not isinstance(own.get("_parameters"), dict):  # a scripted module keeps them elsewhere
            scripted = [
                *module.named_parameters(prefix[:-1]),
                *(module.named_buffers(prefix[:-1]) if buffers else ()),
            ]
            found += [item for item in scripted if id(item[1]) not in seen]
            continue
        for held in (own["_parameters"], own["_buffers"]) if buffers else (own["_parameters"],):
            for name, tensor in held.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found.append((prefix + name, tensor))
        if inside := own["_modules"]:
            pending += [
                (f"{prefix}{name}.", child)
                for name, child in reversed(inside.items())
                if child is not None
            ]
    return found


def tensor_at(model: torch.nn.Module, name: str) -> Any:
    """Return the parameter or buffer with this name, or None."""
    *path, last = name.split(".")
    try:
        for part in path:
            model = model._modules[part]
        found = model._parameters.get(last)
        return model._buffers.get(last) if found is None else found
    except KeyError:
        return None
    except AttributeError:  # inside a scripted module
        return getattr(model, last, None)


@contextlib.contextmanager
def layer_by_layer() -> Iterator[None]:
    """Let compiled models call their layers one by one in this context.

    In a graph, hooks on layers are not called.
    """
    torch = sys.modules["torch"]
    stance = getattr(torch.compiler, "set_stance", None)  # exists in torch 2.6 and newer
    with (
        contextlib.nullcontext()
        if stance is None or "torch._dynamo" not in sys.modules
        else stance("force_eager")
    ):
        yield


def layers_of(fault: Fault, model: torch.nn.Module, innermost: bool) -> list[tuple[str, Any]]:
    """Return the modules inside a model, including itself, with their names.

    ``innermost`` selects modules that contain no others.
    """
    scripted = sys.modules["torch"].jit.ScriptModule
    found = [
        (name, module) for name, module in model.named_modules() if not isinstance(module, scripted)
    ]
    if not found:
        raise PayloadMismatch(
            f"{fault.name} finds no layers in {type(model).__name__}, which runs as one graph"
        )
    return [item for item in found if not innermost or not item[1]._modules]


def names_of(tensors: Iterable[Any]) -> dict[int, str]:
    """Return the names of these tensors in the live models, by ``id``.

    A gradient or an optimizer's state has no reference to its model.
    """
    modules, inner = _live_modules()
    names: dict[int, list[str]] = {id(tensor): [] for tensor in tensors}
    for module in modules:
        if id(module) not in inner:
            for name, tensor in tensors_of(module):
                if id(tensor) in names:
                    names[id(tensor)].append(name)
    return {
        key: min(known, key=lambda name: (name.count("."), name))
        for key, known in names.items()
        if known
    }


def name_part(fault: Any) -> None:
    """Read ``where="gradients"`` as the ``part`` of a fault that has parts, not as a predicate.

    Refuse a ``part`` that differs.
    """
    if isinstance(fault.where, (str, OneOf)):
        if fault.part not in (type(fault).part, fault.where):
            raise BadArgument(
                f"{fault.name}: where={fault.where!r} and part={fault.part!r} differ. Give one of "
                f"them"
            )
        object.__setattr__(fault, "part", fault.where)
        object.__setattr__(fault, "where", None)


def differ(one: Any, other: Any) -> bool:
    """Return True unless two tensors of one shape hold the same bits."""
    if one.is_sparse:
        return bool(differ(one.coalesce()._values(), other.coalesce()._values()))
    one, other = (
        tensor.detach().resolve_conj().resolve_neg().contiguous() for tensor in (one, other)
    )
    if one.dtype != other.dtype or one.shape != other.shape:
        return True
    return (
        not bool(one.view(-1).view(_bytes()).equal(other.view(-1).view(_bytes())))
        if one.numel()
        else False
    )


def _bytes() -> Any:
    import torch

    return torch.uint8
