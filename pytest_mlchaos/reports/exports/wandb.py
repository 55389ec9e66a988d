"""Log a session as a run of Weights & Biases, with a table of its tests.

The run records nothing else: no code, no output, no facts about the machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..journal_reader import SessionLog
from .figures import Figures, of_session, of_test
from .libraries import Journal, files_of, require, session_from

__all__ = ["export"]

PROJECT = "pytest-mlchaos"
_COLUMNS = ("trials", "strikes", "crash_states", "lost_steps.max", "restart_seconds", "seconds")


def export(
    journal: Journal,
    *,
    project: str = PROJECT,
    artifacts: Sequence[str | os.PathLike[str]] = (),
    **settings: Any,
) -> str:
    """Log a session, and return the id of its run.

    Args:
        journal: The path of a journal, several paths, or a session.
        project: The name of the project.
        artifacts: Files to keep with the run, for example the HTML report. The journal is kept
            too, if it is a file.
        **settings: More arguments of ``wandb.init``, for example ``entity`` or ``mode``.
    """
    require("wandb", "pytest_mlchaos.export.wandb", "wandb", "wandb")
    import wandb

    session = session_from(journal)
    figures = of_session(session)
    run = wandb.init(
        project=project,
        name=settings.pop("name", figures.name),
        job_type="chaos tests",
        config=dict(figures.params),
        tags=[figures.tags["mlchaos.verdict"]],
        # A run of the caller stays as it is.
        reinit="create_new",
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
        **settings,
    )
    try:
        run.summary.update(dict(figures.metrics))
        run.log({"tests": _table(session)})
        if files := files_of(journal, artifacts):
            artifact = wandb.Artifact("chaos-tests", type="report")
            for path in files:
                artifact.add_file(str(path))
            run.log_artifact(artifact)
    finally:
        run.finish(exit_code=int(figures.is_failed))
    return str(run.id)


def _table(session: SessionLog) -> Any:
    """Return a table with a row for each test."""
    import wandb

    rows = [_row(of_test(test)) for test in session.tests.values()]
    return wandb.Table(columns=["test", "verdict", *_COLUMNS, "reproduce"], data=rows)


def _row(figures: Figures) -> list[Any]:
    return [
        figures.tags["mlchaos.test"],
        figures.tags["mlchaos.verdict"],
        *(figures.metrics.get(name) for name in _COLUMNS),
        figures.tags.get("mlchaos.reproduce", ""),
    ]
