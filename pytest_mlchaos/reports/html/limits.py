"""Read the limits of an SLO from the arguments of its judgement."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...core.validation import parse_duration
from ...errors import BadArgument

__all__ = ["latency_bounds"]


def latency_bounds(limits: Mapping[str, object]) -> dict[str, float]:
    """Return the bounds that are latencies, in seconds: ``p50``, ``p99``, ``max``."""
    found = {}
    for name, limit in limits.items():
        if re.fullmatch(r"p\d{1,6}|max", name):
            try:
                found[name] = parse_duration(limit)
            except BadArgument:
                continue
    return found
