"""Let the severity of a fault grow over visits, for damage that begins small."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import BadArgument
from .validation import format_value, index, is_real

if TYPE_CHECKING:
    from .faults import Fault

__all__ = ["at_strength", "check_ramp", "ramped", "strength"]

F = TypeVar("F", bound="Fault")
LOWEST_SEVERITY = 1


def check_ramp(fault: Fault) -> None:
    """Raise ``BadArgument`` if a fault cannot grow as its ``ramp`` says."""
    if fault.ramp is None:
        return
    visits = index(fault.ramp)
    if visits is None or visits < 2:
        raise BadArgument(
            f"{fault.name}: ramp must be the number of visits over which the fault grows, 2 or "
            f"more, got {format_value(fault.ramp)}"
        )
    if fault.p is None and not ramped(fault):
        raise BadArgument(
            f"{fault.name}: ramp must be given together with a parameter that can grow, and this "
            f"fault has none. With p=, the probability grows"
        )


def ramped(fault: Fault) -> Mapping[str, float]:
    """Return the parameters that grow, each with the value at which the fault does nothing.

    These are the parameters that the test gave. If it gave none of them, all grow up to their
    defaults. With ``p``, the probability grows instead of them.
    """
    if fault.p is not None:
        return {}
    growing = {
        name: neutral
        for name, neutral in fault.gradual.items()
        if is_real(getattr(fault, name, None))
    }
    severity = getattr(fault, "severity", None)
    if severity is not None and growing:
        return {"severity": 0}
    defaults = {field.name: field.default for field in dataclasses.fields(fault)}
    given = {name: one for name, one in growing.items() if getattr(fault, name) != defaults[name]}
    return given or growing


def strength(fault: Fault, visit: int) -> float:
    """Return the share of its full strength that a fault has at a visit, above 0 and up to 1."""
    if fault.ramp is None:
        return 1.0
    first = fault.at[0] if isinstance(fault.at, (tuple, range)) else 0
    return float(min(1.0, max(1, visit - first + 1) / fault.ramp))


def at_strength(fault: F, share: float) -> F:
    """Return the fault at a share of its full strength. It is the same object for a share of 1."""
    if share >= 1:
        return fault
    changes = {
        name: _between(fault, name, neutral, share) for name, neutral in ramped(fault).items()
    }
    if not changes:
        return fault
    return dataclasses.replace(fault, **changes)


def _between(fault: Fault, name: str, neutral: float, share: float) -> Any:
    """Return a parameter's value between the neutral one and its own. Counts are rounded up."""
    value = getattr(fault, name)
    if name == "severity":
        return max(LOWEST_SEVERITY, math.ceil(value * share))
    between = neutral + (value - neutral) * share
    if not isinstance(value, int):
        return between
    scales: Mapping[str, Any] = getattr(fault, "scales", {})
    least = min(scales[name][0], value) if name in scales else 1
    return max(least, math.ceil(between))
