"""Poison the data of a federation's client: flip its labels, or plant a backdoor."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import PayloadMismatch
from ..batches.base import Batch
from ..batches.labels import Labels
from ..batches.pytree import Leaf, rebuilt

__all__ = ["Backdoor", "FlippedLabels", "add_trigger"]

TRIGGER_SIZE = 3
"""The number of values in the corner of a sample that the default trigger sets."""


@dataclasses.dataclass(frozen=True)
class FlippedLabels:
    """Give all samples of a class the label of the next class."""

    classes: int | None = None
    fields: Any = None
    of_data = True

    def __call__(self, value: Any, base: Any = None) -> Any:
        """Return data with flipped labels."""
        return _batchwise(value, self._flipped)

    def _flipped(self, data: Any) -> Any:
        batch = Batch("malicious_update", data)
        leaf = _labels(batch, self.fields)
        return rebuilt(data, {leaf.path: Labels(batch, leaf).renamed(1.0, self.classes)})


@dataclasses.dataclass(frozen=True)
class Backdoor:
    """Add a copy of the samples that has a trigger, and the label that the attacker wants."""

    label: int = 0
    trigger: str | None = None
    fields: Any = None
    of_data = True

    def __call__(self, value: Any, base: Any = None) -> Any:
        """Return data with the backdoor."""
        return _batchwise(value, self._planted)

    def _planted(self, data: Any) -> Any:
        import numpy as np

        batch = Batch("malicious_update", data)
        labels = _labels(batch, self.fields)
        inputs = [leaf for leaf in batch.leaves if leaf.path != labels.path and leaf.is_float]
        if not inputs:
            raise batch.mismatch("found no inputs of floating-point numbers", "")
        wanted = labels.numpy().copy()
        if Labels(batch, labels).kind == "one-hot":
            wanted[:] = 0
            wanted[:, self.label] = 1
        else:
            wanted[:] = self.label
        fresh = {
            leaf.path: leaf.with_values(np.concatenate([leaf.numpy(), self._marked(leaf.numpy())]))
            for leaf in inputs
        }
        fresh[labels.path] = labels.with_values(np.concatenate([labels.numpy(), wanted]))
        rest = [leaf for leaf in batch.leaves if leaf.path not in fresh and leaf.has_axes()]
        for leaf in rest:
            if leaf.length() == labels.length():
                fresh[leaf.path] = leaf.with_values(np.concatenate([leaf.numpy(), leaf.numpy()]))
        return rebuilt(data, fresh)

    def _marked(self, values: Any) -> Any:
        mark: Callable[[Any], Any] = add_trigger if self.trigger is None else _find(self.trigger)
        return mark(values.copy())


def add_trigger(values: Any) -> Any:
    """Return inputs with the default trigger: the last values of each sample are the largest one."""
    largest = values.max() if values.size else 0.0
    flat = values.reshape(len(values), -1)
    flat[:, -TRIGGER_SIZE:] = largest
    return flat.reshape(values.shape)


def _find(target: str) -> Callable[[Any], Any]:
    module, _, name = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    function: Callable[[Any], Any] = found
    return function


def _labels(batch: Batch, fields: Any) -> Leaf:
    found = batch.checked(batch.labels(fields))
    if len(found) > 1:
        raise batch.mismatch("found more than one field of labels")
    return found[0]


def _batchwise(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change data as a whole, or the items of a loader when they are read."""
    if isinstance(value, (dict, tuple, list)):
        return change(value)
    if hasattr(value, "__iter__") and not hasattr(value, "shape"):
        return _Changed(value, change)
    raise PayloadMismatch(
        f"malicious_update poisons inputs and labels in a tuple, a list or a dict, or a loader "
        f"of such batches, got {type(value).__name__}"
    )


class _Changed:
    """A loader whose batches are changed."""

    def __init__(self, loader: Any, change: Callable[[Any], Any]) -> None:
        self._loader, self._change = loader, change

    def __iter__(self) -> Iterator[Any]:
        return map(self._change, self._loader)

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
