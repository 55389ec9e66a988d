"""Define a fault of the device: it runs out of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, ClassVar

from ...core.faults import Fault, is_drawn, register
from ...core.sites import Effect, Key, Visit
from ...core.validation import format_value, parse_size
from ...errors import BadArgument
from .cuda import cap_memory, has_cuda
from .dispatch_modes import beneath
from .emulated_memory import emulate_memory
from .phases import SITES_OF_PHASES, Phase

__all__ = ["GpuOom"]
LAYER = "The device and the host"

MEMORY = "device.memory"
_LARGE = 80 * 2**30
"""The memory of the emulated device if only ``largest=`` is given: that of a large GPU."""


@register
class GpuOom(Fault):
    """The device runs out of memory: ``torch.OutOfMemoryError`` at an allocating operator of a
    phase.

    ``at`` counts the phases: ``at=7`` is the eighth backward pass, and ``at=7, times=2`` makes the
    retry fail as well. With ``budget`` or ``largest``, the fault fires if memory runs out, so
    ``at``, ``p``, ``where``, ``phase`` and ``op`` cannot be given. The journal then says how much
    memory was in use, and a test whose tensors fit fails, with the peak.

    Args:
        phase: ``"forward"`` (a call of the model in training), ``"call"`` (any call: evaluation,
            serving), ``"backward"`` or ``"optimizer"`` (the step).
        op: The number, from 0, of the operator in that phase, among those that allocate their
            result. If neither it nor ``at`` is given, both are searched.
        budget: Emulate a device with this memory (``"512MiB"``) during the test's body. The
            storages of all live tensors count, each once, with any number of views. An operator
            whose result does not fit fails, at most ``times`` times.
        largest: The largest number of bytes that one allocation finds.
        fragmentation: If true, the free memory is in pieces, and one allocation finds at most half
            of it.

    Imitates: CUDA out of memory. The operator does not run and everything before it has, so the
    half-finished step is in the state that a real one leaves. After ``backward``, some gradients
    are written and others are not. After ``optimizer``, some parameters are updated. It works on
    CPU-only machines, and on operators of any device. With a ``budget`` on a machine with a CUDA
    device, torch's caching allocator is capped instead, so the error is the real one.

    Fidelity: operators are seen at the dispatcher. So memory that a kernel takes for itself
    (workspaces, temporaries of in-place operators) does not count, nor do allocations in code that
    runs as one compiled graph. The numbers in the message are invented. With a ``budget`` they are
    those of the emulated device. On a CPU a budget counts every tensor of the test's thread, also a
    data set in memory. An allocation is recognised by the operator's result, which is dropped,
    together with the random numbers that it used.

    Source: the CUDA caching allocator's error,
    https://pytorch.org/docs/stable/notes/cuda.html#memory-management

    Example: ``@chaos.gpu_oom(phase="backward", op=3, at=7)``
    """

    member_of: ClassVar = {"bad_day": 12}
    site = "train.backward"
    needs = ("torch", "torch")
    random = False
    searchable = ("op",)
    phase: Phase = "backward"
    op: int = 0
    budget: Any = None
    largest: Any = None
    fragmentation: bool = False

    def check(self) -> None:
        """Check the parameters."""
        for name in ("budget", "largest"):
            value = getattr(self, name)
            if value is not None and not is_drawn(value):
                parse_size(value, f"gpu_oom: {name}")
        if self.fragmentation and self.budget is None:
            raise BadArgument(
                "gpu_oom: fragmentation=True means that free memory is in pieces, so it needs "
                "budget=. Or give largest="
            )
        if self.continuous and (
            any(v is not None for v in (self.at, self.p, self.where))
            or self.phase != "backward"
            or self.op != 0
        ):
            raise BadArgument(
                "gpu_oom: budget= and largest= strike when memory runs out, so at=, p=, where=, "
                "phase= and op= cannot be given too"
            )
        if not is_drawn(self.op) and self.op < 0:
            raise BadArgument(
                f"gpu_oom: op must be the number of an operator (0, 1, ...), got "
                f"{format_value(self.op)}"
            )

    @property
    def key(self) -> Key:
        """Count the visits of the phase's site. A budget belongs to the device's memory instead."""
        return MEMORY if self.continuous else SITES_OF_PHASES[self.phase]

    @property
    def continuous(self) -> bool:
        """Return True if the fault strikes when memory runs out."""
        return self.budget is not None or self.largest is not None

    @property
    def is_pinned(self) -> bool:
        """Return True if nothing is left to draw."""
        return (
            not any(map(is_drawn, (self.budget, self.largest, self.times)))
            if self.continuous
            else super().is_pinned
        )

    def activate(self, effect: Effect) -> AbstractContextManager[Any]:
        """Watch the live bytes. On a CUDA device, limit its allocator."""
        total = _LARGE if self.budget is None else parse_size(self.budget)
        largest = None if self.largest is None else parse_size(self.largest)
        if has_cuda() and largest is None and not self.fragmentation:
            return cap_memory(effect, total)
        return beneath(
            emulate_memory(effect, total=total, largest=largest, pieces=self.fragmentation)
        )

    def apply(self, visit: Visit) -> None:
        """Watch the operators of this phase, and fail the chosen one."""
        visit.keep_open(_watch(visit, self))

    def probe(self, visit: Visit) -> None:
        """Count the operators of this phase that allocate memory."""
        visit.keep_open(_watch(visit, None))


def _watch(visit: Visit, fault: GpuOom | None) -> AbstractContextManager[Any]:
    """Return a dispatch mode that counts allocating operators, and fails the one that ``fault``
    chooses.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Allocations(TorchDispatchMode):  # type: ignore[misc]  # mypy does not check torch
        count = 0

        def __torch_dispatch__(
            self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
        ) -> Any:
            if _allocates(func):
                number, self.count = self.count, self.count + 1
                if fault is None:
                    visit.measure(op=self.count)
                elif number == fault.op:
                    error = _out_of_memory(torch, args, kwargs)
                    visit.record_injection(error, operator=str(func))
                    raise error
            return func(*args, **(kwargs or {}))

    return Allocations()


_allocating: dict[Any, bool] = {}


def _allocates(func: Any) -> bool:
    """Return True if an operator returns a tensor that is not an alias of an argument."""
    known = _allocating.get(func)
    if known is None:
        returns = func._schema.returns
        known = any("Tensor" in str(value.type) and value.alias_info is None for value in returns)
        _allocating[func] = known
    return known


def _out_of_memory(torch: ModuleType, args: object, kwargs: object) -> BaseException:
    leaves = torch.utils._pytree.tree_leaves((args, kwargs or {}))
    sizes = [
        leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, torch.Tensor)
    ]
    wanted = max([512, *sizes]) / 2**20
    cls = getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError
    error: BaseException = cls(
        f"CUDA out of memory. Tried to allocate {max(wanted, 2.0):.2f} MiB. GPU 0 has a total "
        f"capacity of 79.10 GiB of which "
        f"{max(wanted, 2.0) / 2:.2f} MiB is free. Process 1 has 79.09 GiB memory in use. Of the "
        f"allocated memory 78.06 GiB is allocated by "
        "PyTorch, and 485.12 MiB is reserved by PyTorch but unallocated. (injected by mlchaos)"
    )
    return error
