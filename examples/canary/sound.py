"""Roll back as soon as enough checks have failed, whatever the rollout is waiting for."""

from examples.canary.models import MODELS


class Canary:
    """Count failed checks, and roll back at a threshold."""

    threshold = 5

    def __init__(self) -> None:
        self.models = dict(MODELS)
        self.weights = {"v1": 1.0}
        self.failed_checks = 0
        self.status = "idle"

    def deploy(self, version: str) -> None:
        """Begin with a new version."""
        self.failed_checks, self.status = 0, "progressing"

    def split(self, weights: dict[str, float]) -> None:
        """Change the shares. An operator confirms each increase."""
        self.weights, self.status = weights, "waiting for the increase"

    def analyse(self, metrics: dict[str, float]) -> None:
        """Check the error rate of the last requests."""
        self.failed_checks += metrics["error_rate"] > 0.05
        if self.failed_checks >= self.threshold:
            self.rollback()

    def promote(self) -> None:
        """Give all customers the new version."""
        self.weights, self.status = {"v2": 1.0}, "succeeded"

    def rollback(self) -> None:
        """Give all customers the old version."""
        self.weights, self.status = {"v1": 1.0}, "failed"
