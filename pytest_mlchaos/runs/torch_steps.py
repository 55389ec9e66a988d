"""Record the gradients of optimizer steps, to compare them with the golden run's."""

from __future__ import annotations

import array
import contextlib
import functools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..core.recording import is_recording
from ..core.records import Gradients
from ..engine.controller import current
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches
from ..sites.optimizer_steps import outermost_steps
from ..sites.torch_train import Trained, trained_parameters, watch_steps
from .private_steps import PrivateSteps

if TYPE_CHECKING:
    import torch

__all__ = ["watch_training"]

MAX_STEPS = 100_000
"""The maximum number of recorded steps. A step takes some bytes per parameter."""
MAX_NORM_ELEMENTS = 8192
"""The number of first elements of a gradient whose norm represents the whole."""


class _Trained(Trained):
    """The models and optimizers of a run.

    ``gradients`` returns the gradients of each step, and ``losses`` the losses. ``private`` has the
    steps as they count for privacy, or is None.
    """

    def __init__(self, steps: _Steps, private: PrivateSteps | None) -> None:
        super().__init__()
        self.private = private
        self.gradients = steps.done
        self.losses = steps.losses


@contextlib.contextmanager
def watch_training(*, privacy: bool = False) -> Iterator[_Trained]:
    """Record the optimizers that step, and their gradients.

    Args:
        privacy: True to record the noise of each step, too. It costs a digest of the parameters.
    """
    steps = _Steps()
    private = PrivateSteps() if privacy else None
    found = _Trained(steps, private)

    def watch() -> None:
        steps.watch(patches)
        if private is not None:
            watch_steps(patches, private.before_step, private.after_step)

    with trained_parameters(found, steps.seen), Patches() as patches:
        when_imported("torch", patches, watch)
        yield found


