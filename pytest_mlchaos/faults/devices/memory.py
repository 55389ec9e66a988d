"""Define faults of memory that others take, on the device or on the host."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from ...core.faults import Fault, is_drawn, register
from ...core.sites import CALL, Effect, Key, Visit
from ...core.validation import check_share, format_value, parse_size, size_text
from ...engine.error_origin import mark
from ...errors import BadArgument
from .cuda import guard_device, has_cuda
from .dispatch_modes import beneath
from .emulated_memory import emulate_memory
from .phases import SITES_OF_PHASES, Phase

__all__ = ["GpuMemoryPressure", "HostOom"]
LAYER = "The device and the host"

_ALLOCATION = (
    "can't allocate memory",
    "bad allocation",
    "std::bad_alloc",
    "Cannot allocate memory",
    "cannot allocate memory",
)


@register
class HostOom(Fault):
    """The host's memory runs out: ``MemoryError``.

    Args:
        site: Any site at which the error is raised.
        target: A function whose call raises the error, as for ``call_failure``, instead of a site.
            ``at`` then counts its calls.
        limit: The address space of the whole process (``"2GiB"``), by ``RLIMIT_AS``, instead of a
            visit. An allocation beyond it, in Python, NumPy or torch, fails for real. The limit is
            set in a process of the subject's own, so it needs ``isolation="process"``.

    Imitates: a data set that no longer fits, a leak, a container's memory limit that is met in
    ``malloc``.

    Fidelity: the kernel's OOM killer kills instead (use ``crash``). On Linux, memory that was
    promised can be missing later, when it is touched. ``limit`` counts addresses, not pages: loaded
    libraries and the stacks of threads count, too (torch alone takes some GiB). So the journal says
    that a limit was set, not which allocation exceeded it.

    Source: https://man7.org/linux/man-pages/man2/setrlimit.2.html

    Example: ``@chaos.host_oom(at=3)``
    """

    random = False
    site: str = "data.batch"  # type: ignore[misc]  # this fault has the site as a parameter
    target: str | None = None
    limit: Any = None

    def check(self) -> None:
        """Check the parameters."""
        if self.target is not None and not is_drawn(self.target):
            if not self.target.strip():
                raise BadArgument(
                    f"host_oom: target must be 'pkg.mod:function', got {format_value(self.target)}"
                )
            if self.site != "data.batch":
                raise BadArgument("host_oom: give one of site= and target=, got both")
        if self.limit is None or is_drawn(self.limit):
            return
        parse_size(self.limit, "host_oom: limit")
        if self.site != "data.batch" or any(
            value is not None for value in (self.at, self.p, self.times, self.where, self.target)
        ):
            raise BadArgument(
                f"host_oom: limit={self.limit!r} holds for the whole process, so at=, p=, times=, "
                f"where=, site= and target= cannot be given too"
            )

    @property
    def continuous(self) -> bool:
        """Return True if a limit decides when it strikes."""
        return self.limit is not None

    @property
    def requires_process(self) -> str:
        """Return why a process is needed: a limit applies to a whole process."""
        return "limits a whole process, which must be the subject's own" if self.continuous else ""

    @property
    def key(self) -> Key:
        """Count the visits of the site. A limit belongs to the host's memory instead."""
        if self.target is not None:
            return (CALL, self.target)
        return "host.memory" if self.continuous else self.site

    def activate(self, effect: Effect) -> AbstractContextManager[Any]:
        """Set the limit."""
        return _limit_memory(parse_size(self.limit), effect)

    def apply(self, visit: Visit) -> None:
        """Raise the error."""
        where = visit.site if self.target is None else self.target
        visit.fail(MemoryError(f"out of memory at {where} {visit.index} (injected by mlchaos)"))


@contextlib.contextmanager
def _limit_memory(size: int, effect: Effect) -> Iterator[None]:
    """Limit the address space of this process."""
    if sys.platform != "linux":
        raise BadArgument("host_oom: limit= needs Linux. For a MemoryError at a visit, give at=")
    import resource

    def is_about(error: BaseException) -> bool:
        return isinstance(error, MemoryError) or (
            isinstance(error, (RuntimeError, OSError)) and any(t in str(error) for t in _ALLOCATION)
        )

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = _addresses()
    if hard != resource.RLIM_INFINITY and size > hard:
        raise BadArgument(
            f"host_oom: limit={size_text(size)} is more than the {size_text(hard)} that this "
            f"system allows a process"
        )
    if size <= used:
        raise BadArgument(
            f"host_oom: the subject's process uses {size_text(used)} of address space when it "
            f"begins, so limit={size_text(size)} is too small"
        )
    effect.strike(None, limit=size_text(size))
    effect.claim(is_about)
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _addresses() -> int:
    """Return the address space that this process uses, in bytes."""
    import resource

    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@register
