"""Faults of the data in batches."""

from __future__ import annotations

import math
from typing import Any, Literal

from ..core.faults import Fault, is_drawn, register
from ..core.sites import Visit
from ..core.values import check_share, shown
from ..errors import BadArgument, PayloadMismatch
from ._leaves import Leaf, describe, leaves, rebuilt

__all__ = ["CorruptBatch"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

_LABEL_NAMES = ("labels", "label", "targets", "target", "y")
_MAGNITUDE = {"noise": 1.0, "scale": 1000.0}
_CONSTANTS = {"nan": math.nan, "inf": math.inf, "zero": 0.0}
_FLOATS_ONLY = ("nan", "inf", "noise")


@register
class CorruptBatch(Fault):
    """A batch reaches the loop with broken values.

    ``kind``: ``"nan"``, ``"inf"``; ``"zero"``; ``"noise"`` (Gaussian, ``magnitude`` times the field's own standard deviation, 1 by
    default); ``"scale"`` (times ``magnitude``, 1000 by default: a wrong unit); ``"flip_sign"``; ``"shuffle_labels"`` (labels change places
    within the batch). ``fraction``: the share of a field's elements that is hit, at least one (for ``"shuffle_labels"``: of the samples, at
    least two). ``fields``: names, positions or dotted paths (``"inputs.pixels"``) of the fields to hit; without it all floating-point
    fields, and for labels the field that is called so, or else the last one.

    Batches may be tensors, NumPy arrays, and dicts, tuples, lists and dataclasses of them, nested. The loop gets a
    changed copy; the original objects are never modified, and fields that are not hit are the same objects.

    Imitates: a corrupt shard, a failed decoder, a sensor that drops out, a join that mixes up labels.

    Fidelity: elements are hit at random and independently; a real defect is often a block (a row, a channel).
    """

    site = "data.batch"
    kind: Literal["nan", "inf", "zero", "noise", "scale", "flip_sign", "shuffle_labels"] = "nan"
    fraction: float = 1.0
    fields: Any = None
    magnitude: float | None = None

    def check(self) -> None:
        """Refuse a share outside 0 to 1, a magnitude that the kind has no use for, and odd fields."""
        if not is_drawn(self.fraction):
            check_share(self.name, "fraction", self.fraction)
        if self.magnitude is not None and not is_drawn(self.kind) and self.kind not in _MAGNITUDE:
            raise BadArgument(f"corrupt_batch: kind={self.kind!r} takes no magnitude, but got {shown(self.magnitude)}")
        if self.fields is not None and not is_drawn(self.fields):
            wanted = [self.fields] if isinstance(self.fields, (str, int)) else list(self.fields)
            if not wanted or not all(isinstance(name, (str, int)) and not isinstance(name, bool) for name in wanted):
                raise BadArgument(f"corrupt_batch: expected fields to be names or positions but got {shown(self.fields)}")
            object.__setattr__(self, "fields", tuple(wanted) if len(wanted) > 1 else wanted[0])

    def apply(self, visit: Visit) -> Any:
        """Hand on a changed copy."""
        import numpy as np

        found = list(leaves(visit.payload))
        chosen = self._chosen(found, visit.payload)
        rng = np.random.default_rng(visit.seed)
        change = _shuffled if self.kind == "shuffle_labels" else _corrupted
        hits = {leaf.path: change(self, leaf, rng) for leaf in chosen}
        visit.note(kind=self.kind, fields={".".join(map(str, leaf.path)) or "batch": leaf.shape_and_type() for leaf in chosen})
        return rebuilt(visit.payload, hits)

    def _chosen(self, found: list[Leaf], payload: Any) -> list[Leaf]:
        if self.fields is not None:
            wanted = self.fields if isinstance(self.fields, tuple) else (self.fields,)
            chosen = [leaf for name in wanted for leaf in self._named(name, found, payload)]
        elif self.kind == "shuffle_labels":
            chosen = _labels(found)
        else:
            chosen = [leaf for leaf in found if leaf.is_float and leaf.size]
        if not chosen:
            what = "labels" if self.kind == "shuffle_labels" else "floating-point values"
            raise PayloadMismatch(
                f"corrupt_batch(kind={self.kind!r}) found no {what} in the batch {describe(payload)}; name them with fields="
            )
        for leaf in chosen:
            self._check_leaf(leaf, payload)
        return chosen

    def _named(self, name: str | int, found: list[Leaf], payload: Any) -> list[Leaf]:
        path = tuple(map(str, name.split("."))) if isinstance(name, str) else (str(name),)
        matching = [leaf for leaf in found if tuple(map(str, leaf.path))[: len(path)] == path]
        if not matching:
            raise PayloadMismatch(f"corrupt_batch: there is no field {name!r} with numbers in the batch {describe(payload)}")
        return matching

    def _check_leaf(self, leaf: Leaf, payload: Any) -> None:
        problem = leaf.problem()
        if problem is None and self.kind in _FLOATS_ONLY and not leaf.is_float:
            problem = "is not floating-point"
        if problem is None and not leaf.size:
            problem = "is empty"
        if problem is not None:
            name = ".".join(map(str, leaf.path)) or "batch"
            raise PayloadMismatch(
                f"corrupt_batch(kind={self.kind!r}) cannot change the field {name!r} of the batch {describe(payload)}: it {problem}"
            )


def _labels(found: list[Leaf]) -> list[Leaf]:
    named = [leaf for leaf in found if leaf.path and str(leaf.path[-1]).lower() in _LABEL_NAMES]
    if named:
        return named
    return found[-1:] if len(found) > 1 else []


def _corrupted(fault: CorruptBatch, leaf: Leaf, rng: Any) -> Any:
    """A copy of the leaf with the share of its elements changed."""
    import numpy as np

    hit = max(1, round(fault.fraction * leaf.size))
    places = np.arange(leaf.size) if hit == leaf.size else np.sort(rng.choice(leaf.size, hit, replace=False))
    if fault.kind in _CONSTANTS:
        return leaf.changed(places, lambda _: _CONSTANTS[fault.kind])
    if fault.kind == "flip_sign":
        return leaf.changed(places, lambda old: -old)
    magnitude = fault.magnitude if fault.magnitude is not None else _MAGNITUDE[fault.kind]
    if fault.kind == "scale":
        return leaf.changed(places, lambda old: old * magnitude)
    noise = leaf.like(rng.standard_normal(hit) * magnitude * leaf.spread())
    return leaf.changed(places, lambda old: old + noise)


def _shuffled(fault: CorruptBatch, leaf: Leaf, rng: Any) -> Any:
    """A copy whose first axis has the chosen samples in another order: each of them moves."""
    import numpy as np

    samples = leaf.length()
    if samples < 2:
        raise PayloadMismatch(f"corrupt_batch(kind='shuffle_labels') needs two samples or more, but got {leaf.shape_and_type()}")
    hit = max(2, round(fault.fraction * samples))
    places = np.sort(rng.choice(samples, hit, replace=False))
    order = np.arange(samples)
    order[places] = np.roll(places, int(rng.integers(1, hit)))
    return leaf.reordered(order)
