"""Break machine-learning code on purpose, and check that it recovers. A pytest plugin."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .breaking.verdicts import BreakingPoint as BreakingPoint
    from .comparing.verdicts import Comparison as Comparison
    from .core.faults import Fault as Fault
    from .core.points import reachable as reachable
    from .core.points import sometimes as sometimes
    from .core.replies import Reply as Reply
    from .core.schedule import Schedule as Schedule
    from .core.sites import Visit as Visit
    from .core.sites import site as site
    from .crashes.model import CrashOutcome as CrashOutcome
    from .crashes.model import CrashState as CrashState
    from .crashes.report import CrashReport as CrashReport
    from .decorators import chaos as chaos
    from .engine.controller import Controller as Controller
    from .engine.patching import Patches as Patches
    from .errors import MlchaosError as MlchaosError
    from .federation.verdicts import FederationRun as FederationRun
    from .monitoring.verdicts import Watch as Watch
    from .oracles.comparison import assert_not_worse as assert_not_worse
    from .oracles.convergence import assert_converged as assert_converged
    from .oracles.drift import DriftMonitor as DriftMonitor
    from .oracles.drift import assert_no_drift as assert_no_drift
    from .oracles.drift import assert_no_text_drift as assert_no_text_drift
    from .oracles.fairness.amplification import (
        assert_no_bias_amplification as assert_no_bias_amplification,
    )
    from .oracles.fairness.fair import assert_fair as assert_fair
    from .oracles.privacy.canaries import (
        assert_no_memorised_canaries as assert_no_memorised_canaries,
    )
    from .oracles.privacy.extraction import assert_no_extraction as assert_no_extraction
    from .oracles.privacy.inversion import assert_no_inversion as assert_no_inversion
    from .oracles.privacy.membership import (
        assert_no_membership_leak as assert_no_membership_leak,
    )
    from .oracles.quality.calibration import assert_calibrated as assert_calibrated
    from .oracles.quality.calibration import assert_not_overconfident as assert_not_overconfident
    from .oracles.quality.metric import assert_abstention as assert_abstention
    from .oracles.quality.metric import assert_metric as assert_metric
    from .oracles.quality.slices import assert_no_weak_slice as assert_no_weak_slice
    from .oracles.robustness.robust import assert_robust as assert_robust
    from .oracles.rows import assert_row_independent as assert_row_independent
    from .oracles.state import assert_same_state as assert_same_state
    from .pipelines.verdicts import PipelineRun as PipelineRun
    from .plugin.fixture import Mlchaos as Mlchaos
    from .ranks.api import World as World
    from .ranks.rank_run import RankRun as RankRun
    from .ranks.verdicts import WorldRun as WorldRun
    from .runs.traces import Divergence as Divergence
    from .runs.verdicts import Run as Run
    from .serving.api import Service as Service
    from .serving.capacity import Capacity as Capacity
    from .serving.rollouts.verdicts import Rollout as Rollout
    from .serving.slo import assert_slo as assert_slo
    from .serving.verdicts import Load as Load
    from .sites.dataloader import batches as batches
    from .sites.visits import visit as visit

__version__ = "0.1.0"

_PUBLIC = {
    "BreakingPoint": "breaking.verdicts:BreakingPoint",
    "Capacity": "serving.capacity:Capacity",
    "Comparison": "comparing.verdicts:Comparison",
    "Controller": "engine.controller:Controller",
    "CrashOutcome": "crashes.model:CrashOutcome",
    "CrashReport": "crashes.report:CrashReport",
    "CrashState": "crashes.model:CrashState",
    "Divergence": "runs.traces:Divergence",
    "DriftMonitor": "oracles.drift:DriftMonitor",
    "Fault": "core.faults:Fault",
    "FederationRun": "federation.verdicts:FederationRun",
    "Load": "serving.verdicts:Load",
    "Mlchaos": "plugin.fixture:Mlchaos",
    "MlchaosError": "errors:MlchaosError",
    "Patches": "engine.patching:Patches",
    "PipelineRun": "pipelines.verdicts:PipelineRun",
    "RankRun": "ranks.rank_run:RankRun",
    "Reply": "core.replies:Reply",
    "Rollout": "serving.rollouts.verdicts:Rollout",
    "Run": "runs.verdicts:Run",
    "Schedule": "core.schedule:Schedule",
    "Service": "serving.api:Service",
    "Visit": "core.sites:Visit",
    "Watch": "monitoring.verdicts:Watch",
    "World": "ranks.api:World",
    "WorldRun": "ranks.verdicts:WorldRun",
    "assert_abstention": "oracles.quality.metric:assert_abstention",
    "assert_calibrated": "oracles.quality.calibration:assert_calibrated",
    "assert_converged": "oracles.convergence:assert_converged",
    "assert_fair": "oracles.fairness.fair:assert_fair",
    "assert_metric": "oracles.quality.metric:assert_metric",
    "assert_no_bias_amplification": "oracles.fairness.amplification:assert_no_bias_amplification",
    "assert_no_extraction": "oracles.privacy.extraction:assert_no_extraction",
    "assert_no_inversion": "oracles.privacy.inversion:assert_no_inversion",
    "assert_no_membership_leak": "oracles.privacy.membership:assert_no_membership_leak",
    "assert_no_memorised_canaries": "oracles.privacy.canaries:assert_no_memorised_canaries",
    "assert_no_drift": "oracles.drift:assert_no_drift",
    "assert_no_weak_slice": "oracles.quality.slices:assert_no_weak_slice",
    "assert_not_overconfident": "oracles.quality.calibration:assert_not_overconfident",
    "assert_no_text_drift": "oracles.drift:assert_no_text_drift",
    "assert_not_worse": "oracles.comparison:assert_not_worse",
    "assert_robust": "oracles.robustness.robust:assert_robust",
    "assert_row_independent": "oracles.rows:assert_row_independent",
    "assert_same_state": "oracles.state:assert_same_state",
    "assert_slo": "serving.slo:assert_slo",
    "batches": "sites.dataloader:batches",
    "chaos": "decorators:chaos",
    "reachable": "core.points:reachable",
    "site": "core.sites:site",
    "sometimes": "core.points:sometimes",
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
