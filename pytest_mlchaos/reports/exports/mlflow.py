"""Log a session as runs of MLflow: one for the session, and one below it for each test.

The client of MLflow is called directly, so that an active run of the caller stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .figures import Figures, of_session, of_test
from .libraries import Journal, files_of, require, session_from

__all__ = ["export"]

EXPERIMENT = "pytest-mlchaos"
LONGEST_PARAMETER = 500
"""Older servers of MLflow reject longer ones."""


def export(
    journal: Journal,
    *,
    experiment: str = EXPERIMENT,
    tracking_uri: str | None = None,
    tests: bool = True,
    artifacts: Sequence[str | os.PathLike[str]] = (),
) -> str:
    """Log a session, and return the id of its run.

    Args:
        journal: The path of a journal, several paths, or a session.
        experiment: The name of the experiment. It is made if it does not exist.
        tracking_uri: The address of the tracking server or store. Without it, the variable
            ``MLFLOW_TRACKING_URI`` counts.
        tests: If true, each test has a run of its own below that of the session.
        artifacts: Files to keep with the run, for example the HTML report. The journal is kept
            too, if it is a file.
    """
    require("mlflow", "pytest_mlchaos.export.mlflow", "mlflow-skinny", "mlflow")
    from mlflow.tracking import MlflowClient

    session = session_from(journal)
    client = MlflowClient(tracking_uri)
    found = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if found is None else found.experiment_id
    starts = [one.start for test in session.tests.values() if (one := test.timing("test"))]
    start = min((one for one in starts if one), default=None)
    run = _log(client, number, of_session(session), start, {})
    for path in files_of(journal, artifacts):
        client.log_artifact(run, str(path))
    for test in session.tests.values() if tests else ():
        timing = test.timing("test")
        begin = timing.start or None if timing is not None else None
        _log(client, number, of_test(test), begin, {"mlflow.parentRunId": run})
    return run


def _log(
    client: Any, experiment: str, figures: Figures, start: float | None, tags: dict[str, str]
) -> str:
    """Make a run with these figures, and return its id."""
    from mlflow.entities import Metric, Param, RunTag

    begin = None if start is None else round(start * 1000)
    end = None if begin is None else begin + round(figures.metrics.get("seconds", 0.0) * 1000)
    run = client.create_run(
        experiment, start_time=begin, run_name=figures.name, tags={**figures.tags, **tags}
    )
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, value, end or 0, 0) for name, value in figures.metrics.items()],
        params=[Param(name, text[:LONGEST_PARAMETER]) for name, text in figures.params.items()],
        tags=[RunTag("mlflow.source.name", "pytest-mlchaos")],
    )
    status = "FAILED" if figures.is_failed else "FINISHED"
    client.set_terminated(run.info.run_id, status, end)
    return str(run.info.run_id)