class GpuMemoryPressure(Fault):
    """From this visit on, a different process uses most of the device's memory.

    This lasts until the process ends. ``at`` counts the phases. On a CUDA device the memory is
    really allocated. Without one, a device is emulated, whose memory is that of the tensors, as for
    ``gpu_oom(budget=...)``: an operator whose result does not fit raises
    ``torch.OutOfMemoryError``.

    Args:
        free: The bytes that stay free (``"256MiB"``), beside the tensors that exist already.
        share: The share of the device that is taken, instead of ``free``: give one of the two.
        total: The bytes of an emulated device. Without it, 80 GiB.
        phase: ``"forward"`` (a call of the model in training), ``"call"`` (any call: evaluation,
            serving), ``"backward"`` or ``"optimizer"``.

    Imitates: a different process on the same GPU, a notebook that was left open, a memory leak, a
    fragmented cache.

    Fidelity: as ``gpu_oom`` with a budget. On a real device this process takes the memory, so the
    error's text counts it as its own. A device that a different process uses is refused.

    Source: https://pytorch.org/docs/stable/notes/cuda.html#memory-management

    Example: ``@chaos.gpu_memory_pressure(free="1KiB", at=3)``
    """

    site = "train.forward"
    needs = ("torch", "torch")
    random = False
    free: Any = None
    share: float | None = None
    total: Any = None
    phase: Phase = "forward"

    def check(self) -> None:
        """Check the parameters."""
        for name in ("free", "total"):
            value = getattr(self, name)
            if value is not None and not is_drawn(value):
                parse_size(value, f"gpu_memory_pressure: {name}")
        if (self.free is None) == (self.share is None):
            raise BadArgument(
                "gpu_memory_pressure: give exactly one of free= and share=, "
                f"got free={format_value(self.free)} and share={format_value(self.share)}"
            )
        if self.share is not None and not is_drawn(self.share):
            check_share(self.name, "share", self.share)

    @property
    def key(self) -> Key:
        """Count the visits of the phase's site."""
        return SITES_OF_PHASES[self.phase]

    def _taken(self, total: int) -> int:
        """Return the part of a device's memory that is taken from the subject."""
        return (
            int(total * self.share)
            if self.share is not None
            else max(0, total - parse_size(self.free))
        )

    def apply(self, visit: Visit) -> None:
        """Take the memory."""
        if has_cuda():
            visit.keep_until_exit(_allocate(self._taken, visit))
            return
        total = 80 * 2**30 if self.total is None else parse_size(self.total)
        taken = self._taken(total)
        visit.note(free=size_text(total - taken))
        visit.keep_until_exit(
            beneath(
                emulate_memory(
                    _LastingEffect(),
                    total=total,
                    largest=None,
                    pieces=False,
                    taken=taken,
                    free=self.free is not None,
                )
            )
        )


class _LastingEffect:
    """The effect of a fault that has struck, and lasts until it is undone."""

    active = True

    def __init__(self) -> None:
        self.memory: dict[Any, Any] = {}

    def strike(self, error: BaseException | None = None, **_: object) -> bool:
        """Return True: the fault has struck already, so its effects belong to it."""
        if error is not None:
            mark(error, own_words=True)
        return True

    def claim(self, error: Callable[[BaseException], bool]) -> None:
        """Do nothing: no other code raises this fault's errors."""

    def remark(self, text: str) -> None:
        """Do nothing: the fault has struck, so it needs no remark."""


@contextlib.contextmanager
def _allocate(taken: Callable[[int], int], visit: Visit) -> Iterator[None]:
    """Allocate memory on a CUDA device, and free it at the end."""
    import torch

    with guard_device() as device:
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        size = max(0, taken(total) - (total - free))
        held = torch.empty(size, dtype=torch.uint8, device="cuda")
        visit.note(device=device.name, free=size_text(free - size))
        try:
            yield
        finally:
            del held
            torch.cuda.empty_cache()
