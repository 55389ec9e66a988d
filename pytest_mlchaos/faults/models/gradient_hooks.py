"""Find the gradients of a backward pass in the graph, and change them before any code can read
them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...core.sites import Visit
from ...errors import PayloadMismatch
from .modules import LayerFault, differ, names_of

if TYPE_CHECKING:
    import torch

__all__ = ["changing", "gradients"]


def gradients(fault: LayerFault, visit: Visit) -> list[tuple[str, Any]]:
    """Return the tensors that get gradients in a backward pass, with names.

    Return only model parameters if there are any. A pass without such tensors is about to fail by
    itself.
    """
    import torch

    roots = visit.payload if isinstance(visit.payload, (tuple, list)) else (visit.payload,)
    if not all(isinstance(root, torch.Tensor) for root in roots):
        raise PayloadMismatch(
            f"{fault.name} strikes at the root tensors of a backward pass, got "
            f"{type(visit.payload).__name__}"
        )
    found = [root for root in roots if root.grad_fn is None and root.requires_grad]
    found += _reachable_nodes([root.grad_fn for root in roots])
    parameters = [tensor for tensor in found if isinstance(tensor, torch.nn.Parameter)] or found
    if fault.layer is None:
        return [
            (f"parameter {place} of {len(parameters)}", tensor)
            for place, tensor in enumerate(parameters)
        ]
    names = names_of(parameters)
    return fault.chosen(
        [(names[id(tensor)], tensor) for tensor in parameters if id(tensor) in names],
        "the model",
        "parameter",
    )


def _reachable_nodes(nodes: list[Any]) -> Iterator[Any]:
    """Yield the leaves of an autograd graph in the order of a walk."""
    seen: set[Any] = set()
    pending = [node for node in nodes if node is not None]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            yield variable
        pending.extend(
            following for following, _ in reversed(node.next_functions) if following is not None
        )


@contextlib.contextmanager
def changing(
    changes: Mapping[int, Callable[[Any], Any]],
    tensors: Mapping[int, Any],
    visit: Visit,
    **details: Any,
) -> Iterator[None]:
    """Replace the gradients of these tensors (by ``id``) with ``change(gradient)``.

    A hook on the tensor runs before ``.grad`` is set, before gradients are gathered from other
    ranks, and before the gradient scaler.
    """
    told = False

    def hook(change: Callable[[Any], Any], gradient: torch.Tensor) -> Any:
        nonlocal told
        changed = change(gradient)
        if changed is not None and not told and differ(changed, gradient):
            told = True
            visit.record_injection(**details)
        return changed

    with contextlib.ExitStack() as stack:
        for key, change in changes.items():
            handle = tensors[key].register_hook(
                lambda gradient, change=change: hook(change, gradient)
            )
            stack.callback(handle.remove)
        yield