class _Steps:
    """Counts the samples whose backward pass has ended, and records gradients at the steps."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, Any] | None] = []
        self._about: tuple[int, Any] | None = None
        self._recording: Callable[[], bool] = bool
        self._forwarded = self._samples = 0
        self._roots: list[torch.Tensor] = []
        self._model: weakref.ref[Any] | None = None
        self._first: weakref.ref[Any] | None = None

    def done(self) -> list[Gradients]:
        """Return the gradients of each step."""
        return [
            _UNTOUCHED if about is None else Gradients(about[0], _floats(about[1]))
            for about in self._steps
        ]

    def losses(self) -> list[float]:
        """Return the loss of each backward pass that started at a single number."""
        return [float(root) for root in self._roots]

    def watch(self, patches: Patches) -> None:
        """Install the hooks, until the patches are undone."""
        import torch
        from torch.optim import optimizer

        hooks = outermost_steps(self._before_step, self._after_step)
        before = optimizer.register_optimizer_step_pre_hook(hooks[0])
        # Changes of faults to a step come after this hook.
        optimizer._global_optimizer_pre_hooks.move_to_end(before.id, last=False)
        patches.on_undo(before.remove)
        after = optimizer.register_optimizer_step_post_hook(hooks[1])
        # A fault after the step may raise.
        optimizer._global_optimizer_post_hooks.move_to_end(after.id, last=False)
        patches.on_undo(after.remove)
        patches.set(
            torch.autograd,
            "_engine_run_backward",
            self._backward(torch.autograd._engine_run_backward),
        )
        patches.set(
            optimizer.Optimizer, "zero_grad", self._zero_grad(optimizer.Optimizer.zero_grad)
        )
        self._recording = torch.is_grad_enabled

    def seen(self, module: torch.nn.Module, args: Sequence[Any], kwargs: Any) -> None:
        """Count the samples of a forward pass that has ended, if the model is in training."""
        if not (module.training and self._recording()):
            return
        self._forwarded += _leading(args) or _leading(kwargs.values())
        if self._model is None or self._model() is not module:
            self._model = weakref.ref(module)
            self._first = weakref.ref(first) if (first := _trainable(module)) is not None else None

    def _backward(self, original: Callable[..., Any]) -> Any:
        import torch

        task: Callable[[], int] = torch._C._current_graph_task_id

        @functools.wraps(original)
        def run_backward(*args: Any, **kwargs: Any) -> Any:
            if task() != -1:
                return original(*args, **kwargs)
            self._keep_loss(args)
            if (
                self._first is not None
                and (first := self._first()) is not None
                and first.grad is None
            ):
                self._samples = 0  # gradients were cleared
            forwarded, self._forwarded = self._forwarded, 0
            result = original(*args, **kwargs)
            self._samples += forwarded
            return result

        return run_backward

    def _keep_loss(self, args: Sequence[Any]) -> None:
        """Keep the root of a backward pass. Reading its number here would wait for a device."""
        roots = args[0] if args else None
        if isinstance(roots, tuple) and len(roots) == 1 and len(self._roots) < MAX_STEPS:
            root = roots[0]
            if is_recording() and getattr(root, "ndim", None) == 0:
                self._roots.append(root.detach())

    def _zero_grad(self, original: Callable[..., Any]) -> Any:
        @functools.wraps(original)
        def zero_grad(optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
            self._samples = 0
            return original(optimizer, *args, **kwargs)

        return zero_grad

    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: object, kwargs: object, frame: FrameType
    ) -> None:
        self._about = None
        if len(self._steps) < MAX_STEPS and not _has_closure(args, kwargs) and _touched():
            self._about = self._samples, _norms(optimizer)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        if len(self._steps) < MAX_STEPS:
            if _has_closure(args, kwargs) and _touched():
                self._about = self._samples, _norms(optimizer)
            self._steps.append(self._about)
        self._about, self._samples = None, 0


_UNTOUCHED = Gradients(0, None, untouched=True)


def _touched() -> bool:
    """Return True after the first strike, and in a run without faults.

    Earlier steps equal the golden run's.
    """
    controller = current()
    return (
        controller is None
        or not controller.scheduled
        or any(scheduled.struck for scheduled in controller.scheduled)
    )


def _floats(norms: Any) -> tuple[float, ...] | None:
    return None if norms is None else tuple(map(float, norms.tolist()))


def _has_closure(args: Any, kwargs: Any) -> bool:
    """Return True if the step computes its gradients itself, with a function."""
    return kwargs.get("closure") is not None or any(map(callable, args))


def _trainable(module: torch.nn.Module) -> Any:
    return next((parameter for parameter in module.parameters() if parameter.requires_grad), None)


def _leading(values: Any) -> int:
    """Return the leading dimension of the first tensor."""
    for value in values:
        shape = getattr(value, "shape", None)
        if shape is not None and len(shape):
            return int(shape[0])
        if isinstance(value, (dict, list, tuple)):
            inner = _leading(value.values() if isinstance(value, dict) else value)
            if inner:
                return inner
    return 0


def _norms(optimizer: torch.optim.Optimizer) -> Any:
    """Return the norms of an optimizer's gradients, or None if they have none."""
    grads = [
        grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if (grad := parameter.grad) is not None
    ]
    if not grads:
        return None
    try:
        # NumPy takes a third of the time of torch's operators.
        return array.array("d", map(_norm, grads))
    except (RuntimeError, TypeError, AttributeError):
        return _norms_by_torch(grads)


def _norm(grad: torch.Tensor) -> float:
    """Return the norm of a plain gradient on the CPU. For a large one, use its first elements."""
    values = grad.numpy()
    if values.dtype.char not in "fd":
        raise TypeError(values.dtype)
    values = values.ravel()[:MAX_NORM_ELEMENTS]
    largest = float(abs(values).max()) if values.size else 0.0
    if 1e-15 < largest < 1e15:
        return math.sqrt(values.dot(values))
    # Their squares would overflow or underflow float32.
    values = values.astype("d") / (largest or 1.0)
    return largest * math.sqrt(values.dot(values))


def _norms_by_torch(grads: list[Any]) -> Any:
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    with contextlib.ExitStack() as stack:
        if torch._C._len_torch_dispatch_stack():
            # The measurement must not reach the user's dispatch modes.
            stack.enter_context(_disable_current_modes())
        try:
            with torch.no_grad():
                grads = [
                    grad
                    if grad.numel() <= MAX_NORM_ELEMENTS
                    else grad.reshape(-1)[:MAX_NORM_ELEMENTS]
                    for grad in grads
                ]
                return torch.stack(torch._foreach_norm(grads, dtype=torch.float32))
        except (
            RuntimeError,
            NotImplementedError,
        ):
            # Sparse gradients, several devices, several types.
            return None
