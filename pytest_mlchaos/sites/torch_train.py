"""Define the sites of torch training loops: forward and backward passes, and steps.

User code does not change.
"""

from __future__ import annotations

import _lsprof
import contextlib
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..core.sites import Key, site
from ..engine.controller import Controller
from ..engine.gate import Gate
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches
from .optimizer_steps import outermost_steps
from .torch_state import Models, not_finite

if TYPE_CHECKING:
    import torch

__all__ = ["Trained", "close_with", "trained_parameters", "watch_steps", "wrap_forward"]


@site(
    "train.step",
    "An optimizer step, about to be taken. Payload: the optimizer.",
    needs="torch",
    always=True,
)
def arm_step(controller: Controller, patches: Patches, key: Key) -> None:
    """Make a visit of each optimizer's step, by torch's global pre-step hook."""

    def before_step(
        optimizer: torch.optim.Optimizer, args: object, kwargs: object, frame: FrameType
    ) -> None:
        gate = controller.begin("train.step", optimizer)
        if gate is not None:
            gate.wait()
            close_with(frame, gate)

    watch_steps(patches, before_step)


@site("train.step.end", "An optimizer step, taken just now. Payload: the optimizer.", needs="torch")
def arm_step_end(controller: Controller, patches: Patches, key: Key) -> None:
    """Make a visit after each optimizer's step, by torch's global post-step hook.

    At this moment, weights have changed, but no step counter has.
    """

    def after_step(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        gate = controller.begin("train.step.end", optimizer)
        if gate is not None:
            with gate:
                gate.wait()

    watch_steps(patches, lambda *_: None, after_step)


def watch_steps(patches: Patches, *hooks: Callable[..., object]) -> None:
    """Call hooks before and after each optimizer step. See ``outermost_steps``."""
    from torch.optim import optimizer

    before, after = outermost_steps(*hooks)
    patches.on_undo(optimizer.register_optimizer_step_pre_hook(before).remove)
    patches.on_undo(optimizer.register_optimizer_step_post_hook(after).remove)


class Trained:
    """The models and optimizers of a run.

    A call copies the parameters of the optimizers that took a step.
    """

    def __init__(self) -> None:
        self.models = Models()
        self._optimizers: dict[int, Any] = {}

    def __call__(self) -> list[list[Any]]:
        """Return copies of the parameters, in a list for each optimizer."""
        return [
            [p.detach().clone() for group in o.param_groups for p in group["params"]]
            for o in self._optimizers.values()
        ]

    def not_finite(self) -> dict[tuple[str, str], int]:
        """Count the values that are not finite now. See ``not_finite``."""
        return (
            not_finite(self.models, self._optimizers.values())
            if self._optimizers or any(True for _ in self.models)
            else {}
        )

    def stepped(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Remember an optimizer that is about to take a step."""
        self._optimizers[id(optimizer)] = optimizer


@contextlib.contextmanager
def trained_parameters(
    trained: Trained | None = None, forwarded: Callable[[Any, Any, Any], None] | None = None
) -> Iterator[Trained]:
    """Record the optimizers that step and the models that run.

    Args:
        trained: The record to extend, or None for a new one.
        forwarded: A function that is called with the module and its arguments after each forward
            pass.
    """
    found = Trained() if trained is None else trained

    def ended(module: torch.nn.Module, args: object, kwargs: object) -> None:
        found.models.remember(module)
        if forwarded is not None:
            forwarded(module, args, kwargs)

    def watch() -> None:
        watch_steps(patches, found.stepped)
        wrap_forward(
            patches, lambda module: True, lambda module, args, kwargs: None, ended, buffers=True
        )

    with Patches() as patches:
        when_imported("torch", patches, watch)
        yield found


def close_with(frame: FrameType, gate: Gate) -> None:
    """Close ``gate`` when ``frame``, the running ``Optimizer.step``, returns.

    If a step raises, torch calls no hook. So a profile function watches the frame for this one
    step.
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
            # cProfile's profiler is not a function: it pauses for this step.
            if isinstance(before, _lsprof.Profiler):
                before.enable()
            gate.close()

    sys.setprofile(watch)


@site(
    "train.backward", "A backward pass, about to start. Payload: its root tensors.", needs="torch"
)
def arm_backward(controller: Controller, patches: Patches, key: Key) -> None:
    """Make a visit of each backward pass that Python code starts.

    ``Tensor.backward``, ``torch.autograd.backward`` and ``torch.autograd.grad`` call the engine by
    this one name, under each name by which they were imported. A backward pass inside a different
    one (activation checkpointing) does not count. Module hooks would insert nodes into the user's
    graph.
    """
    import torch

    original: Any = torch.autograd._engine_run_backward
    task: Callable[[], int] = torch._C._current_graph_task_id  # -1 outside of backward passes
    begin = controller.begin

    @functools.wraps(original)
    def run_backward(*args: object, **kwargs: object) -> Any:
        gate = None
        if task() == -1 and not controller.is_applying:
            gate = begin("train.backward", args[0] if args else None)
        if gate is None:
            return original(*args, **kwargs)
        with gate:
            gate.wait()
            return original(*args, **kwargs)

    patches.set(torch.autograd, "_engine_run_backward", run_backward)


@site("train.forward", "A forward pass of a model in training. Payload: the model.", needs="torch")
def arm_forward(controller: Controller, patches: Patches, key: Key) -> None:
    """Make a visit of each outermost call of a module in training.

    The module has parameters, and gradients are recorded.
    """
    import torch

    recording = torch.is_grad_enabled
    wrap_forward(
        patches,
        lambda module: module.training and recording() and not controller.is_applying,
        lambda module, args, kwargs: controller.begin("train.forward", module),
    )


@site("model.forward", "A call of a model, in training or not. Payload: the model.", needs="torch")
def arm_any_forward(controller: Controller, patches: Patches, key: Key) -> None:
    """Make a visit of each outermost call of a module with parameters.

    It may be in training, evaluation or serving.
    """
    wrap_forward(
        patches,
        lambda module: not controller.is_applying,
        lambda module, args, kwargs: controller.begin("model.forward", module),
    )


def wrap_forward(
    patches: Patches,
    counts: Callable[[Any], bool],
    begin: Callable[[Any, Any, Any], Gate | None],
    ended: Callable[[Any, Any, Any], None] | None = None,
    *,
    buffers: bool = False,
    inputs: bool = False,
) -> None:
    """Make a visit of each outermost call of a module with parameters.

    torch's global forward hooks would be slower: they take the call of each submodule off its fast
    path (some 3 % of a small model's step, against well under 1 % for this wrapper). They also do
    not learn how a call ends.

    Args:
        patches: The patches of the trial.
        counts: A function that returns True if a module counts.
        begin: A function that begins the visit. It is called with the module and its arguments.
        ended: A function that is called with the module and its arguments after the call.
        buffers: True if a module that has only buffers counts too.
        inputs: True if the payload of the visit is ``(args, kwargs)``, which the module then gets.
    """
    import torch

    inside: set[int] = set()
    models: dict[int, weakref.ref[Any]] = {}
    original = torch.nn.Module.__call__
    torchs_own = original is getattr(torch.nn.Module, "_wrapped_call_impl", None) and hasattr(
        torch.nn.Module, "_compiled_call_impl"
    )
    thread = threading.get_ident

    def is_model(module: torch.nn.Module) -> bool:
        """Return True if a module has parameters (or ``buffers``).

        Cached, because this is called at each step.
        """
        known = models.get(id(module))
        if known is not None and known() is module:
            return True
        found = next(module.parameters(), None) is not None or (
            buffers and next(module.buffers(), None) is not None
        )
        if found:
            models[id(module)] = weakref.ref(module)
        return found

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        me = thread()
        if me in inside or not (counts(self) and is_model(self)):
            # The same as the original, with one frame less for each layer.
            if torchs_own and self._compiled_call_impl is None:
                return self._call_impl(*args, **kwargs)
            return original(self, *args, **kwargs)
        inside.add(me)  # before a fault is applied, whose calls of the model are not visits
        try:
            gate = begin(self, args, kwargs)
            if gate is None:
                result = original(self, *args, **kwargs)
            else:
                with gate:
                    gate.wait()
                    if inputs:
                        args, kwargs = gate.payload
                    result = original(self, *args, **kwargs)
            if ended is not None:
                ended(self, args, kwargs)
            return result
        finally:
            inside.discard(me)

    patches.set(torch.nn.Module, "__call__", call)
