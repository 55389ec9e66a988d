"""Send a journal to other systems by a call, for example from a notebook or a script.

``from pytest_mlchaos.export import otel`` loads no library. ``otel.export(...)`` does.
"""

from __future__ import annotations

from ..reports.exports import mlflow, otel, prometheus, wandb

__all__ = ["mlflow", "otel", "prometheus", "wandb"]
