"""Define ``Load``, the replies to one ``drive`` and their judgements."""

from __future__ import annotations

from .judgements.alerts import AlertVerdicts
from .judgements.circuits import CircuitVerdicts
from .judgements.correctness import CorrectnessVerdicts
from .judgements.failover import FailoverVerdicts
from .judgements.fallbacks import FallbackVerdicts
from .judgements.isolation import IsolationVerdicts
from .judgements.leaks import LeakVerdicts
from .judgements.overload import OverloadVerdicts
from .judgements.service_level import SloVerdicts
from .judgements.work import WorkVerdicts

__all__ = ["Load"]


class Load(
    SloVerdicts,
    FallbackVerdicts,
    IsolationVerdicts,
    CorrectnessVerdicts,
    OverloadVerdicts,
    WorkVerdicts,
    CircuitVerdicts,
    FailoverVerdicts,
    LeakVerdicts,
    AlertVerdicts,
):
    """The replies to one ``drive``, in the order of the requests."""
