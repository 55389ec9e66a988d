"""Training loops on torch: ``train.forward``, ``train.backward`` and ``train.step``, without touching user code."""

from __future__ import annotations

import _lsprof
import contextlib
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ..core.sites import Key, site
from ..engine.controller import Controller
from ..engine.gate import Gate
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches
from .torch_state import Models, not_finite

__all__ = ["Trained", "close_with", "trained_parameters", "wrap_forward"]


@site("train.step", "An optimizer step, about to be taken. Payload: the optimizer.", needs="torch", always=True)
def arm_step(controller: Controller, patches: Patches, key: Key) -> None:
    """Every optimizer's step, through torch's global pre-step hook."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        gate = controller.begin("train.step", optimizer)
        if gate is not None:
            gate.wait()
            close_with(sys._getframe(1), gate)

    patches.on_undo(register_optimizer_step_pre_hook(before_step).remove)


@site("train.step.end", "An optimizer step, taken just now. Payload: the optimizer.", needs="torch")
def arm_step_end(controller: Controller, patches: Patches, key: Key) -> None:
    """Behind every optimizer's step, through torch's global post-step hook: weights have changed, and nothing that counts steps has."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        gate = controller.begin("train.step.end", optimizer)
        if gate is not None:
            with gate:
                gate.wait()

    patches.on_undo(register_optimizer_step_post_hook(after_step).remove)


class Trained:
    """What a run trains: called, it copies the parameters of the optimizers that took a step, as they are then."""

    def __init__(self) -> None:
        self.models = Models()
        self._optimizers: dict[int, Any] = {}

    def __call__(self) -> list[list[Any]]:
        """Copies of the parameters, a list for each optimizer."""
        return [[p.detach().clone() for group in o.param_groups for p in group["params"]] for o in self._optimizers.values()]

    def not_finite(self) -> dict[tuple[str, str], int]:
        """Count the values that are not finite now: see ``not_finite``."""
        return not_finite(self.models, self._optimizers.values()) if self._optimizers or any(True for _ in self.models) else {}

    def stepped(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """An optimizer is about to take a step."""
        self._optimizers[id(optimizer)] = optimizer


@contextlib.contextmanager
def trained_parameters(trained: Trained | None = None, forwarded: Callable[[Any, Any, Any], None] | None = None) -> Iterator[Trained]:
    """Watch which optimizers step and which models run; ``forwarded(module, args, kwargs)`` is called behind each forward pass."""
    found = Trained() if trained is None else trained

    def ended(module: Any, args: Any, kwargs: Any) -> None:
        found.models.remember(module)
        if forwarded is not None:
            forwarded(module, args, kwargs)

    def watch() -> None:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        patches.on_undo(register_optimizer_step_pre_hook(found.stepped).remove)
        wrap_forward(patches, lambda module: True, lambda module: None, ended, buffers=True)

    with Patches() as patches:
        when_imported("torch", patches, watch)
        yield found


def close_with(frame: FrameType, gate: Gate) -> None:
    """Close ``gate`` when ``frame``, the running ``Optimizer.step``, is left.

    A step that raises calls no hook of torch's, so a profile function watches the frame, for this one step.
    """
    if gate.visit.stack is None or not gate.visit.records_itself:
        gate.close()
        return
    before: Any = sys.getprofile()

    def watch(current: FrameType, event: str, arg: object) -> None:
        if callable(before):
            before(current, event, arg)
        if current is frame and event == "return":
            sys.setprofile(before if callable(before) else None)
            if isinstance(before, _lsprof.Profiler):  # cProfile's, which is no function: it pauses for this one step
                before.enable()
            gate.close()

    sys.setprofile(watch)


@site("train.backward", "A backward pass, about to start. Payload: its root tensors.", needs="torch")
def arm_backward(controller: Controller, patches: Patches, key: Key) -> None:
    """Every backward pass that is started from Python; one inside another (activation checkpointing) is not counted.

    ``Tensor.backward``, ``torch.autograd.backward`` and ``torch.autograd.grad``, whatever name they were imported under, reach the
    engine through this one name; module hooks would insert nodes into the user's graph.
    """
    import torch

    original: Any = torch.autograd._engine_run_backward
    task: Callable[[], int] = torch._C._current_graph_task_id  # -1 outside of backward passes
    begin = controller.begin

    @functools.wraps(original)
    def run_backward(*args: Any, **kwargs: Any) -> Any:
        gate = begin("train.backward", args[0] if args else None) if task() == -1 else None
        if gate is None:
            return original(*args, **kwargs)
        with gate:
            gate.wait()
            return original(*args, **kwargs)

    patches.set(torch.autograd, "_engine_run_backward", run_backward)


@site("train.forward", "A forward pass of a model in training. Payload: the model.", needs="torch")
def arm_forward(controller: Controller, patches: Patches, key: Key) -> None:
    """The outermost call of a module that is in training mode and has parameters, while gradients are recorded."""
    import torch

    recording = torch.is_grad_enabled
    wrap_forward(patches, lambda module: module.training and recording(), lambda module: controller.begin("train.forward", module))


@site("model.forward", "A call of a model, in training or not. Payload: the model.", needs="torch")
def arm_any_forward(controller: Controller, patches: Patches, key: Key) -> None:
    """The outermost call of a module that has parameters: training, evaluation, serving."""
    wrap_forward(patches, lambda module: True, lambda module: controller.begin("model.forward", module))


def wrap_forward(
    patches: Patches,
    counts: Callable[[Any], bool],
    begin: Callable[[Any], Gate | None],
    ended: Callable[[Any, Any, Any], None] | None = None,
    *,
    buffers: bool = False,
) -> None:
    """Begin a visit at each outermost call of a module with parameters that ``counts``; ``ended(module, args, kwargs)`` behind one.

    ``buffers``: a module that has buffers alone counts too.

    torch's global forward hooks would take every submodule's call off its fast path (some 3 % of a small model's
    step, against well under 1 % for this wrapper), and are not told how a call ends.
    """
    import torch

    inside: set[int] = set()
    models: dict[int, weakref.ref[Any]] = {}
    original = torch.nn.Module.__call__
    torchs_own = original is getattr(torch.nn.Module, "_wrapped_call_impl", None) and hasattr(torch.nn.Module, "_compiled_call_impl")
    thread = threading.get_ident

    def is_model(module: Any) -> bool:
        """Whether a module has parameters (or ``buffers``); remembered, for it is asked at each step."""
        known = models.get(id(module))
        if known is not None and known() is module:
            return True
        found = next(module.parameters(), None) is not None or (buffers and next(module.buffers(), None) is not None)
        if found:
            models[id(module)] = weakref.ref(module)
        return found

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        me = thread()
        if me in inside or not (counts(self) and is_model(self)):
            if torchs_own and self._compiled_call_impl is None:  # all that the original would do, one frame less for each layer
                return self._call_impl(*args, **kwargs)
            return original(self, *args, **kwargs)
        gate = begin(self)
        inside.add(me)
        try:
            if gate is None:
                result = original(self, *args, **kwargs)
            else:
                with gate:
                    gate.wait()
                    result = original(self, *args, **kwargs)
            if ended is not None:
                ended(self, args, kwargs)
            return result
        finally:
            inside.discard(me)

    patches.set(torch.nn.Module, "__call__", call)
