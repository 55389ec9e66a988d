"""Trace a training run on torch, as digests of the state and the data of each step.

The traces of a resumed run and of the golden run are compared. Tracing makes no visits, and no
fault strikes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from time import perf_counter  # the real clock: it measures recovery
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..engine.digests import digest, random_states
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches
from ..sites.dataloader import watch_batches
from ..sites.optimizer_steps import outermost_steps
from .generator_marks import watch_generators
from .traces import GeneratorMark, StepRecord, Trace

if TYPE_CHECKING:
    import torch

__all__ = ["trace_steps", "traced_steps"]

TORCH = "rng.torch"
_NO_HYPERPARAMETERS = {"params", "lr", "initial_lr", "param_names"}


@contextlib.contextmanager
def trace_steps(on_step: Callable[[Trace], None]) -> Iterator[Trace]:
    """Trace the code inside. Call ``on_step`` after each step.

    Steps are those of torch's optimizers. If a run takes none, its backward passes count, for
    frameworks with optimizers of their own.
    """
    tracer = _Tracer(on_step)
    with Patches() as patches:
        watch_generators(patches, tracer.on_read, tracer.on_set)
        when_imported("torch", patches, lambda: tracer.install(patches))
        yield tracer.trace
        tracer.finish()


@contextlib.contextmanager
def traced_steps() -> Iterator[Callable[[], Trace]]:
    """Trace the code inside.

    Give a function that returns the steps so far, and the trained state at that moment.
    """
    tracer = _Tracer(lambda _: None)

    def finished() -> Trace:
        tracer.finish()
        return tracer.trace

    with Patches() as patches:
        watch_generators(patches, tracer.on_read, tracer.on_set)
        when_imported("torch", patches, lambda: tracer.install(patches))
        yield finished


class _Tracer:
    def __init__(self, on_step: Callable[[Trace], None]) -> None:
        self.trace = Trace()
        self._on_step = on_step
        self._start = perf_counter()
        self._data: list[bytes] = []
        self._batches: list[bytes] = []
        self._optimizers: dict[int, Any] = {}
        self._models: dict[int, weakref.ref[Any]] = {}
        self._schedulers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._scalers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._copies: weakref.WeakSet[Any] = weakref.WeakSet()
        self._averages: tuple[int, list[weakref.ref[Any]]] = (0, [])
        self._leaves: list[Any] = []
        self._open: dict[str, bytes] | None = None
        self._stepping: list[Any] = []
        self._began = 0.0
        self._thread = threading.get_ident()
        self._random: bytes | None = None
        self._is_drawn = False
        self._looking = False
        self._just_read: set[tuple[str, bytes]] = set()
        self._unused: list[Any] = []
        self._starts: dict[tuple[str, int], list[int]] = {}

    def install(self, patches: Patches) -> None:
        """Watch torch's optimizers, models and loaders, and other objects with a state."""
        import torch
        from torch.optim import lr_scheduler
        from torch.optim.optimizer import (
            register_optimizer_step_post_hook,
            register_optimizer_step_pre_hook,
        )

        before, after = outermost_steps(
            lambda optimizer, *_: self._before(optimizer), lambda *_: self._after()
        )
        patches.on_undo(register_optimizer_step_pre_hook(before).remove)
        patches.on_undo(register_optimizer_step_post_hook(after).remove)
        _call_with(patches, torch.optim.Optimizer, "__init__", self._on_unused)
        _call_with(patches, torch.nn.Module, "load_state_dict", self._on_unused)
        self._watch_forward(torch, patches)
        self._watch_backward(torch, patches)
        watch_batches(patches, self._on_batch, self._on_epoch, self._on_seeded)
        _remember(patches, lr_scheduler.LRScheduler, self._schedulers)
        # Called by a deep copy, and by unpickling.
        _remember(patches, torch.nn.Module, self._copies, "__setstate__")
        scaler = getattr(torch.amp, "GradScaler", None)
        if scaler is not None:
            _remember(patches, scaler, self._scalers)

    def finish(self) -> None:
        """Record the trained state after the run has returned."""
        self.trace.epoch_steps = self._longest_epoch()
        if self._optimizers or self._leaves:
            self.trace.final = self._digests(list(self._optimizers.values()))
        else:
            self.trace.held = frozenset(
                digest(parameters) for one in self._unused for parameters in _parameters_of(one)
            )
        self._unused = []
        if not self._is_drawn:
            self.trace.idle = frozenset([TORCH])

    # -- steps -------------------------------------------------------------------------------------

    def _before(self, optimizer: torch.optim.Optimizer) -> None:
        if not self._optimizers and self._leaves:  # the backward passes so far were not steps
            self._leaves = []
            self._data[:0] = [one for step in self.trace.steps for one in step.data]
            self._batches[:0] = [one for step in self.trace.steps for one in step.batches]
            self.trace.steps.clear()
            self.trace.marks = {dataclasses.replace(mark, step=0) for mark in self.trace.marks}
        self._optimizers[id(optimizer)] = optimizer
        self._begin([optimizer])

    def _begin(self, optimizers: list[Any]) -> None:
        self._began = perf_counter() - self._start
        self._unused = []
        self._stepping = optimizers
        random = self._states()
        self._look(random)
        self._open = {**self._digests(optimizers), **random}

    def _after(self) -> None:
        digests, self._open = self._open, None
        if digests is None or self.trace.stopped or self._only_made_state(digests):
            return
        self.trace.steps.append(
            StepRecord(digests, tuple(self._data), tuple(self._batches), self._began)
        )
        self._data.clear()
        self._batches.clear()
        self._on_step(self.trace)

    def _only_made_state(self, before: dict[str, bytes]) -> bool:
        """Return True for a step without data that changed no parameter.

        Libraries take one to create the optimizer's state, for example before they load it
        (``torch.distributed.checkpoint``). A resumed run would seem to begin from scratch there.
        """
        if self.trace.steps or self._data or self._batches or not self._stepping:
            return False
        return self._digests(self._stepping)["parameters"] == before["parameters"]

    def _digests(self, optimizers: list[Any]) -> dict[str, bytes]:
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        parameters = [p for group in groups for p in group["params"]] or self._leaves
        found = {"parameters": digest(parameters)}
        if groups:
            found["optimizer state"] = digest([_state(optimizer) for optimizer in optimizers])
            found["learning rate"] = digest([_number(group.get("lr")) for group in groups])
            found["hyperparameters"] = digest([_hyperparameters(group) for group in groups])
        buffers = [
            buffer
            for model in self._models.values()
            if (alive := model()) is not None
            for buffer in alive.buffers()
        ]
        if buffers:
            found["buffers"] = digest(buffers)
        if len(self._schedulers):
            found["scheduler"] = digest(
                sorted(digest(_plain(vars(scheduler))) for scheduler in self._schedulers)
            )
        if len(self._scalers):
            found["gradient scaler"] = digest(
                sorted(digest(scaler.state_dict()) for scaler in self._scalers)
            )
        averages = [average for one in self._copied_models() if (average := one()) is not None]
        if averages:
            found["ema"] = digest([list(average.parameters()) for average in averages])
        return found

    def _copied_models(self) -> list[weakref.ref[Any]]:
        """Return copies of the trained model that are not trained, mostly moving averages."""
        count, found = self._averages
        if count != len(self._copies):
            models = [alive for model in self._models.values() if (alive := model()) is not None]
            shapes = {_shapes(model) for model in models}
            trained = {id(p) for model in models for p in model.parameters()}
            found = [
                weakref.ref(one)
                for one in self._copies
                if _shapes(one) in shapes and id(next(one.parameters())) not in trained
            ]
            self._averages = len(self._copies), found
        return found

    # -- data --------------------------------------------------------------------------------------

    def _on_batch(self, batch: object) -> Any:
        self._batches.append(digest(batch))
        return batch

    def _look(self, random: dict[str, bytes]) -> None:
        """Note if torch's generator was used since the last call.

        Its use before the first step does not count.
        """
        self._is_drawn |= bool(self.trace.steps) and random.get(TORCH) != self._random
        self._random = random.get(TORCH)

    def _on_unused(self, one: object) -> None:
        """Keep a model or an optimizer until the first step.

        A finished job that is started again takes no step.
        """
        if (
            not self.trace.steps
            and self._open is None
            and not any(one is known for known in self._unused)
        ):
            self._unused.append(one)

    # -- generators --------------------------------------------------------------------------------

    def _states(self) -> dict[str, bytes]:
        """Return the states of the global generators.

        Record no mark, because the subject did not ask for them.
        """
        before, self._looking = self._looking, True
        try:
            return dict(random_states())
        finally:
            self._looking = before

    def on_read(self, name: str) -> None:
        """Record that the subject reads a generator's state, as for a checkpoint."""
        state = self._mark(name, read=True)
        if state is not None:
            self._just_read.add((name, state))

    def on_set(self, name: str) -> None:
        """Record that the subject has set or seeded a generator."""
        state = self._mark(name, read=False)
        # It was only restored, as after a block with random numbers of its own.
        if state is None or (name, state) in self._just_read:
            return
        self._just_read = {known for known in self._just_read if known[0] != name}
        if not self.trace.steps and self._open is None:
            self.trace.restored[name] = state

    def _mark(self, name: str, *, read: bool) -> bytes | None:
        """Record the state. Return None for a call of this tracer, or of a different thread."""
        if self._looking or threading.get_ident() != self._thread:
            return None
        state = self._states().get(name)
        if state is not None:
            self.trace.marks.add(GeneratorMark(name, state, len(self.trace.steps), read))
        return state

    def _on_seeded(self, used: bool) -> None:
        if not used:
            self._random = self._states().get(TORCH)

    def _on_epoch(self, loader: Any) -> None:
        # A loader may be made anew for each epoch, over the same dataset.
        for key in ("loader", id(loader)), ("dataset", id(getattr(loader, "dataset", loader))):
            self._starts.setdefault(key, []).append(len(self.trace.steps))
        self._look(self._states())
        if not self.trace.epochs or self.trace.epochs[-1] != len(self.trace.steps):
            self.trace.epochs.append(len(self.trace.steps))

    def _longest_epoch(self) -> int | None:
        """Return the steps between two starts of one loader, or of loaders of one dataset."""
        end = len(self.trace.steps)
        lengths = {"loader": 0, "dataset": 0}
        for (kind, _), starts in self._starts.items():
            gaps = [later - start for start, later in zip(starts, [*starts[1:], end], strict=True)]
            lengths[kind] = max(lengths[kind], *gaps)
        return min(lengths.values()) if self._starts else None

    def _watch_forward(self, torch: Any, patches: Patches) -> None:
        """Record the inputs of the outermost module in training, which is the model."""
        original = torch.nn.Module.__call__
        inside: set[int] = set()
        thread, recording = threading.get_ident, torch.is_grad_enabled

        @functools.wraps(original)
        def call(module: Any, *args: object, **kwargs: object) -> Any:
            me = thread()
            if me in inside or not (module.training and recording()):
                return original(module, *args, **kwargs)
            self._on_forward(module, args, kwargs)
            inside.add(me)
            try:
                return original(module, *args, **kwargs)
            finally:
                inside.discard(me)

        patches.set(torch.nn.Module, "__call__", call)

    def _on_forward(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        known = self._models.get(id(module))
        if known is None or known() is not module:
            if next(module.parameters(), None) is None:
                return  # for example a loss
            self._models[id(module)] = weakref.ref(module)
        self._data.append(digest([args, kwargs]))
        self.trace.passes += 1

    def _watch_backward(self, torch: ModuleType, patches: Patches) -> None:
        """Count each backward pass as a step until an optimizer of torch steps.

        Some frameworks have their own optimizers.
        """
        original = torch.autograd._engine_run_backward
        task = torch._C._current_graph_task_id

        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any) -> Any:
            own = (
                not self._optimizers
                and self._open is None
                and task() == -1
                and threading.get_ident() == self._thread
            )
            if not own:
                return original(*args, **kwargs)
            self._leaves = _leaves(args[0] if args else ()) or self._leaves
            self._begin([])
            try:
                return original(*args, **kwargs)
            finally:
                if self._leaves:
                    self._after()

        patches.set(torch.autograd, "_engine_run_backward", run)


