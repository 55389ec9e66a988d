"""Compare the answers of two versions, metric by metric: the default analysis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ...core.rollouts import Watched
from .options import Options
from .sequential import Sample, Verdict, compare

__all__ = ["Comparison", "score_of"]

RELATIVE_TOLERANCE = 1e-6


class Comparison:
    """The observations of both versions since the deployment, for each metric."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.samples: dict[Watched, tuple[Sample, Sample]] = {
            name: (Sample(), Sample()) for name in options.watched
        }

    def add(self, is_new: bool, *, failed: bool, wrong: float, slow: bool) -> None:
        """Add the answer of one version. A failed one is not compared with its label."""
        for name, samples in self.samples.items():
            if name == "errors":
                samples[is_new].add(failed)
            elif name == "latency":
                samples[is_new].add(slow)
            elif not failed:
                samples[is_new].add(wrong)

    @property
    def seen(self) -> int:
        """Return the number of answers of the new version."""
        return max((new.number for _, new in self.samples.values()), default=0)

    def verdict(self) -> tuple[Verdict, str]:
        """Return the verdict, and the metric that decided it.

        One metric that fails is enough. All must pass.
        """
        options, found = self._options, {}
        for name, (old, new) in self.samples.items():
            found[name] = compare(
                old,
                new,
                margin=options.margin,
                false_rollbacks=options.false_rollbacks / len(self.samples),
                false_promotions=options.false_promotions,
            )
        for verdict in ("fail", "inconclusive"):
            for name, one in found.items():
                if one == verdict:
                    return one, name
        return "pass", ""

    def excess(self, metric: str) -> float:
        """Return by how much the new version fails more often than the old one."""
        for name, (old, new) in self.samples.items():
            if name == metric:
                return new.rate - (old.rate if old.number else 0.0)
        return math.nan


def score_of(given: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], float]:
    """Return a function that compares an answer with its label: 1 if it is right, 0 if not."""

    def score(answer: Any, label: Any) -> float:
        if given is None:
            return float(_is_right(answer, label))
        return min(1.0, max(0.0, float(given(answer, label))))

    return score


def _is_right(answer: Any, label: Any) -> bool:
    if isinstance(answer, Mapping) and not isinstance(label, Mapping):
        values = [value for name, value in answer.items() if "version" not in str(name)]
        return len(values) == 1 and _is_right(values[0], label)
    if isinstance(answer, float) or isinstance(label, float):
        try:
            return math.isclose(answer, label, rel_tol=RELATIVE_TOLERANCE)
        except TypeError:
            return False
    same = answer == label
    return bool(same.all()) if hasattr(same, "all") else bool(same)
