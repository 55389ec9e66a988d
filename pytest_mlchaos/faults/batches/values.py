"""Define faults of the values in batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.validation import Finite, check_share, format_value
from ...errors import BadArgument, PayloadMismatch
from ..rows import RowFault
from .base import Batch, field_name, wanted_fields
from .pytree import Leaf, rebuilt

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CorruptBatch"]
LAYER = "Batches"

_MAGNITUDE = {"noise": 1.0, "scale": 1000.0}
_CONSTANTS = {"nan": math.nan, "inf": math.inf, "zero": 0.0}
_FLOATS_ONLY = ("nan", "inf", "noise")


@register
class CorruptBatch(RowFault):
    """A batch reaches the loop with broken values.

    Batches may be tensors, NumPy arrays, and dicts, tuples, lists and dataclasses of them, nested.
    They may also be records: dicts and lists of single numbers, where a list of dicts is a table of
    columns. The loop gets a changed copy. The original objects are never modified, and fields that
    are not hit are the same objects.

    Args:
        kind: ``"nan"``, ``"inf"``, ``"zero"``, ``"saturate"`` (the greatest value of the field, as
            from a sensor at its limit), ``"noise"`` (Gaussian), ``"scale"`` (a wrong unit),
            ``"flip_sign"``, or ``"shuffle_labels"`` (labels change places along the first axis of
            their array: within the batch, or within the sample if each sample has an array of
            labels, as in detection).
        fraction: The share of the elements, samples or channels of a field that is hit, at least
            one. For ``"shuffle_labels"``, the share of the samples, at least two.
        fields: Names, positions or dotted paths (``"inputs.pixels"``) of the fields to hit. Without
            it, all floating-point fields. Labels are found as by ``label_noise``.
        magnitude: For ``"noise"``, the standard deviation, in standard deviations of the field (1
            without it). For ``"scale"``, the factor (1000 without it).
        pattern: The place: ``"elements"`` (anywhere), ``"samples"`` (whole rows of the first axis,
            or whole items of a list of samples, recognised as by ``short_batch``), ``"channels"``
            (whole slices of the second axis: channels of images, columns of features), or
            ``"block"`` (one stretch of memory).

    Imitates: a corrupt shard, a failed decoder, a sensor or a channel that drops out, a join that
    mixes up labels.

    Fidelity: the hit elements are drawn anew at each strike. For a channel that stays dead, use
    ``at=chaos.EVERY`` with ``fraction=1`` of one field.

    Example: ``@chaos.corrupt_batch(kind="nan", fraction=0.1, at=3)``
    """

    changes_result = True
    member_of: ClassVar = {"bad_data": 22}
    tried_as: ClassVar = ({"kind": "nan"},)
    site = "data.batch"
    scales: ClassVar = {"fraction": (0.01, 0.05, 0.2, 0.5, 1.0)}
    kind: Literal[
        "nan", "inf", "zero", "saturate", "noise", "scale", "flip_sign", "shuffle_labels"
    ] = "nan"
    fraction: float = 1.0
    fields: Any = None
    magnitude: Finite | None = None
    pattern: Literal["elements", "samples", "channels", "block"] = "elements"

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.fraction):
            check_share(self.name, "fraction", self.fraction)
        if self.magnitude is not None and not is_drawn(self.kind) and self.kind not in _MAGNITUDE:
            raise BadArgument(
                f"corrupt_batch: kind={self.kind!r} takes no magnitude, got "
                f"{format_value(self.magnitude)}"
            )
        if (
            self.kind == "shuffle_labels"
            and not is_drawn(self.pattern)
            and self.pattern != "elements"
        ):
            raise BadArgument(
                f"corrupt_batch: kind='shuffle_labels' moves whole samples and takes no pattern=, "
                f"got {self.pattern!r}"
            )
        object.__setattr__(self, "fields", wanted_fields(self.name, self.fields))

    @property
    def gradual(self) -> Mapping[str, float]:  # type: ignore[override]
        """Let the magnitude grow, too. A factor of 1 changes nothing."""
        return {"fraction": 0.0, "magnitude": 1.0 if self.kind == "scale" else 0.0}

    def possible(self, visit: Visit) -> bool:
        """Return False for a plain record in a composite fault, because stores return no NaN.

        A program may take it for a number, and shows it in its result. ``missing_values`` gives
        what stores return.
        """
        if "kind" not in self._searched:
            return True
        return any(not leaf.record for leaf in Batch(self.name, visit.payload).leaves)

    def apply(self, visit: Visit) -> Any:
        """Return a changed copy."""
        import numpy as np

        batch = Batch(f"corrupt_batch(kind={self.kind!r})", visit.payload)
        chosen = self._chosen(batch)
        rng = np.random.default_rng(visit.seed)
        if self.pattern == "samples":
            chosen, change = self._in_samples(batch, chosen, rng)
        else:
            change = _shuffle if self.kind == "shuffle_labels" else _corrupt
        hits = {leaf.path: change(self, batch, leaf, rng) for leaf in chosen}
        if all(Leaf((), hits[leaf.path]).same_bits(leaf) for leaf in chosen):
            if self.scaled("fraction") == 1 and self.kind != "shuffle_labels":
                raise batch.refuse(chosen[0], "already has these values, so nothing was changed")
            visit.skip()  # the few elements that were drawn have these values already
            return None
        visit.note(
            kind=self.kind, fields={field_name(leaf): leaf.shape_and_type() for leaf in chosen}
        )
        return rebuilt(visit.payload, hits)

    def _chosen(self, batch: Batch) -> list[Leaf]:
        if self.kind == "shuffle_labels":
            return batch.checked(batch.labels(self.fields))
        chosen = batch.checked(batch.floats(self.fields))
        for leaf in chosen:
            if self.kind in _FLOATS_ONLY and not leaf.is_float:
                raise batch.refuse(leaf, "is not floating-point")
            if self.kind in _CONSTANTS and not leaf.holds(_CONSTANTS[self.kind]):
                raise batch.refuse(leaf, f"is of a type that has no {self.kind}")
            if self.kind == "saturate" and leaf.is_complex:
                raise batch.refuse(leaf, "holds complex numbers, which have no greatest value")
        return chosen

    def _in_samples(
        self, batch: Batch, chosen: list[Leaf], rng: np.random.Generator
    ) -> tuple[list[Leaf], Any]:
        """Return the arrays to change, and a function that changes them, if whole samples are
        struck.

        In a list of samples, these are all arrays of some samples.
        """
        import numpy as np

        held = {leaf.path: batch.places(leaf) for leaf in chosen}
        lists = {field.path: field for field, place in held.values() if place is not None}
        drawn = {
            path: set(_share(self, field.length, rng).tolist()) for path, field in lists.items()
        }
        hit = [
            leaf
            for leaf in chosen
            if held[leaf.path][1] is None or held[leaf.path][1] in drawn[held[leaf.path][0].path]
        ]
        if not hit:
            raise batch.mismatch("found no numbers in the samples that were drawn", "")

        def change(fault: CorruptBatch, batch: Batch, leaf: Leaf, rng: np.random.Generator) -> Any:
            whole = held[leaf.path][1] is not None
            return _change(
                fault,
                leaf,
                np.arange(leaf.size) if whole else _places(fault, batch, leaf, rng),
                rng,
            )

        return hit, change


def _corrupt(fault: CorruptBatch, batch: Batch, leaf: Leaf, rng: np.random.Generator) -> Any:
    """Return a copy of the leaf with a share of its elements changed."""
    return _change(fault, leaf, _places(fault, batch, leaf, rng), rng)


def _change(
    fault: CorruptBatch, leaf: Leaf, places: np.ndarray[Any, Any], rng: np.random.Generator
) -> Any:
    """Return a copy of the leaf with these elements changed."""
    if fault.kind in _CONSTANTS:
        return leaf.changed(places, lambda _: _CONSTANTS[fault.kind])
    if fault.kind == "saturate":
        greatest = (leaf.value.float() if leaf.is_narrow else leaf.value).max()
        return leaf.changed(places, lambda _: greatest)
    if fault.kind == "flip_sign":
        return leaf.changed(places, lambda old: -old)
    magnitude = fault.magnitude if fault.magnitude is not None else _MAGNITUDE[fault.kind]
    if fault.kind == "scale":
        return leaf.changed(places, lambda old: old * magnitude)
    noise = rng.standard_normal(len(places)) * magnitude * leaf.spread()
    return leaf.changed(places, lambda old: old + Leaf((), old).like(noise))


def _places(fault: CorruptBatch, batch: Batch, leaf: Leaf, rng: np.random.Generator) -> Any:
    """Return the flat indices of the struck elements, in order."""
    import numpy as np

    fraction, shape = fault.scaled("fraction"), tuple(leaf.value.shape)
    if fault.pattern == "block":
        length = max(1, round(fraction * leaf.size))
        return int(rng.integers(leaf.size - length + 1)) + np.arange(length)
    axis = {"elements": None, "samples": 0, "channels": 1}[fault.pattern]
    if axis is not None and len(shape) <= axis:
        raise batch.refuse(leaf, f"has no axis of {fault.pattern}")
    count = leaf.size if axis is None else shape[axis]
    chosen = _share(fault, count, rng)
    return (
        chosen
        if axis is None
        else np.take(np.arange(leaf.size).reshape(shape), chosen, axis).ravel()
    )


def _share(fault: CorruptBatch, count: int, rng: np.random.Generator) -> Any:
    """Return the indices of the share of ``count`` things that is struck, in order."""
    import numpy as np

    hit = max(1, round(fault.scaled("fraction") * count))
    return np.arange(count) if hit == count else np.sort(rng.choice(count, hit, replace=False))


def _shuffle(fault: CorruptBatch, batch: Batch, leaf: Leaf, rng: np.random.Generator) -> Any:
    """Return a copy in which the chosen samples of the first axis have all moved."""
    import numpy as np

    samples = leaf.length()
    if samples < 2:
        raise PayloadMismatch(
            f"corrupt_batch(kind='shuffle_labels') needs two samples or more, got "
            f"{leaf.shape_and_type()}"
        )
    hit = max(2, round(fault.scaled("fraction") * samples))
    places = np.sort(rng.choice(samples, hit, replace=False))
    order = np.arange(samples)
    order[places] = np.roll(places, int(rng.integers(1, hit)))
    return leaf.reordered(order)
