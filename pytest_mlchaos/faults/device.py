"""Faults of the device."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

from ..core.faults import Fault, is_drawn, register
from ..core.sites import Key, Visit
from ..core.values import shown
from ..errors import BadArgument

__all__ = ["GpuOom"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

_SITES = {"forward": "train.forward", "backward": "train.backward", "optimizer": "train.step"}


@register
class GpuOom(Fault):
    """The device runs out of memory: ``torch.OutOfMemoryError`` at the ``op``-th allocating operator of a phase.

    ``phase``: ``"forward"`` (a call of the model), ``"backward"`` or ``"optimizer"`` (the step). ``op`` counts, from 0, the operators of
    that phase that allocate their result; when neither it nor ``at`` is given, both are searched.
    ``at`` counts the phases: ``at=7`` is the eighth backward pass.

    Imitates: CUDA out of memory. The operator does not run and everything before it has, so the half-finished step is in
    the state that a real one leaves: after ``backward``, some gradients are written and others are not; after
    ``optimizer``, some parameters are updated. Works on CPU-only machines, and on operators of any device.

    Fidelity: operators are seen at the dispatcher, so memory that a kernel takes for itself (workspaces, in-place operators'
    temporaries) does not count, nor do allocations in code that runs as one compiled graph. The numbers in the message are made up.

    Source: the CUDA caching allocator's error, https://pytorch.org/docs/stable/notes/cuda.html#memory-management
    """

    site = "train.backward"
    needs = ("torch", "torch")
    random = False
    explored = ("op",)
    phase: Literal["forward", "backward", "optimizer"] = "backward"
    op: int = 0

    def check(self) -> None:
        """Refuse an operator's number below 0."""
        if not is_drawn(self.op) and self.op < 0:
            raise BadArgument(f"gpu_oom: expected op to be the number of an operator (0, 1, ...) but got {shown(self.op)}")

    @property
    def key(self) -> Key:
        """The site of the phase."""
        return _SITES[self.phase]

    def apply(self, visit: Visit) -> None:
        """Watch this one phase's operators, and fail the one asked for."""
        visit.enter(_watch(visit, self))

    def probe(self, visit: Visit) -> None:
        """Count this phase's allocating operators."""
        visit.enter(_watch(visit, None))


def _watch(visit: Visit, fault: GpuOom | None) -> AbstractContextManager[Any]:
    """A dispatch mode that counts allocating operators, and fails the one that ``fault`` asks for."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Allocations(TorchDispatchMode):  # type: ignore[misc]  # torch is not checked
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if _allocates(func):
                number, self.count = self.count, self.count + 1
                if fault is None:
                    visit.measure(op=self.count)
                elif number == fault.op:
                    error = _out_of_memory(torch, args, kwargs)
                    visit.struck(error, operator=str(func))
                    raise error
            return func(*args, **(kwargs or {}))

    return Allocations()


_allocating: dict[Any, bool] = {}


def _allocates(func: Any) -> bool:
    """Whether an operator returns a tensor that is no alias of an argument."""
    known = _allocating.get(func)
    if known is None:
        returns = func._schema.returns
        known = any("Tensor" in str(value.type) and value.alias_info is None for value in returns)
        _allocating[func] = known
    return known


def _out_of_memory(torch: Any, args: Any, kwargs: Any) -> BaseException:
    leaves = torch.utils._pytree.tree_leaves((args, kwargs or {}))
    sizes = [leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, torch.Tensor)]
    wanted = max([512, *sizes]) / 2**20
    cls = getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError
    error: BaseException = cls(
        f"CUDA out of memory. Tried to allocate {max(wanted, 2.0):.2f} MiB. GPU 0 has a total capacity of 79.10 GiB of which "
        f"{max(wanted, 2.0) / 2:.2f} MiB is free. Process 1 has 79.09 GiB memory in use. Of the allocated memory 78.06 GiB is allocated by "
        "PyTorch, and 485.12 MiB is reserved by PyTorch but unallocated. (injected by mlchaos)"
    )
    return error
