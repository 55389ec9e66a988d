"""Define faults of a batch's content: wrong labels, missing classes, shifted distributions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...core.faults import is_drawn, register
from ...core.sites import Visit
from ...core.validation import check_share, format_value
from ...errors import BadArgument
from ..rows import RowFault
from .base import Batch, field_name, wanted_fields
from .labels import Labels
from .pytree import Leaf, rebuilt

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ClassImbalance", "DistributionShift", "LabelNoise"]
LAYER = "Batches"


def _check_labels(fault: Any) -> None:
    """Check the parameters ``fields`` and ``classes``."""
    object.__setattr__(fault, "fields", wanted_fields(fault.name, fault.fields))
    classes = getattr(fault, "classes", None)
    if classes is not None and not is_drawn(classes) and classes < 2:
        raise BadArgument(
            f"{fault.name}: classes must be a number of classes, 2 or more, got "
            f"{format_value(classes)}"
        )


def _labels(fault: Any, batch: Batch) -> Leaf:
    """Return the one field of labels that assigns samples to classes."""
    found = batch.checked(batch.labels(fault.fields))
    if len(found) > 1:
        raise batch.mismatch("found more than one field of labels")
    return found[0]


def _replace_leaves(batch: Batch, chosen: list[Leaf], fresh: dict[Any, Any]) -> Any:
    """Return the batch with replaced fields. Raise an error if nothing would change."""
    if all(Leaf((), fresh[leaf.path]).same_bits(leaf) for leaf in chosen):
        raise batch.refuse(chosen[0], "already has these values, so nothing was changed")
    return rebuilt(batch.payload, fresh)


@register
class LabelNoise(RowFault):
    """Some labels of a batch are wrong.

    Integers become a different class, each equally likely. Negative ones mean "to be ignored", and
    stay. Truth values and floats that are all 0 or 1 are flipped, and one-hot rows have their 1
    elsewhere. Other floats (targets of a regression) get Gaussian noise.

    Args:
        fraction: The share of wrong labels, at least one.
        fields: Names, positions or dotted paths of the labels. Without it, the field called
            ``label``, ``labels``, ``target``, ``targets`` or ``y``, or else those with "label" or
            "target" in their name (``label_ids``). Otherwise the last field, if it looks like
            labels. By name: whole numbers or truth values, one for each sample, or one-hot rows. By
            position: anything but an array of the same shape and type as the others. If no field
            does, the batch is refused.
        classes: The number of classes. Without it, the classes in the batch.
        magnitude: For targets of a regression, the noise in standard deviations of the targets.

    Imitates: annotators that disagree, labels from a weak heuristic, a join that is off by some
    rows.

    Fidelity: noise is symmetric and independent of the features. People confuse classes that look
    alike.

    Source: symmetric noise as in Natarajan et al., Learning with Noisy Labels, NeurIPS 2013

    Example: ``@chaos.label_noise(fraction=0.2, at=0)``
    """

    site = "data.batch"
    scales: ClassVar = {"fraction": (0.02, 0.05, 0.1, 0.3, 0.6)}
    fraction: float = 0.1
    fields: Any = None
    classes: int | None = None
    magnitude: float = 1.0

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.fraction):
            check_share(self.name, "fraction", self.fraction)
        if not is_drawn(self.magnitude) and not 0 < self.magnitude < math.inf:
            raise BadArgument(
                f"label_noise: magnitude must be above 0, got {format_value(self.magnitude)}"
            )
        _check_labels(self)

    def apply(self, visit: Visit) -> Any:
        """Return a copy with changed labels."""
        import numpy as np

        batch = Batch(self.name, visit.payload)
        chosen = batch.checked(batch.labels(self.fields))
        rng = np.random.default_rng(visit.seed)
        hits = {leaf.path: self._noisy(Labels(batch, leaf), rng) for leaf in chosen}
        visit.note(fields={field_name(leaf): leaf.shape_and_type() for leaf in chosen})
        return _replace_leaves(batch, chosen, hits)

    def _noisy(self, labels: Labels, rng: np.random.Generator) -> Any:
        places = labels.places()
        if not len(places):
            raise labels.refuse("holds only negative labels, which are ignored")
        count = max(1, round(self.scaled("fraction") * len(places)))
        hit = places if count == len(places) else rng.choice(places, count, replace=False)
        return labels.disturbed(hit, rng, self.classes, self.magnitude)


@register
class ClassImbalance(RowFault):
    """A class is nearly absent from a batch: samples of other classes are repeated in its place.

    Labels are integers, truth values or one-hot rows, one for each sample. Samples are recognised
    as by ``short_batch``. A batch without the class counts no strike.

    Args:
        keep: The share of its samples that stay.
        label: The number of the class. Without it, one that is in the batch, chosen at random.
        fields: The field of labels, by name, position or dotted path. Without it, found as by
            ``label_noise``.

    Imitates: a filter that removes what matters, rare events that a sampled log lost, a region that
    stops reporting.

    Fidelity: batches keep their size, so samples of other classes come more than once. Real data
    would have different ones.

    Example: ``@chaos.class_imbalance(label=1, keep=0.0, at=chaos.EVERY)``
    """

    site = "data.batch"
    compared = True
    scales: ClassVar = {"keep": (0.5, 0.25, 0.1, 0.05, 0.0)}
    keep: float = 0.05
    label: int | None = None
    fields: Any = None

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.keep) and not 0 <= self.keep < 1:
            raise BadArgument(
                f"class_imbalance: keep must be a share from 0 to below 1, got "
                f"{format_value(self.keep)}"
            )
        _check_labels(self)

    def apply(self, visit: Visit) -> Any:
        """Return a copy in which samples of other classes replace those of the label."""
        import numpy as np

        batch = Batch(self.name, visit.payload)
        samples = batch.samples()
        classes = Labels(batch, _labels(self, batch)).of_samples(samples)
        rng = np.random.default_rng(visit.seed)
        label = int(rng.choice(np.unique(classes))) if self.label is None else self.label
        its, others = np.flatnonzero(classes == label), np.flatnonzero(classes != label)
        if not len(its):
            visit.skip()
            return None
        if not len(others):
            raise batch.mismatch("found no samples of a different class", "")
        replaced = rng.permutation(its)[min(len(its) - 1, round(self.scaled("keep") * len(its))) :]
        order = np.arange(samples)
        order[replaced] = rng.choice(others, len(replaced))
        visit.note(samples=samples, replaced=len(replaced))
        return batch.taken(order)


@register
class DistributionShift(RowFault):
    """Batches come from a different distribution than before.

    A shift lasts, so use ``at=range(50, 100)`` or ``chaos.EVERY``. All strikes move in the same
    direction.

    Args:
        kind: ``"covariate"``: the features move up. ``"label"``: the frequencies of the classes
            change. The samples of the batch are drawn again, with replacement. ``"concept"``: the
            same features get different labels. Each hit class is called as the next one, and
            targets of a regression are mirrored at their mean.
        magnitude: For ``"covariate"``, the distance in standard deviations of the field, measured
            at the first strike. For ``"label"``, each class becomes ``exp(magnitude)`` times rarer
            than the class before it. For ``"concept"``, the share of the classes, at most 1, and at
            least two classes.
        fields: For ``"covariate"``, the features. Without it, all floating-point fields but the
            labels. For the other kinds, the labels.
        classes: The number of classes. Without it, up to the highest one in the batch.

    Imitates: a new season, the scanner of a different hospital, a campaign that brings new
    customers, a label whose definition changes.

    Fidelity: only the means shift, and suddenly. Correlations and tails stay. Batches keep their
    size, so a label shift repeats samples.

    Source: the three kinds as in Moreno-Torres et al., A unifying view on dataset shift in
    classification, Pattern Recognition 45, 2012

    Example: ``@chaos.distribution_shift(kind="covariate", magnitude=2.0, at=chaos.EVERY)``
    """

    site = "data.batch"
    compared = True
    scales: ClassVar = {"magnitude": (0.1, 0.25, 0.5, 1.0, 2.0)}
    kind: Literal["covariate", "label", "concept"] = "covariate"
    magnitude: float = 1.0
    fields: Any = None
    classes: int | None = None

    def check(self) -> None:
        """Check the parameters."""
        drawn = is_drawn(self.magnitude) or is_drawn(self.kind)
        if not drawn and (not math.isfinite(self.magnitude) or self.magnitude == 0):
            raise BadArgument(
                f"distribution_shift: magnitude must be a number other than 0, got "
                f"{format_value(self.magnitude)}"
            )
        if not drawn and self.kind == "concept" and not 0 < self.magnitude <= 1:
            raise BadArgument(
                f"distribution_shift: kind='concept' takes a magnitude above 0 and up to 1, got "
                f"{format_value(self.magnitude)}"
            )
        _check_labels(self)

    def apply(self, visit: Visit) -> Any:
        """Return a copy with shifted values."""
        batch = Batch(f"distribution_shift(kind={self.kind!r})", visit.payload)
        visit.note(kind=self.kind)
        magnitude = self.scaled("magnitude")
        if self.kind == "covariate":
            chosen = self._features(batch)
            return _replace_leaves(
                batch, chosen, {leaf.path: self._moved(visit, leaf, magnitude) for leaf in chosen}
            )
        if self.kind == "label":
            return self._resampled(visit, batch, magnitude)
        chosen = batch.checked(batch.labels(self.fields))
        return _replace_leaves(
            batch,
            chosen,
            {
                leaf.path: Labels(batch, leaf).renamed(min(1.0, magnitude), self.classes)
                for leaf in chosen
            },
        )

    def _features(self, batch: Batch) -> list[Leaf]:
        chosen = batch.checked(batch.floats(self.fields))
        if self.fields is None and len(batch.leaves) > 1:
            labels = {leaf.path for leaf in batch.told_labels()}
            chosen = [leaf for leaf in chosen if leaf.path not in labels] or chosen
        for leaf in chosen:
            if not leaf.is_float:
                raise batch.refuse(leaf, "is not floating-point")
        return chosen

    def _moved(self, visit: Visit, leaf: Leaf, magnitude: float) -> Any:
        import numpy as np

        spread = visit.memory.setdefault(leaf.path, leaf.spread())
        return leaf.changed(np.arange(leaf.size), lambda old: old + magnitude * spread)

    def _resampled(self, visit: Visit, batch: Batch, magnitude: float) -> Any:
        import numpy as np

        samples = batch.samples()
        classes = Labels(batch, _labels(self, batch)).of_samples(samples)
        weights = np.exp(
            -magnitude * (classes - (classes.min() if magnitude > 0 else classes.max()))
        )
        if len(np.unique(classes)) < 2:
            raise batch.mismatch("found a single class, whose share cannot change,", "")
        order = np.sort(
            np.random.default_rng(visit.seed).choice(samples, samples, p=weights / weights.sum())
        )
        return batch.taken(order)
