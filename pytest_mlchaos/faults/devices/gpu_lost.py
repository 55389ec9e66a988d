"""Define a fault of the device: it is lost, and stays lost until the process ends."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from ...core.faults import Fault, register
from ...core.sites import Key, Visit
from ...engine.error_origin import mark
from ...engine.patching import Patches
from .dispatch_modes import beneath
from .phases import SITES_OF_PHASES, Phase

__all__ = ["GpuLost"]
LAYER = "The device and the host"

_ERRORS = {
    "fallen_off_bus": ("unspecified launch failure", "cudaErrorLaunchFailure"),
    "ecc": ("uncorrectable ECC error encountered", "cudaErrorECCUncorrectable"),
    "illegal_access": ("an illegal memory access was encountered", "cudaErrorIllegalAddress"),
    "device_assert": ("device-side assert triggered", "cudaErrorAssert"),
}
_READING = ("cpu", "numpy", "item", "tolist", "__array__", "__reduce_ex__")
"""Methods that read a tensor's values without a dispatched operator, or copy them off the device.
"""


@register
class GpuLost(Fault):
    """The device fails, and so does each later operation on it, until the process ends:
    ``torch.AcceleratorError``.

    From then on every use of the device raises the same error: the next batch, ``loss.item()``,
    ``state_dict()``, ``torch.save`` of its tensors. Code that catches the error and tries again
    fails again. A new process does not. ``at`` counts the phases.

    Args:
        kind: ``"fallen_off_bus"`` (the driver has lost it), ``"ecc"`` (memory that cannot be
            corrected), ``"illegal_access"`` or ``"device_assert"`` (an index out of range in a
            kernel), each with the text that torch gives it.
        phase: ``"forward"`` (of the model in training), ``"call"`` (any call of it), ``"backward"``
            or ``"optimizer"`` (the step).

    Imitates: Xid 79, 48 and 94, 31, 43 of the NVIDIA driver; a CUDA context that is poisoned by an
    error, as all of these leave it.

    Fidelity: the device is the one that the model is on. If that is the CPU, all that belongs to
    the model fails instead: operations on tensors that require a gradient, on parameters, buffers,
    gradients and optimizer state. Host data does not fail. Errors come at the operation, not later
    as asynchronous ones may. Work of other threads goes on. Real messages of a lost device differ,
    and ``unspecified launch failure`` is the most common.

    Source: https://docs.nvidia.com/deploy/xid-errors/ and
    https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html

    Example: ``@chaos.gpu_lost(kind="ecc", at=3)``
    """

    site = "train.backward"
    needs = ("torch", "torch")
    random = False
    kind: Literal["fallen_off_bus", "ecc", "illegal_access", "device_assert"] = "fallen_off_bus"
    phase: Phase = "backward"

    @property
    def key(self) -> Key:
        """Count the visits of the phase's site."""
        return SITES_OF_PHASES[self.phase]

    def apply(self, visit: Visit) -> None:
        """Fail now, and at each operation from now on."""
        tensors = list(_tensors(visit.payload))
        visit.keep_until_exit(_lost(tensors, functools.partial(_error, self.kind)))
        visit.fail(_error(self.kind))


def _error(kind: str) -> BaseException:
    import torch

    text, name = _ERRORS[kind]
    cls: type[BaseException] = getattr(torch, "AcceleratorError", RuntimeError)
    return cls(
        f"CUDA error: {text}\nSearch for `{name}' in "
        f"https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more "
        "information.\nCUDA kernel errors might be asynchronously reported at some other API call, "
        "so the stacktrace below might be "
        "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with "
        "`TORCH_USE_CUDA_DSA` to enable device-side "
        "assertions.\n(injected by mlchaos)"
    )


def _tensors(payload: object) -> Iterator[Any]:
    """Yield the tensors of a model, of an optimizer with its state, or of roots, with their
    gradients.
    """
    import torch

    found: list[Any] = []
    if isinstance(payload, torch.nn.Module):
        found = [*payload.parameters(), *payload.buffers()]
    elif isinstance(payload, torch.optim.Optimizer):
        found = [parameter for group in payload.param_groups for parameter in group["params"]]
        found += [value for state in payload.state.values() for value in state.values()]
    else:
        found = torch.utils._pytree.tree_leaves(payload)
    for tensor in found:
        if isinstance(tensor, torch.Tensor):
            yield tensor
            if tensor.is_leaf and tensor.grad is not None:
                yield tensor.grad


@contextlib.contextmanager
def _lost(tensors: list[Any], error: Callable[[], BaseException]) -> Iterator[None]:
    """Let every operation on the device of these tensors fail."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    real = any(tensor.is_cuda for tensor in tensors)
    model = (
        {tensor.untyped_storage()._cdata for tensor in tensors if tensor.layout is torch.strided}
        if not real
        else set()
    )

    def is_there(value: object) -> bool:
        if not isinstance(value, torch.Tensor):
            return False
        if real:
            return bool(value.is_cuda)
        return value.requires_grad or (
            value.layout is torch.strided and value.untyped_storage()._cdata in model
        )

    def fail() -> None:
        failure = error()
        mark(failure, own_words=True)
        raise failure

    class Lost(TorchDispatchMode):  # type: ignore[misc]  # mypy does not check torch
        def __torch_dispatch__(
            self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
        ) -> Any:
            leaves = torch.utils._pytree.tree_leaves((args, kwargs))
            to_device = real and any(
                isinstance(leaf, torch.device) and leaf.type == "cuda" for leaf in leaves
            )
            if to_device or any(map(is_there, leaves)):
                fail()
            return func(*args, **(kwargs or {}))

    def guarded(original: Callable[..., Any]) -> Any:
        @functools.wraps(original)
        def read(self: Any, *args: Any, **kwargs: Any) -> Any:
            if is_there(self):
                fail()
            return original(self, *args, **kwargs)

        return read

    with Patches() as patches, beneath(Lost()):
        for name in _READING:
            patches.set(torch.Tensor, name, guarded(getattr(torch.Tensor, name)))
        if real:
            patches.set(torch.cuda, "synchronize", lambda *_, **__: fail())
        yield