def _remember(
    patches: Patches, cls: type, instances: weakref.WeakSet[Any], by: str = "__init__"
) -> None:
    """Remember each new instance, by patching a method of this class that its subclasses call."""
    original = getattr(cls, by)

    @functools.wraps(original)
    def made(self: object, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)
        with contextlib.suppress(TypeError):
            instances.add(self)

    patches.set(cls, by, made)


def _call_with(patches: Patches, cls: type, name: str, action: Callable[[Any], object]) -> None:
    """Call ``action`` with the instance after each call of a method."""
    original = getattr(cls, name)

    @functools.wraps(original)
    def called(self: object, *args: object, **kwargs: object) -> Any:
        value = original(self, *args, **kwargs)
        action(self)
        return value

    patches.set(cls, name, called)


def _parameters_of(one: Any) -> Iterator[list[Any]]:
    """Yield the parameters of an optimizer, or of one for this model.

    For a model, these are all of them, then those that are not frozen.
    """
    if hasattr(one, "param_groups"):
        yield [p for group in one.param_groups for p in group["params"]]
    else:
        yield list(one.parameters())
        yield [p for p in one.parameters() if p.requires_grad]


def _shapes(model: torch.nn.Module) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(p.shape) for p in model.parameters())


def _state(optimizer: torch.optim.Optimizer) -> list[Any]:
    """Return an optimizer's state in the order of its parameters.

    A missing entry equals one that is None.
    """
    state = optimizer.state
    held = (
        [state.get(p) for group in optimizer.param_groups for p in group["params"]]
        if hasattr(state, "get")
        else []
    )
    return [
        {name: _number(one[name]) for name in sorted(one, key=str) if one[name] is not None}
        if isinstance(one, dict)
        else {}
        for one in held
    ]


def _hyperparameters(group: Any) -> list[Any]:
    names = [
        name
        for name in group
        if name not in _NO_HYPERPARAMETERS and not isinstance(group[name], (bool, type(None)))
    ]
    return [[name, _number(group[name])] for name in sorted(names)]


def _number(value: object) -> Any:
    """Return a number as a float.

    Its type may change in a round trip through a file.
    """
    return (
        float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    )


def _plain(held: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers in a scheduler's state."""
    return {
        name: value
        for name, value in sorted(held.items())
        if not name.startswith("__")
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
    }


def _leaves(roots: object) -> list[Any]:
    """Return the tensors in which a backward pass accumulates gradients.

    They are in the order in which they are found.
    """
    roots = roots if isinstance(roots, (tuple, list)) else (roots,)
    pending: list[Any] = [
        root.grad_fn for root in roots if getattr(root, "grad_fn", None) is not None
    ]
    seen: set[Any] = set()
    found = []
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.append(leaf)
        pending += [following for following, _ in node.next_functions if following is not None]
    return found
