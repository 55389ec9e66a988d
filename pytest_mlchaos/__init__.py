"""Break machine-learning code on purpose, and prove that it recovers. A pytest plugin."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.crashes import CrashOutcome as CrashOutcome
    from .core.crashes import CrashState as CrashState
    from .core.crashes import Divergence as Divergence
    from .core.faults import Fault as Fault
    from .core.replies import Reply as Reply
    from .core.schedule import Schedule as Schedule
    from .core.sites import Visit as Visit
    from .decorators import chaos as chaos
    from .errors import MlchaosError as MlchaosError
    from .oracles.comparison import assert_not_worse as assert_not_worse
    from .oracles.convergence import assert_converged as assert_converged
    from .oracles.crash_report import CrashReport as CrashReport
    from .oracles.drift import assert_no_drift as assert_no_drift
    from .oracles.load import Load as Load
    from .oracles.pipeline import PipelineRun as PipelineRun
    from .oracles.run import Run as Run
    from .oracles.slo import assert_slo as assert_slo
    from .oracles.state import assert_same_state as assert_same_state
    from .oracles.world import RankRun as RankRun
    from .oracles.world import WorldRun as WorldRun
    from .plugin.fixture import Mlchaos as Mlchaos
    from .plugin.service import Service as Service
    from .plugin.world import World as World
    from .sites.dataloader import batches as batches
    from .sites.visits import visit as visit

__version__ = "0.1.0"

_PUBLIC = {
    "CrashOutcome": "core.crashes:CrashOutcome",
    "CrashReport": "oracles.crash_report:CrashReport",
    "CrashState": "core.crashes:CrashState",
    "Divergence": "core.crashes:Divergence",
    "Fault": "core.faults:Fault",
    "Load": "oracles.load:Load",
    "Mlchaos": "plugin.fixture:Mlchaos",
    "MlchaosError": "errors:MlchaosError",
    "PipelineRun": "oracles.pipeline:PipelineRun",
    "RankRun": "oracles.world:RankRun",
    "Reply": "core.replies:Reply",
    "Run": "oracles.run:Run",
    "Schedule": "core.schedule:Schedule",
    "Service": "plugin.service:Service",
    "Visit": "core.sites:Visit",
    "World": "plugin.world:World",
    "WorldRun": "oracles.world:WorldRun",
    "assert_converged": "oracles.convergence:assert_converged",
    "assert_no_drift": "oracles.drift:assert_no_drift",
    "assert_not_worse": "oracles.comparison:assert_not_worse",
    "assert_same_state": "oracles.state:assert_same_state",
    "assert_slo": "oracles.slo:assert_slo",
    "batches": "sites.dataloader:batches",
    "chaos": "decorators:chaos",
    "visit": "sites.visits:visit",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
