"""Digest the state of a rank after each step: parameters, optimizer state, buffers, generators.

No collective is called: of a sharded tensor, the rank's own piece is digested.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..engine.digests import digest, random_states
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches
from ..sites.torch_state import Models
from .step_states import BUFFERS, GENERATORS, Key, StepStates

if TYPE_CHECKING:
    import torch

__all__ = ["watch_states"]

MAX_DIGESTS = 1 << 19
"""The number of digests that a rank keeps, 4 MB."""


@contextlib.contextmanager
def watch_states(models: Models) -> Iterator[StepStates]:
    """Digest the state after each optimizer step.

    Args:
        models: The models that run, for the names of their tensors.
    """
    watcher = _Watcher(models)
    with Patches() as patches:
        when_imported("torch", patches, lambda: watcher.install(patches))
        try:
            yield watcher.states
        finally:
            watcher.finish()


class _Watcher:
    def __init__(self, models: Models) -> None:
        self.states = StepStates()
        self._models = models
        self._names: dict[int, str] = {}
        self._optimizers: dict[int, Any] = {}
        self._kept = 0

    def install(self, patches: Patches) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        patches.on_undo(
            register_optimizer_step_post_hook(lambda optimizer, *_: self._after(optimizer)).remove
        )

    def finish(self) -> None:
        """Record the state at the end, of all optimizers."""
        if self._optimizers:
            self._record(list(self._optimizers.values()))

    def _after(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizers[id(optimizer)] = optimizer
        self._record([optimizer])

    def _record(self, optimizers: list[Any]) -> None:
        if not self.states.is_complete:
            return
        found = {
            **{key: value for one in optimizers for key, value in self._trained(one)},
            **dict(self._others()),
        }
        self._kept += len(found)
        if self._kept > MAX_DIGESTS:
            self.states.is_complete = False
            return
        layout = tuple(found)
        if layout not in self.states.layouts:
            self.states.layouts.append(layout)
        self.states.steps.append((self.states.layouts.index(layout), array("Q", found.values())))

    def _trained(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[Key, int]]:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if any(id(parameter) not in self._names for parameter in parameters):
            self._find_names()
        for number, parameter in enumerate(parameters):
            name = self._names.get(id(parameter), f"parameter {number}")
            yield _digested("parameters", name, parameter)
            state = optimizer.state.get(parameter)
            for part in sorted(state, key=str) if isinstance(state, Mapping) else ():
                yield _digested("optimizer state", f"{part} of {name}", state[part])

    def _others(self) -> Iterator[tuple[Key, int]]:
        for model in self._models:
            for name, buffer in model.named_buffers():
                yield _digested(BUFFERS, _plain_name(name), buffer)
        for name, state in random_states():
            yield Key(GENERATORS, name), _number(state)

    def _find_names(self) -> None:
        for model in self._models:
            for name, parameter in model.named_parameters():
                self._names.setdefault(id(parameter), _plain_name(name))


def _plain_name(name: str) -> str:
    """Return the name in the user's model, which a wrapper such as DDP holds as ``module``."""
    return name.removeprefix("module.")


def _digested(component: str, name: str, value: Any) -> tuple[Key, int]:
    piece = ""
    if hasattr(value, "placements"):
        piece = _piece(value)
        value = value.to_local()
    return Key(component, name, piece), _number(digest(value))


def _piece(tensor: Any) -> str:
    """Describe which piece of a sharded tensor this rank holds. Copies are one piece."""
    coordinate = tensor.device_mesh.get_coordinate() or ()
    return str(
        [
            place
            for place, placement in zip(coordinate, tensor.placements, strict=True)
            if not placement.is_replicate()
        ]
    )


def _number(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")
