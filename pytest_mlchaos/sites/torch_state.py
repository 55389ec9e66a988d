"""Count values that are not finite in the models and the optimizers of a run."""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Models", "not_finite"]

MAX_MODELS = 64
"""The maximum number of models to remember, because a program may make one for each step."""
_MAX_DEPTH = 4


class Models:
    """The models whose forward passes were seen, in the order of their last one."""

    def __init__(self) -> None:
        self._seen: collections.OrderedDict[int, Any] = collections.OrderedDict()

    def remember(self, module: torch.nn.Module) -> None:
        """Remember a module whose forward pass has ended."""
        self._seen[id(module)] = module
        self._seen.move_to_end(id(module))
        if len(self._seen) > MAX_MODELS:
            self._seen.popitem(last=False)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._seen.values()))


def not_finite(models: Iterable[Any], optimizers: Iterable[Any]) -> dict[tuple[str, str], int]:
    """Count the values that are NaN or infinite.

    If there are several models of one class, take the largest count.

    Args:
        models: The models.
        optimizers: The optimizers.

    Returns:
        The counts above 0, by the class of a model or optimizer and the name in it.
    """
    found: dict[tuple[str, str], int] = {}
    names: dict[int, str] = {}

    def look(owner: object, name: str, value: object) -> None:
        if count := sum(map(_broken_values, _tensors(value, 0))):
            key = type(owner).__name__, name
            found[key] = max(count, found.get(key, 0))

    with _outside_autograd():
        for model in models:
            for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
                names.setdefault(id(tensor), name)
                look(model, name, tensor)
        for optimizer in optimizers:
            for number, parameter in enumerate(
                parameter for group in optimizer.param_groups for parameter in group["params"]
            ):
                name = names.get(id(parameter), f"parameter {number}")
                if id(parameter) not in names:
                    look(optimizer, name, parameter)
                state = optimizer.state.get(parameter)
                for part, value in state.items() if isinstance(state, Mapping) else ():
                    look(optimizer, f"{part} of {name}", value)
    return found


@contextlib.contextmanager
def _outside_autograd() -> Iterator[None]:
    """Switch off gradients and the user's dispatch modes.

    The operations inside are not part of the program.
    """
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    with contextlib.ExitStack() as stack:
        if torch._C._len_torch_dispatch_stack():
            stack.enter_context(_disable_current_modes())
        stack.enter_context(torch.no_grad())
        yield


def _tensors(value: object, depth: int) -> Iterator[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple)) and depth < _MAX_DEPTH:
        for held in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(held, depth + 1)


def _broken_values(tensor: torch.Tensor) -> int:
    """Return the number of values that are NaN or infinite, or 0 if the tensor cannot be read.

    For a sharded tensor, count in this process's shard.
    """
    import torch

    try:
        tensor = tensor.detach()
        if hasattr(tensor, "to_local"):
            tensor = tensor.to_local()
        if tensor.is_nested:
            return sum(map(_broken_values, tensor.unbind()))
        if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
            return 0
        if tensor.layout is not torch.strided:
            tensor = (tensor.coalesce() if tensor.layout is torch.sparse_coo else tensor).values()
        if tensor.numel() and not tensor.untyped_storage().nbytes():
            # Its storage was freed, as in a sharded model: reading it would end the process.
            return 0
        # Isfinite is not defined for types of one byte.
        finite = torch.isfinite(tensor if tensor.element_size() > 1 else tensor.float())
        return 0 if finite.all() else int((~finite).sum())
    except Exception:  # noqa: BLE001  # a subclass may raise anything
        return 0
