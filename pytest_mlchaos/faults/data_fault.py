"""Define the base class of faults of data: where they strike, and how hard."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ..core.faults import Fault, is_drawn
from ..core.sites import Key
from ..core.validation import format_value
from ..errors import BadArgument

__all__ = ["RESULT", "DataFault"]

RESULT = "call.result"
"""The site of the values that dotted targets return."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class DataFault(Fault):
    """A fault that changes values on their way.

    Args:
        target: A function, ``"pkg.mod:function"``. The fault then strikes what its calls return,
            instead of its site.
        severity: 1 (barely noticeable) to 5 (extreme). It stands for the parameters in the table
            below, so give one of the two.
    """

    scales: ClassVar[Mapping[str, tuple[Any, Any, Any, Any, Any]]] = {}
    """For each parameter with a severity, its values at the severities 1 to 5."""

    target: str | None = None
    severity: int | None = None

    @property
    def gradual(self) -> Mapping[str, float]:  # type: ignore[override]  # it follows from the scales
        """Return the parameters with a severity. A share that is kept begins at 1."""
        return {
            name: 1.0 if values[0] > values[-1] else 0.0
            for name, values in self.scales.items()
            if isinstance(values[0], (int, float))
        }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None and not is_drawn(self.target) and not self.target.strip():
            raise BadArgument(
                f"{self.name}: target must be 'pkg.mod:function', got {format_value(self.target)}"
            )
        if self.severity is None or is_drawn(self.severity):
            return
        if self.severity not in range(1, 6):
            raise BadArgument(
                f"{self.name}: severity must be 1, 2, 3, 4 or 5, got {format_value(self.severity)}"
            )
        if not self.scales:
            raise BadArgument(f"{self.name} takes no severity=")
        for field in dataclasses.fields(self):
            if field.name in self.scales and getattr(self, field.name) != field.default:
                raise BadArgument(
                    f"{self.name}: severity={self.severity} stands for {field.name}. Give one of "
                    f"the two"
                )

    @property
    def key(self) -> Key:
        """Count the visits of the site, or those of the target whose results are struck."""
        return self.site if self.target is None else (RESULT, self.target)

    def scaled(self, name: str) -> Any:
        """Return a parameter's value, or that of the severity if one is given."""
        return (
            getattr(self, name)
            if self.severity is None or name not in self.scales
            else self.scales[name][self.severity - 1]
        )
