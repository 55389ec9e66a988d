"""Inspect real CUDA devices before a fault does anything to them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ...core.sites import Effect
from ...core.validation import size_text
from ...errors import BadArgument
from .dispatch_modes import beneath

__all__ = ["Device", "cap_memory", "guard_device", "has_cuda", "look"]

_WHOLE_DEVICE = 1.0


@dataclass(frozen=True, slots=True)
class Device:
    """A CUDA device as its driver sees it.

    It has bytes, uncorrected memory errors (None if it does not count them), and the processes of
    others.
    """

    name: str
    total: int
    free: int
    ecc: int | None
    others: tuple[int, ...]


def look(number: int = 0) -> Device:
    """Return what NVML reports about a device.

    Raise ``BadArgument`` without nvidia-ml-py, because a fault must not change a device unseen.
    """
    try:
        import pynvml
    except ImportError:
        raise BadArgument(
            "this fault works on a real GPU and must inspect it first: python -m pip install "
            "'pytest-mlchaos[gpu]'"
        ) from None
    pynvml.nvmlInit()
    try:
        handle = _handle(pynvml, number)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        return Device(
            name.decode() if isinstance(name, bytes) else name,
            int(memory.total),
            int(memory.free),
            _ecc(pynvml, handle),
            tuple(sorted(process.pid for process in running if process.pid not in _family())),
        )
    finally:
        pynvml.nvmlShutdown()


@contextlib.contextmanager
def guard_device(number: int = 0) -> Iterator[Device]:
    """Check a device before and after a fault.

    Refuse a device that other processes use, or that had memory errors in between.
    """
    before = look(number)
    if before.others:
        who = (
            f"process{'es' if len(before.others) > 1 else ''} {', '.join(map(str, before.others))}"
        )
        raise BadArgument(
            f"GPU {number} ({before.name}) is used by {who}, not only by this test, so no fault "
            "strikes there. Give the test a device of its own"
        )
    yield before
    after = look(number)
    if after.ecc is not None and before.ecc is not None and after.ecc > before.ecc:
        raise BadArgument(
            f"GPU {number} ({before.name}) had {after.ecc - before.ecc} uncorrectable memory "
            f"errors during the test: no verdict"
        )


def _handle(pynvml: ModuleType, number: int) -> Any:
    """Return NVML's handle. NVML counts all devices, but torch only the visible ones."""
    shown = [
        part.strip()
        for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if part.strip()
    ]
    name = shown[number] if number < len(shown) else str(number)
    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    return pynvml.nvmlDeviceGetHandleByUUID(name)


def _ecc(pynvml: ModuleType, handle: Any) -> int | None:
    try:
        return int(
            pynvml.nvmlDeviceGetTotalEccErrors(
                handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
            )
        )
    except pynvml.NVMLError:  # a device without this counter
        return None


def has_cuda() -> bool:
    """Return True if torch has a CUDA device."""
    import torch

    return bool(torch.cuda.is_available())


def _family() -> set[int]:
    """Return the ids of this process and its parent, which are pytest and its test process."""
    return {os.getpid(), os.getppid()}


@contextlib.contextmanager
def cap_memory(effect: Effect, total: int) -> Iterator[None]:
    """Limit the caching allocator of CUDA to ``total`` bytes.

    The limit is lifted while the effect is not active (in golden runs, and after its last strike)
    and at the end.
    """
    with guard_device() as device:
        cap = _cap(effect, total, device)
        try:
            with beneath(cap):
                yield
        finally:
            cap.set(_WHOLE_DEVICE)


def _cap(effect: Effect, total: int, device: Device) -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    share = min(_WHOLE_DEVICE, total / device.total)

    class Cap(TorchDispatchMode):  # type: ignore[misc]  # mypy does not check torch
        now = _WHOLE_DEVICE

        def set(self, share: float) -> None:
            """Set or lift the limit, after the allocator has released its unused memory."""
            if share != self.now:
                torch.cuda.empty_cache()
                torch.cuda.set_per_process_memory_fraction(share)
                self.now = share

        def __torch_dispatch__(
            self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
        ) -> Any:
            active = effect.active
            self.set(share if active else _WHOLE_DEVICE)
            try:
                return func(*args, **(kwargs or {}))
            except torch.OutOfMemoryError as error:
                if active:
                    effect.strike(
                        error,
                        operator=str(func),
                        live=f"{size_text(torch.cuda.memory_allocated())} of {size_text(total)}",
                    )
                raise
            finally:
                effect.remark(
                    f"the peak was {size_text(torch.cuda.max_memory_allocated())} of "
                    f"{size_text(total)}"
                )

    return Cap()
