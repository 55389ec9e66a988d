"""Define ``Load``, the replies to one ``drive`` and their judgements."""

from __future__ import annotations

from .judgements.fallbacks import FallbackVerdicts
from .judgements.isolation import IsolationVerdicts
from .judgements.service_level import SloVerdicts

__all__ = ["Load"]


class Load(SloVerdicts, FallbackVerdicts, IsolationVerdicts):
    """The replies to one ``drive``, in the order of the requests."""
