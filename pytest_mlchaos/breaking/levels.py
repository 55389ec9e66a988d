"""Read a fault with a range as its levels, from weak to strong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.faults import EVERY, Fault, Scale, create
from ..core.validation import format_value
from ..errors import BadArgument

__all__ = ["Levels"]


@dataclasses.dataclass(frozen=True)
class Levels:
    """A fault at each value of one parameter.

    Attributes:
        name: The name of the fault.
        keywords: Its keywords, with the range.
        parameter: The name of the parameter.
        values: Its values, the weakest first.
    """

    name: str
    keywords: Mapping[str, Any]
    parameter: str
    values: Sequence[float]

    @classmethod
    def of(cls, name: str, keywords: Mapping[str, Any]) -> Levels:
        """Return the levels. Raise ``BadArgument`` unless exactly one parameter is a range."""
        scales = {key: value for key, value in keywords.items() if isinstance(value, Scale)}
        if len(scales) != 1:
            raise BadArgument(
                f"mlchaos.breaking_point: exactly one parameter of {name} must be a chaos.scale, "
                f"got {len(scales)}. For example chaos.{name}(fraction=chaos.scale(0, 1))"
            )
        [(parameter, scale)] = scales.items()
        levels = cls(name, keywords, parameter, scale.levels)
        for value in (levels.values[0], levels.values[-1]):
            fault = levels.fault(value)
            if not fault.is_pinned:
                raise BadArgument(
                    f"mlchaos.breaking_point: the fault must leave nothing to a search, got "
                    f"{fault!r}. Give {format_value('at=')} and its other parameters"
                )
        return levels

    def fault(self, value: float) -> Fault:
        """Return the fault at a value. Without ``at`` and ``p``, it strikes at every visit."""
        keywords = {**self.keywords, self.parameter: value}
        if "p" not in keywords:
            keywords.setdefault("at", EVERY)
        return create(self.name, **keywords)

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in self.keywords.items())
        return f"{self.name}({shown})"
