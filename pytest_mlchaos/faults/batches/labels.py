"""Labels: what they are (classes, truth values, one-hot rows, targets of a regression), and other ones in their place."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ...errors import PayloadMismatch
from .base import Batch
from .pytree import Leaf

__all__ = ["Labels"]


@dataclasses.dataclass(frozen=True)
class Labels:
    """A field of labels in a batch."""

    batch: Batch
    leaf: Leaf

    def refuse(self, problem: str) -> PayloadMismatch:
        """The error that these labels cannot be worked on."""
        return self.batch.refuse(self.leaf, problem)

    @property
    def kind(self) -> str:
        """``"class"``, ``"binary"``, ``"one-hot"`` or ``"real"``."""
        import numpy as np

        values = self.leaf.numpy()
        if values.dtype.kind == "c":
            raise self.refuse("holds complex numbers, which are no labels")
        truth = values.dtype.kind == "b" or bool(np.isin(values, (0, 1)).all())
        if truth and values.ndim == 2 and values.shape[1] > 1 and bool((values.sum(1) == 1).all()):
            return "one-hot"
        if values.dtype.kind in "iu":
            return "class"
        return "binary" if truth else "real"

    def places(self) -> Any:
        """The flat places of the labels that can be wrong; of one-hot rows, the rows."""
        import numpy as np

        values = self.leaf.numpy()
        if self.kind == "one-hot":
            return np.arange(len(values))
        return np.flatnonzero(values >= 0) if self.kind == "class" else np.arange(values.size)

    def of_samples(self, samples: int) -> Any:
        """The class of each sample, as integers."""
        values, kind = self.leaf.numpy(), self.kind
        if kind == "one-hot":
            return values.argmax(1)
        flat = values.reshape(-1)
        if kind == "real" or len(flat) != samples:
            raise self.refuse(f"has no class for each of the {samples} samples")
        return flat.astype("int64")

    def disturbed(self, hit: Any, rng: Any, classes: int | None, magnitude: float) -> Any:
        """Copies of the labels of which these are wrong."""
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

    def _others(self, old: Any, rng: Any, classes: int | None) -> Any:
        """For each class another one."""
        import numpy as np

        values = self.leaf.numpy()
        known = np.arange(classes) if classes is not None else np.unique(values[values >= 0])
        if len(known) < 2:
            raise self.refuse("holds a single class; say how many there are with classes=")
        if not np.isin(old, known).all():
            raise self.refuse(f"holds classes beyond classes={classes}")
        place = np.searchsorted(known, old)
        return known[(place + rng.integers(1, len(known), len(old))) % len(known)]

    def renamed(self, share: float, classes: int | None) -> Any:
        """Copies of the labels in which each of that share of the classes is called as the next of them."""
        import numpy as np

        values, kind = self.leaf.numpy().copy(), self.kind
        if kind == "real":
            return self.leaf.with_values(values + share * 2 * (values.mean() - values))
        if kind == "binary":
            return self.leaf.with_values(~values if values.dtype.kind == "b" else 1 - values)
        number = values.shape[1] if kind == "one-hot" else classes if classes is not None else int(values.max()) + 1
        if number < 2:
            raise self.refuse("holds a single class; say how many there are with classes=")
        if kind == "class" and values.max() >= number:
            raise self.refuse(f"holds classes beyond classes={classes}")
        meant = max(2, math.ceil(share * number))
        name = np.arange(number)
        name[:meant] = np.roll(name[:meant], -1)
        if kind == "one-hot":
            return self.leaf.with_values(values[:, np.argsort(name)])
        return self.leaf.with_values(np.where(values >= 0, name[np.maximum(values, 0)], values))
