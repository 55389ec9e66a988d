"""Check the arguments of a drift test."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from ...core.validation import format_value, index, is_real
from ...errors import BadArgument

__all__ = ["JOINT", "METHODS", "DriftOptions", "Options", "check_alpha"]

METHODS = ("ks", "psi", "chi2", "wasserstein", "js", "mmd", "c2st", "energy")
JOINT = ("mmd", "c2st", "energy")
"""Methods that judge several columns together."""
KINDS = ("embeddings", "probabilities")
_DEFAULT_THRESHOLDS = {"psi": 0.2, "c2st": 0.5}
_LARGEST = {"ks": 1.0, "chi2": 1.0, "js": 1.0, "energy": 1.0, "c2st": 1.0, "mmd": math.sqrt(2)}


class DriftOptions(TypedDict, total=False):
    """The options of ``assert_no_drift``, which judgements of runs and loads pass on."""

    method: str | Mapping[Any, str] | None
    alpha: float
    threshold: float | Mapping[str, float] | None
    bins: int
    kind: str | None
    embed: Callable[[list[str]], Any] | Mapping[Any, Callable[[list[str]], Any]] | None
    slices: Any
    missing: str


@dataclasses.dataclass(frozen=True)
class Options:
    """The checked options of one call."""

    method: str | Mapping[Any, str] | None = None
    alpha: float = 0.05
    threshold: float | Mapping[str, float] | None = None
    bins: int = 10
    kind: str | None = None
    embed: Any = None
    slices: Any = None
    missing: str = "fail"

    def check(self) -> None:
        """Raise ``BadArgument`` for an option that is wrong whatever the data are."""
        check_alpha("assert_no_drift", self.alpha)
        thresholds = (
            self.threshold if isinstance(self.threshold, Mapping) else {None: self.threshold}
        )
        for method, value in thresholds.items():
            if method is not None and method not in METHODS:
                raise BadArgument(
                    f"assert_no_drift: threshold names {format_value(method)}, which is not a method"
                )
            if value is not None and (not is_real(value) or value < 0):
                raise BadArgument(
                    f"assert_no_drift: threshold must be 0 or more, got {format_value(value)}"
                )
        if index(self.bins) is None or not 2 <= self.bins <= 100:
            raise BadArgument(
                f"assert_no_drift: bins must be from 2 to 100, got {format_value(self.bins)}"
            )
        for name, given, known in (
            ("kind", self.kind, (None, *KINDS)),
            ("missing", self.missing, ("fail", "compare")),
        ):
            if given not in known:
                raise BadArgument(
                    f"assert_no_drift: {name} must be {_listed(known)}, got {format_value(given)}"
                )
        functions = self.embed.values() if isinstance(self.embed, Mapping) else [self.embed]
        if any(one is not None and not callable(one) for one in functions):
            raise BadArgument(
                "assert_no_drift: embed must be a function of a list of texts, or a dict of them "
                f"by column, got {format_value(self.embed)}"
            )

    def threshold_of(self, method: str) -> float:
        """Return the smallest effect that matters, in the unit of a method."""
        given = (
            self.threshold.get(method) if isinstance(self.threshold, Mapping) else self.threshold
        )
        if given is None:
            return _DEFAULT_THRESHOLDS.get(method, 0.0)
        largest = _LARGEST.get(method)
        if largest is not None and given >= largest:
            raise BadArgument(
                f"assert_no_drift: threshold must be below {largest:.3g} for method={method!r}, "
                f"whose statistic is at most {largest:.3g}, got {given:g}"
            )
        return float(given)


def check_alpha(owner: str, alpha: Any) -> None:
    """Raise ``BadArgument`` unless ``alpha`` is a probability between 0 and 1."""
    if not is_real(alpha) or not 0 < alpha < 1:
        raise BadArgument(f"{owner}: alpha must be between 0 and 1, got {format_value(alpha)}")


def _listed(known: Sequence[object]) -> str:
    *rest, last = [repr(one) for one in known]
    return f"{', '.join(rest)} or {last}" if rest else last
