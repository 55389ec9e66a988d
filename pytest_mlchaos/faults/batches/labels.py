"""Read labels (classes, truth values, one-hot rows, regression targets), and replace them."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ...errors import PayloadMismatch
from .base import Batch
from .pytree import Leaf

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Labels"]


@dataclasses.dataclass(frozen=True)
class Labels:
    """A field of labels in a batch."""

    batch: Batch
    leaf: Leaf

    def refuse(self, problem: str) -> PayloadMismatch:
        """Return the error for labels that the fault cannot work on."""
        return self.batch.refuse(self.leaf, problem)

    @property
    def kind(self) -> str:
        """Return ``"class"``, ``"binary"``, ``"one-hot"`` or ``"real"``."""
        import numpy as np

        values = self.leaf.numpy()
        if values.dtype.kind == "c":
            raise self.refuse("holds complex numbers, which are not labels")
        truth = values.dtype.kind == "b" or bool(np.isin(values, (0, 1)).all())
        if truth and values.ndim == 2 and values.shape[1] > 1 and bool((values.sum(1) == 1).all()):
            return "one-hot"
        if values.dtype.kind in "iu":
            return "class"
        return "binary" if truth else "real"

    def places(self) -> Any:
        """Return the flat indices of the labels that can be wrong. For one-hot labels, these are
        the rows.
        """
        import numpy as np

        values = self.leaf.numpy()
        if self.kind == "one-hot":
            return np.arange(len(values))
        return np.flatnonzero(values >= 0) if self.kind == "class" else np.arange(values.size)

    def of_samples(self, samples: int) -> Any:
        """Return the class of each sample, as integers."""
        values, kind = self.leaf.numpy(), self.kind
        if kind == "one-hot":
            return values.argmax(1)
        flat = values.reshape(-1)
        if kind == "real" or len(flat) != samples:
            raise self.refuse(f"has no class for each of the {samples} samples")
        return flat.astype("int64")

    def disturbed(
        self, hit: Any, rng: np.random.Generator, classes: int | None, magnitude: float
    ) -> Any:
        """Return a copy of the labels in which these are wrong."""
        values, kind = self.leaf.numpy().copy(), self.kind
        flat = values.reshape(-1)
        if kind == "binary":
            flat[hit] = 1 - flat[hit] if values.dtype.kind != "b" else ~flat[hit]
        elif kind == "one-hot":
            old = values.argmax(1)[hit]
            values[hit] = 0
            values[hit, (old + rng.integers(1, values.shape[1], len(hit))) % values.shape[1]] = 1
        elif kind == "class":
            flat[hit] = self._others(flat[hit], rng, classes)
        else:
            flat[hit] += rng.standard_normal(len(hit)) * magnitude * self.leaf.spread()
        return self.leaf.with_values(values)

    def _others(self, old: Any, rng: np.random.Generator, classes: int | None) -> Any:
        """Return a different class for each class."""
        import numpy as np

        values = self.leaf.numpy()
        known = np.arange(classes) if classes is not None else np.unique(values[values >= 0])
        if len(known) < 2:
            raise self.refuse("holds a single class. Give the number of classes with classes=")
        if not np.isin(old, known).all():
            raise self.refuse(f"holds classes beyond classes={classes}")
        place = np.searchsorted(known, old)
        return known[(place + rng.integers(1, len(known), len(old))) % len(known)]

    def renamed(self, share: float, classes: int | None) -> Any:
        """Return a copy of the labels in which this share of the classes has the label of the next
        class.
        """
        import numpy as np

        values, kind = self.leaf.numpy().copy(), self.kind
        if kind == "real":
            return self.leaf.with_values(values + share * 2 * (values.mean() - values))
        if kind == "binary":
            return self.leaf.with_values(~values if values.dtype.kind == "b" else 1 - values)
        number = (
            values.shape[1]
            if kind == "one-hot"
            else classes
            if classes is not None
            else int(values.max()) + 1
        )
        if number < 2:
            raise self.refuse("holds a single class. Give the number of classes with classes=")
        if kind == "class" and values.max() >= number:
            raise self.refuse(f"holds classes beyond classes={classes}")
        meant = max(2, math.ceil(share * number))
        name = np.arange(number)
        name[:meant] = np.roll(name[:meant], -1)
        if kind == "one-hot":
            return self.leaf.with_values(values[:, np.argsort(name)])
        return self.leaf.with_values(np.where(values >= 0, name[np.maximum(values, 0)], values))
