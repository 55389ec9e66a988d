"""Provide the cases for the faults of deployments."""

from __future__ import annotations

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.rollouts import Operation
from pytest_mlchaos.testing import Case


def deployment():
    """Return a deployment of a controller with a configuration and features."""
    return Operation(
        name="deploy", watched=("errors", "quality"), has_features=True, config=("limit",)
    )


def bare_deployment():
    """Return a deployment without a configuration and features."""
    return Operation(name="deploy")


def metrics():
    """Return the metrics of both versions."""
    candidate = {"requests": 10, "errors": 1, "error_rate": 0.1}
    return {**candidate, "version": "v2", "candidate": candidate, "stable": {"error_rate": 0.1}}


def nothing():
    """Return a payload that is not a call of a controller."""
    return 7


CASES = {
    "bad_deploy": Case(
        create("bad_deploy"),
        deployment,
        wrong=[nothing],
        bad=[{"by": 0}, {"by": 1.5}, {"slice": 3}, {"delay": 0}],
    ),
    "partial_rollout": Case(
        create("partial_rollout"), deployment, wrong=[nothing], bad=[{"share": 0}]
    ),
    "rollback_failure": Case(
        create("rollback_failure"), deployment, wrong=[nothing], bad=[{"by": 2.0}]
    ),
    "config_drift": Case(
        create("config_drift"), deployment, wrong=[nothing], neutral=bare_deployment
    ),
    "version_skew": Case(
        create("version_skew"), deployment, wrong=[nothing], neutral=bare_deployment
    ),
    "registry_unavailable": Case(
        create("registry_unavailable"), lambda: "v2", bad=[{"target": " "}]
    ),
    "metrics_missing": Case(
        create("metrics_missing"), metrics, wrong=[nothing], bad=[{"checks": 0}]
    ),
    "slow_start": Case(create("slow_start"), deployment, wrong=[nothing], bad=[{"delay": 0}]),
}
